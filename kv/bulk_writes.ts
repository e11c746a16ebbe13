/** Requests that write many entries: `POST /` and `DELETE /?prefix=`. */
import { type JsonText, StoreUnavailable } from "../stores/store.ts";
import { type Answer, JSON_HEADERS, jsonAnswer, type KvContext } from "./answers.ts";
import { expectJson, expectUtf8, parseJson, readBytes, readMembers } from "./bodies.ts";
import { readConditions } from "./conditions.ts";
import { restoreBody } from "./dumps.ts";
import { badRequest } from "./errors.ts";
import { isForm, readForm } from "./forms.ts";
import { SMALL_BYTES } from "./held.ts";
import { execute, readOperations } from "./operations.ts";
import { pause } from "./pace.ts";
import { expectNoQuery, QUERIES, readQuery } from "./requests.ts";
import { writing } from "./tokens.ts";

/** How many keys `DELETE /?prefix=` removes at once: the store returns the values of all of them. */
const REMOVED_AT_ONCE = 64;
/** After setting more keys than this, other requests get a turn. */
const MANY_KEYS = 1000;

/** `POST /`: an object, a form, an array of operations, or lines of a dump. */
export async function post(c: KvContext): Promise<Answer> {
  if (readConditions(c) !== null) {
    throw badRequest("Cannot set on a condition: PUT the key, or send an array with ifRevision");
  }
  const { ttl } = readQuery(c, QUERIES.write);
  const type = c.req.header("Content-Type") ?? "";
  const isLines = /^application\/x-ndjson\s*(;|$)/i.test(type);
  if (isLines || isForm(type)) {
    const store = writing(c);
    expectUtf8(type);
    return isLines ? await restoreBody(c, store, ttl) : await set(c, await readForm(c, type), ttl);
  }
  expectJson(c);
  // Arrays are also executed for a token that only reads: they may contain only gets.
  const bytes = await readBytes(c);
  const body = parseJson(
    bytes,
    (reader) => reader.peek() === "[" ? readOperations(reader) : readMembers(reader),
  );
  if (bytes.length > SMALL_BYTES) await pause();
  if (body instanceof Map) return await set(c, body, ttl);
  expectNoQuery(c);
  return await execute(c, body);
}

async function set(c: KvContext, values: Map<string, JsonText>, ttl?: number): Promise<Answer> {
  const store = writing(c);
  const members = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value}`);
  const body = `{${members.join()}}`;
  const held = c.get("held");
  held.drop();
  held.send(body);
  await store.setAll(values, { ttl });
  if (values.size > MANY_KEYS) await pause();
  return { status: 200, headers: JSON_HEADERS, body };
}

/** `DELETE /?prefix=`: removes all keys under a prefix. */
export async function removeAll(c: KvContext): Promise<Answer> {
  const store = writing(c);
  const { prefix, all } = readQuery(c, QUERIES.remove);
  if (prefix === "" && all === undefined) {
    throw badRequest("Cannot delete everything: expected a prefix, or ?prefix=&all");
  }
  if (readConditions(c) !== null) {
    throw badRequest("Cannot delete a prefix on a condition: DELETE the keys");
  }
  let deleted = 0;
  let isBegun = false;
  let after: string | undefined;
  try {
    do {
      const { keys, next } = await store.list(prefix, { after, limit: REMOVED_AT_ONCE });
      isBegun ||= keys.length > 0;
      await Promise.all(keys.map(async (key) => {
        if (await store.delete(key) !== null) deleted++;
      }));
      after = next ?? undefined;
      await pause();
    } while (after !== undefined);
  } catch (error) {
    if (!isBegun || !(error instanceof StoreUnavailable)) throw error;
    throw new StoreUnavailable(error.message, { cause: error, outcome: "unknown" });
  }
  return jsonAnswer({ deleted });
}
