/**
 * A store as newline-delimited JSON, one entry a line: dumps, and restoring them. Either side holds a
 * few entries at a time, however many there are.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { checkKey, checkTtl } from "../stores/checks.ts";
import { line } from "../stores/entries.ts";
import type { JsonText } from "../stores/json/text.ts";
import { MAX_VALUE_BYTES, type Store } from "../stores/store.ts";
import { BODY_TIMEOUT, expectObject, parseJson, readChunks } from "./bodies.ts";
import { badRequest, RestoreStopped, tooLarge } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { pause } from "./pace.ts";
import { GUARD_HEADERS, jsonResponse } from "./responses.ts";
import { sourceOf, streamResponse } from "./pieces.ts";

/** The media type. */
export const NDJSON = "application/x-ndjson";
/** The longest line that is read, in bytes: a key and a value, and room for escapes. */
export const MAX_LINE_BYTES = 2 * MAX_VALUE_BYTES;
const NEWLINE = 0x0a;
/** How many lines, and about how many bytes, are written at once. */
const BATCH_LINES = 1000;
const BATCH_BYTES = 2 * 1024 * 1024;
/** The most entries that a dump fetches at once. */
const FETCHED_AT_ONCE = 16;
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
  let atOnce = 1;
  let chunk = "";
  let after: string | undefined;
  do {
    const { keys, next } = await store.list(prefix, { after });
    while (keys.length > 0) {
      const { text, used, isWhole } = await fetchLines(store, keys.slice(0, atOnce));
      keys.splice(0, used);
      // A slow client must not hold large entries that it will not read soon: fetch them again then.
      atOnce = isWhole ? Math.min(2 * atOnce, FETCHED_AT_ONCE) : used;
      chunk += text;
      if (chunk.length < CHUNK_LENGTH) continue;
      yield chunk;
      chunk = "";
    }
    after = next ?? undefined;
  } while (after !== undefined);
  yield chunk;
}

/** Fetches entries, and returns the lines of as many of them as a chunk may have. */
async function fetchLines(store: Store, keys: string[]) {
  const entries = await Promise.all(keys.map((key) => store.get(key)));
  let text = "";
  let used = 0;
  for (const entry of entries) {
    used++;
    if (entry !== null) text += `${line(entry)}\n`;
    if (text.length >= CHUNK_LENGTH) break;
  }
  return { text, used, isWhole: used === entries.length };
}

/**
 * Writes the entry of each line, in the order of the lines, for `ttl` seconds.
 *
 * @throws {RestoreStopped} At the first line that cannot be written; those before it are
 */
export async function restore(exchange: Exchange, ttl: number | undefined): Promise<Response> {
  checkTtl(ttl);
  exchange.hold(MAX_LINE_BYTES + BATCH_BYTES);
  let values = new Map<string, JsonText>();
  let lines = 0;
  let bytes = 0;
  let restored = 0;
  const write = async () => {
    const [writing, count] = [values, lines];
    [values, lines, bytes] = [new Map(), 0, 0];
    if (count > 0) await exchange.store.setAll(writing, { ttl });
    restored += count;
  };
  try {
    try {
      for await (const [number, line] of readLines(exchange)) {
        const [key, value] = readEntry(number, line);
        values.set(key, value);
        lines++;
        bytes += line.length;
        if (lines === BATCH_LINES || bytes >= BATCH_BYTES) await write();
      }
    } finally {
      // The good lines before a bad one, too.
      await write();
    }
  } catch (error) {
    const isLine = error instanceof RestoreStopped;
    throw new RestoreStopped(
      isLine ? error.cause : error,
      isLine ? error.line : undefined,
      restored,
    );
  }
  return jsonResponse(exchange, { restored });
}

/**
 * The lines of a body that are not blank, with their numbers. A line is valid until the next one is
 * asked for.
 *
 * @throws {RestoreStopped} If a line is too long
 */
async function* readLines(exchange: Exchange): AsyncGenerator<[number, Buffer<ArrayBuffer>]> {
  let number = 1;
  let line: Buffer<ArrayBuffer> = Buffer.alloc(4096);
  let length = 0;
  // Copied, since a chunk is a view of a buffer of 64 KiB, however short it is.
  const append = (part: Uint8Array) => {
    const needed = length + part.length;
    if (needed > MAX_LINE_BYTES) {
      throw new RestoreStopped(tooLarge(`It is over ${MAX_LINE_BYTES} bytes`), number);
    }
    if (needed > line.length) {
      const longer = Buffer.alloc(Math.min(Math.max(needed, 2 * line.length), MAX_LINE_BYTES));
      line.copy(longer, 0, 0, length);
      line = longer;
    }
    line.set(part, length);
    length = needed;
  };
  const isBlank = () => {
    for (let i = 0; i < length; i++) if (!isWhiteSpace(line[i])) return false;
    return true;
  };
  for await (const chunk of readChunks(exchange, () => BODY_TIMEOUT)) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      append(chunk.subarray(start, end));
      if (!isBlank()) yield [number, line.subarray(0, length)];
      length = 0;
      start = end + 1;
      number++;
    }
    append(chunk.subarray(start));
  }
  if (!isBlank()) yield [number, line.subarray(0, length)];
}

/** Whether a byte is white space within a line: a space, a tab or a carriage return. */
function isWhiteSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d;
}

/** @throws {RestoreStopped} If the line is not an entry */
function readEntry(number: number, line: Buffer<ArrayBuffer>): [string, JsonText] {
  const wanted = 'expected one entry, {"key": value}';
  try {
    const entries: [string, JsonText][] = [];
    parseJson(line, (reader) => {
      expectObject(reader, wanted);
      reader.object((key) => {
        if (entries.length > 0) throw badRequest(`Cannot set: ${wanted}`);
        checkKey(key);
        entries.push([key, reader.value()]);
      });
    });
    if (entries[0] === undefined) throw badRequest(`Cannot set: ${wanted}`);
    return entries[0];
  } catch (cause) {
    throw new RestoreStopped(cause, number);
  }
}
