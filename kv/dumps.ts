/**
 * Dumps of the service as newline-delimited JSON, one entry a line, and restoring them.
 *
 * @module
 */
import { entries, LIMITS, line, restore } from "../stores/lines.ts";
import type { Store } from "../stores/store.ts";
import { BODY_TIMEOUT, readChunks } from "./bodies.ts";
import type { Exchange } from "./exchange.ts";
import { pause } from "./pace.ts";
import { sourceOf, streamResponse } from "./pieces.ts";
import { GUARD_HEADERS, jsonResponse } from "./responses.ts";

/** The media type. */
export const NDJSON = "application/x-ndjson";
/** About how many characters of a dump are sent at once. */
const CHUNK_LENGTH = 64 * 1024;

const HEADERS = { ...GUARD_HEADERS, "Content-Type": NDJSON, "Vary": "Accept" };

/** Responds with every entry under a prefix, read as the client reads. */
export async function dump(exchange: Exchange, prefix: string): Promise<Response> {
  if (exchange.method === "HEAD") return new Response(null, { headers: HEADERS });
  await pause();
  return await streamResponse(exchange, sourceOf(chunksOf(exchange.store, prefix)), HEADERS);
}

/** The lines of a dump, many at a time. */
async function* chunksOf(store: Store, prefix: string): AsyncGenerator<string> {
  let chunk = "";
  for await (const entry of entries(store, prefix)) {
    chunk += `${line(entry)}\n`;
    if (chunk.length < CHUNK_LENGTH) continue;
    yield chunk;
    chunk = "";
  }
  yield chunk;
}

/** Responds to the lines of a dump, which are written as they arrive. */
export async function restoreBody(exchange: Exchange, ttl: number | undefined): Promise<Response> {
  exchange.hold(LIMITS.lineBytes + LIMITS.batchBytes);
  const chunks = readChunks(exchange, () => BODY_TIMEOUT);
  return jsonResponse(exchange, { restored: await restore(exchange.store, chunks, { ttl }) });
}
