/**
 * The scripts that a store writes with, each one atomic step on the server: no client sees one half
 * done. They check and read no more of a value than an entry can have.
 */
import { createHash } from "node:crypto";
import { isExpiry, isPacked, isRefusal, MAX_ENTRY_BYTES } from "./format.ts";

/** Sends one command to the server. */
export type Send = (name: string, args: (string | number)[]) => Promise<unknown>;

/**
 * Ends the script, with the entry that is there, unless ARGV[1] is "", "=<its revision>" or, for
 * nothing, "!". Only EXISTS distinguishes nothing from an empty text.
 */
const CHECK = `
  local revision = redis.call('GETRANGE', KEYS[1], 0, 35)
  local isThere = revision ~= '' or redis.call('EXISTS', KEYS[1]) == 1
  local function entry()
    return isThere and redis.call('GETRANGE', KEYS[1], 0, ${MAX_ENTRY_BYTES})
  end
  if ARGV[1] ~= '' and ARGV[1] ~= (isThere and '=' .. revision or '!') then return entry() end`;

/**
 * Writes all KEYS and publishes them: ARGV has the condition, the channel, the ttl in milliseconds
 * or "", then revisions and values. Returns whether nothing was there, and when the entries expire.
 * A key is published before it is written, so that a user who may not publish cannot write either.
 */
export const PUT = script(
  `${CHECK}
  local expires = '-'
  if ARGV[3] ~= '' then
    local now = redis.call('TIME')
    expires = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3])
  end
  for i, key in ipairs(KEYS) do
    local entry = ARGV[i * 2 + 2] .. ' ' .. expires .. ' ' .. ARGV[i * 2 + 3]
    redis.call('PUBLISH', ARGV[2], key)
    if expires == '-' then
      redis.call('SET', key, entry)
    else
      redis.call('SET', key, entry, 'PXAT', expires)
    end
  end
  return {isThere and 0 or 1, expires}`,
  (values): values is [created: number, expires: string] =>
    typeof values[0] === "number" && isExpiry(values[1]),
);

/**
 * Removes KEYS[1], and publishes it if it was there: ARGV has the condition and the channel. Returns
 * the entry, if there was one.
 */
export const REMOVE = script(
  `${CHECK}
  local removed = entry()
  if isThere then
    redis.call('PUBLISH', ARGV[2], KEYS[1])
    redis.call('DEL', KEYS[1])
  end
  return {removed}`,
  (values): values is [entry: string | null] => isPacked(values[0]),
);

/**
 * Does what reads and writes do, with the key KEYS[1] that no entry has: it changes nothing. What it
 * publishes on the channel ARGV[2] is not a key. `SET` fails if the server is full. ARGV[3] is the kind
 * of the store: in a Cluster a key whose slot is moving needs ASKING.
 */
export const PROBE = script(
  `redis.call('TIME')
  redis.call('GET', KEYS[1])
  redis.call('GETRANGE', KEYS[1], 0, 0)
  redis.call('EXISTS', KEYS[1])
  redis.call('PUBLISH', ARGV[2], '')
  redis.call('SET', KEYS[1], '', 'XX')
  redis.call('DEL', KEYS[1])
  if ARGV[3] == 'cluster' then redis.call('ASKING') end
  return {}`,
  (values): values is [] => values.length === 0,
);

/** A Lua script, the hash by which the server knows it once it has run, and a check of its array. */
function script<Done extends unknown[]>(
  lua: string,
  isDone: (values: unknown[]) => values is Done,
) {
  return { lua, hash: createHash("sha1").update(lua).digest("hex"), isDone };
}

/**
 * Runs a script, whose first argument is a condition. Returns an array of what it has done, or the
 * entry that did not meet the condition.
 *
 * @throws {Error} If the reply is neither; then it is not known whether anything was written
 */
export async function runScript<Done extends unknown[]>(
  send: Send,
  { lua, hash, isDone }: ReturnType<typeof script<Done>>,
  keys: readonly string[],
  args: readonly string[],
): Promise<Done | string | null> {
  // Not as arguments of a function, of which there may be too many.
  const rest = [keys.length, ...keys, ...args];
  const reply = await send("evalsha", [hash, ...rest]).catch((error) => {
    if (!isRefusal(error, "NOSCRIPT")) throw error;
    return send("eval", [lua, ...rest]);
  });
  if (Array.isArray(reply)) {
    if (isDone(reply)) return reply;
  } else if (args[0] !== "" && isPacked(reply)) return reply;
  throw new Error("its reply is unexpected");
}
