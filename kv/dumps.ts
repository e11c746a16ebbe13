/**
 * Dumps of the service as newline-delimited JSON, one entry a line, and restoring them.
 *
 * @module
 */
import { entries, LIMITS, restore } from "../stores/dumps.ts";
import { backupLine, line } from "../stores/lines.ts";
import type { Store } from "../stores/store.ts";
import { BODY_TIMEOUT, readChunks } from "./bodies.ts";
import type { Exchange } from "./exchange.ts";
import { pause } from "./pace.ts";
import { sourceOf, streamResponse } from "./pieces.ts";
import { BackupQuery, PrefixQuery, readQuery } from "./requests.ts";
import { GUARD_HEADERS, jsonResponse } from "./responses.ts";

/** The media type. */
export const NDJSON = "application/x-ndjson";
/** About how many characters of a dump are sent at once. */
const CHUNK_LENGTH = 64 * 1024;

const HEADERS = { ...GUARD_HEADERS, "Content-Type": NDJSON, "Vary": "Accept" };

/** Responds with every entry under a prefix, `{key: value}` a line. */
export async function dump(exchange: Exchange): Promise<Response> {
  return await lines(exchange, readQuery(exchange, PrefixQuery).prefix, line);
}

/** Responds with every entry under a prefix and its lifetime, `{key, value, expires}` a line. */
export async function backup(exchange: Exchange): Promise<Response> {
  return await lines(exchange, readQuery(exchange, BackupQuery).prefix, backupLine);
}

/** Responds with a line of each entry, read as the client reads. */
async function lines(exchange: Exchange, prefix: string, lineOf: typeof line): Promise<Response> {
  if (exchange.method === "HEAD") return new Response(null, { headers: HEADERS });
  await pause();
  return await streamResponse(
    exchange,
    sourceOf(chunksOf(exchange.store, prefix, lineOf)),
    HEADERS,
  );
}

/** The lines of a dump, many at a time. */
async function* chunksOf(
  store: Store,
  prefix: string,
  lineOf: typeof line,
): AsyncGenerator<string> {
  let chunk = "";
  for await (const entry of entries(store, prefix)) {
    chunk += `${lineOf(entry)}\n`;
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
  const { restored, expired } = await restore(exchange.store, chunks, { ttl });
  return jsonResponse(exchange, expired > 0 ? { restored, expired } : { restored });
}
