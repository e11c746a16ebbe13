/**
 * Requests that write many entries: `POST /` and `DELETE /?prefix=`.
 *
 * @module
 */
import type { JsonText } from "../stores/json/text.ts";
import {
  expectJson,
  expectUtf8,
  isForm,
  parseJson,
  readBytes,
  readForm,
  readMembers,
} from "./bodies.ts";
import { readConditions } from "./conditions.ts";
import { restoreBody } from "./dumps.ts";
import { badRequest } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { SMALL_BYTES } from "./memory.ts";
import { execute, readOperations } from "./operations.ts";
import { pause } from "./pace.ts";
import { expectNoQuery, readQuery, RemoveQuery, WriteQuery } from "./requests.ts";
import { jsonResponse, objectText, textResponse } from "./responses.ts";
import { readOnlyToken } from "./tokens.ts";

/** How many keys `DELETE /?prefix=` removes at once: the store returns their values. */
const REMOVED_AT_ONCE = 64;
/** Setting more keys than this takes a while. */
const MANY_KEYS = 1000;

/** Responds to `POST /`: an object, a form, an array of operations, or lines of a dump. */
export async function post(exchange: Exchange): Promise<Response> {
  const { access } = exchange;
  if (readConditions(exchange) !== null) {
    throw badRequest("Cannot set on a condition: PUT the key, or send an array with ifRevision");
  }
  const { ttl } = readQuery(exchange, WriteQuery);
  const type = exchange.headers.get("Content-Type") ?? "";
  const isLines = /^application\/x-ndjson\b/i.test(type);
  if (!access.canWrite && (isLines || isForm(exchange))) throw readOnlyToken();
  if (isLines || isForm(exchange)) expectUtf8(type);
  if (isLines) return await restoreBody(exchange, ttl);
  if (isForm(exchange)) return await set(exchange, await readForm(exchange), ttl);
  expectJson(exchange);
  // An array is executed also for a reader: it may consist of gets.
  const bytes = await readBytes(exchange);
  const body = parseJson(
    bytes,
    (reader) => reader.peek() === "[" ? readOperations(reader) : readMembers(reader),
  );
  if (bytes.length > SMALL_BYTES) await pause();
  if (body instanceof Map) return await set(exchange, body, ttl);
  expectNoQuery(exchange);
  return await execute(exchange, body);
}

async function set(
  exchange: Exchange,
  values: Map<string, JsonText>,
  ttl: number | undefined,
): Promise<Response> {
  await exchange.store.setAll(values, { ttl });
  if (values.size > MANY_KEYS) await pause();
  return textResponse(exchange, 200, objectText(values));
}

/** Responds to `DELETE /?prefix=`. */
export async function removeAll(exchange: Exchange): Promise<Response> {
  const { access, store } = exchange;
  if (!access.canWrite) throw readOnlyToken();
  const { prefix, all } = readQuery(exchange, RemoveQuery);
  if (prefix === "" && all === undefined) {
    throw badRequest("Cannot delete everything: expected a prefix, or ?prefix=&all");
  }
  if (readConditions(exchange) !== null) {
    throw badRequest("Cannot delete a prefix on a condition: DELETE the keys");
  }
  let deleted = 0;
  let after: string | undefined;
  do {
    const { keys, next } = await store.list(prefix, { after, limit: REMOVED_AT_ONCE });
    const entries = await Promise.all(keys.map((key) => store.delete(key)));
    deleted += entries.filter((entry) => entry !== null).length;
    after = next ?? undefined;
  } while (after !== undefined);
  return jsonResponse(exchange, { deleted });
}
