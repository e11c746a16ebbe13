/**
 * The scripts that a store writes with, each one atomic step on the server: no client sees one half
 * done. They check and read no more of a value than an entry can have.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { isRefusal, MAX_ENTRY_BYTES } from "./format.ts";

/** Sends one command to the server. */
export type Send = (name: string, args: (string | number)[]) => Promise<unknown>;

/** A Lua script, and the hash by which the server knows it once it has run. */
export interface Script {
  readonly lua: string;
  readonly hash: string;
}

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
 * or "", then revisions and values. A key is published before it is written, so that a user who may
 * not publish cannot write either.
 */
export const PUT = script(`${CHECK}
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
  return {isThere and 0 or 1, expires}`);

/** Removes KEYS[1], and publishes it if it was there: ARGV has the condition and the channel. */
export const REMOVE = script(`${CHECK}
  local removed = entry()
  if isThere then
    redis.call('PUBLISH', ARGV[2], KEYS[1])
    redis.call('DEL', KEYS[1])
  end
  return {removed}`);

function script(lua: string): Script {
  return { lua, hash: createHash("sha1").update(lua).digest("hex") };
}

/**
 * Runs a script. An array is what it has done, anything else the entry that did not meet the
 * condition.
 */
export async function runScript(
  send: Send,
  { lua, hash }: Script,
  keys: readonly string[],
  args: readonly string[],
): Promise<unknown> {
  // Not as arguments of a function, of which there may be too many.
  const rest = [keys.length, ...keys, ...args];
  try {
    return await send("evalsha", [hash, ...rest]);
  } catch (error) {
    if (!isRefusal(error, "NOSCRIPT")) throw error;
    return await send("eval", [lua, ...rest]);
  }
}
