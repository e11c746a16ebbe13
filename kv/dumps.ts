/**
 * A store as newline-delimited JSON, an entry a line: a dump, and what restores it. Either side
 * holds a few entries at a time, however many there are.
 *
 * @module
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { Buffer } from "node:buffer";
import { entries, line } from "../stores/entries.ts";
import { checkKey, checkTtl } from "../stores/checks.ts";
import { json, type JsonText } from "../stores/json_text.ts";
import { MAX_VALUE_BYTES, type Store } from "../stores/store.ts";
import { answer } from "./responses.ts";
import { BadLine, RestoreStopped } from "./errors.ts";
import { chunksInTime, members, parseBody } from "./requests.ts";

/** The media type. */
export const NDJSON = "application/x-ndjson";
/** The longest line that is read, in bytes: a key and a value, and room for escapes. */
export const MAX_LINE_BYTES = 2 * MAX_VALUE_BYTES;
/** How many lines, and about how many bytes, are written at once. */
const BATCH_LINES = 1000;
const BATCH_BYTES = 2 * 1024 * 1024;
/** What JSON takes for white space within a line: space, tab, carriage return. */
const BLANKS = [0x20, 0x09, 0x0d];
/** How many entries a dump fetches at once: as many are held for each client that reads slowly. */
const FETCHED_AT_ONCE = 16;
/** About how many characters are sent at once. */
const CHUNK_LENGTH = 64 * 1024;

/** Every entry under a prefix, read as the client reads. */
export async function dump(c: Context, store: Store, prefix: string): Promise<Response> {
  async function* text() {
    let chunk = "";
    for await (const entry of entries(store, prefix, FETCHED_AT_ONCE)) {
      chunk += `${line(entry)}\n`;
      if (chunk.length < CHUNK_LENGTH) continue;
      yield chunk;
      chunk = "";
    }
    yield chunk;
  }
  const headers = { "Content-Type": NDJSON };
  if (c.req.method === "HEAD") return c.body(null, 200, headers);
  const chunks = text();
  // An error of the store can still be told by the status here, and later only by cutting off.
  const first = await chunks.next();
  async function* all() {
    yield first.value ?? "";
    yield* chunks;
  }
  const stream = ReadableStream.from(all()).pipeThrough(new TextEncoderStream());
  return c.body(stream, 200, headers);
}

/**
 * Writes the entry of each line, in the order of the lines, and lets them live `ttl` seconds.
 *
 * @throws {RestoreStopped} At the first line that cannot be written; those before it are
 */
export async function restore(c: Context, store: Store, ttl: number | undefined) {
  checkTtl(ttl);
  let values = new Map<string, JsonText>();
  let lines = 0;
  let bytes = 0;
  let restored = 0;
  const write = async () => {
    const [writing, count] = [values, lines];
    [values, lines, bytes] = [new Map(), 0, 0];
    if (count > 0) await store.setAll(writing, { ttl });
    restored += count;
  };
  try {
    try {
      for await (const [number, text] of readLines(c.req.raw.body)) {
        const [key, value] = readEntry(number, text);
        values.set(key, value);
        lines++;
        bytes += text.length;
        if (lines === BATCH_LINES || bytes >= BATCH_BYTES) await write();
      }
    } finally {
      // Before a bad line, too.
      await write();
    }
  } catch (cause) {
    throw new RestoreStopped(cause, restored);
  }
  return answer(c, 200, JSON.stringify({ restored }));
}

/**
 * The lines of a body that are not blank, with their numbers.
 *
 * @throws {BadLine} If a line is too long
 */
async function* readLines(
  body: ReadableStream<Uint8Array> | null,
): AsyncGenerator<[number, Uint8Array]> {
  let number = 1;
  let parts: Uint8Array[] = [];
  let length = 0;
  const add = (part: Uint8Array) => {
    parts.push(part);
    length += part.length;
    if (length <= MAX_LINE_BYTES) return;
    const message = `It is over ${MAX_LINE_BYTES} bytes`;
    throw new BadLine(new HTTPException(413, { message }), number);
  };
  const isBlank = () => parts.every((part) => part.every((byte) => BLANKS.includes(byte)));
  for await (const chunk of chunksInTime(body)) {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, start)) {
      add(chunk.subarray(start, end));
      if (!isBlank()) yield [number, Buffer.concat(parts)];
      [parts, length] = [[], 0];
      start = end + 1;
      number++;
    }
    add(chunk.subarray(start));
  }
  if (!isBlank()) yield [number, Buffer.concat(parts)];
}

/** @throws {BadLine} If the line is no entry */
function readEntry(number: number, line: Uint8Array): [string, JsonText] {
  try {
    const [entry, ...others] = members(parseBody(line));
    if (entry === undefined || others.length > 0) {
      throw new HTTPException(400, { message: 'Cannot set: expected one entry, {"key": value}' });
    }
    const [key, value] = entry;
    checkKey(key);
    return [key, json(value)];
  } catch (cause) {
    throw new BadLine(cause, number);
  }
}
