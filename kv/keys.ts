/**
 * Requests for one entry: its key is the path.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { type Entry, RevisionConflict } from "../stores/store.ts";
import { expectNoBody, readValue } from "./bodies.ts";
import { matches, noneMatches, readConditions, writeIf, writeOver } from "./conditions.ts";
import { notAllowed } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import {
  acceptedType,
  expectNoQuery,
  readKey,
  readQuery,
  TtlQuery,
  WriteQuery,
} from "./requests.ts";
import { entryHeaders, memberText, textResponse } from "./responses.ts";
import { readOnlyToken } from "./tokens.ts";

/** Responds to a request whose path is a key. */
export function handleKey(exchange: Exchange): Promise<Response> {
  switch (exchange.method) {
    case "GET":
    case "HEAD":
      return get(exchange);
    case "PUT":
      return put(exchange);
    case "PATCH":
      return extend(exchange);
    case "DELETE":
      return remove(exchange);
    default:
      throw notAllowed(exchange.method, "GET, HEAD, PUT, PATCH, DELETE");
  }
}

async function get(exchange: Exchange): Promise<Response> {
  expectNoQuery(exchange);
  const key = readKey(exchange);
  const entry = await exchange.store.get(key);
  const conditions = readConditions(exchange);
  if (conditions !== null) {
    if (!matches(conditions.ifMatch, entry)) throw new RevisionConflict(key, entry);
    if (!noneMatches(conditions.ifNoneMatch, entry)) {
      const { "Content-Type": _, ...headers } = entryHeaders(entry);
      return new Response(null, { status: 304, headers });
    }
  }
  const type = acceptedType(exchange, ["application/json", "text/plain"]);
  if (type === "text/plain") return plainResponse(exchange, key, entry);
  return textResponse(exchange, 200, memberText(key, entry?.value), entryHeaders(entry));
}

async function put(exchange: Exchange): Promise<Response> {
  const { access, store } = exchange;
  if (!access.canWrite) throw readOnlyToken();
  const { ttl } = readQuery(exchange, WriteQuery);
  const key = readKey(exchange);
  const value = await readValue(exchange);
  const written = await writeIf(
    exchange,
    key,
    (ifRevision) => store.set(key, value, { ttl, ifRevision }),
  );
  const status = written.created ? 201 : 200;
  return textResponse(exchange, status, memberText(key, value), entryHeaders(written));
}

async function extend(exchange: Exchange): Promise<Response> {
  const { access, store } = exchange;
  if (!access.canWrite) throw readOnlyToken();
  const { ttl } = readQuery(exchange, TtlQuery);
  const key = readKey(exchange);
  await expectNoBody(exchange);
  const written = await writeOver(exchange, key, readConditions(exchange), async (current) => {
    if (current === null) throw notFound(key);
    return await store.set(key, current.value, { ttl, ifRevision: current.revision });
  });
  return textResponse(exchange, 200, memberText(key, written.value), entryHeaders(written));
}

async function remove(exchange: Exchange): Promise<Response> {
  expectNoQuery(exchange);
  const key = readKey(exchange);
  const removed = await writeIf(
    exchange,
    key,
    (ifRevision) => exchange.store.delete(key, { ifRevision }),
  );
  return textResponse(exchange, 200, memberText(key, removed?.value));
}

/** A value for a shell script: a string without its quotes, and anything else as JSON. */
function plainResponse(exchange: Exchange, key: string, entry: Entry | null): Response {
  if (entry === null) throw notFound(key);
  const text = entry.value.startsWith('"') ? JSON.parse(entry.value) : entry.value;
  return textResponse(exchange, 200, text, {
    ...entryHeaders(entry),
    "Content-Type": "text/plain; charset=UTF-8",
    // Another representation needs another tag, RFC 9110, section 8.8.1. A weak one is allowed.
    "ETag": `W/"${entry.revision}"`,
  });
}

function notFound(key: string): HTTPException {
  return new HTTPException(404, { message: `There is no entry "${key}"` });
}
