/**
 * The body of a request: bytes, JSON and forms. Limits are checked on the bytes, before anything is
 * parsed.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { Buffer, isUtf8 } from "node:buffer";
import { json, type JsonText } from "../stores/json/text.ts";
import { JsonReader } from "../stores/json/reader.ts";
import { hexDigit } from "../stores/json/tokens.ts";
import { MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueTooLarge } from "../stores/store.ts";
import { MAX_BODY_BYTES } from "../stores/wire.ts";
import { badRequest, tooLarge } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { SMALL_BYTES, UNCOUNTED_BYTES } from "./memory.ts";
import { pause } from "./pace.ts";

/** The most keys that one object or form may set. */
export const MAX_MEMBERS = 10_000;
const SPACE = 0x20, PERCENT = 0x25, AMPERSAND = 0x26, PLUS = 0x2b, EQUALS = 0x3d;
/** The most fields of a multipart form, and its most bytes. */
const MAX_PARTS = 1000;
const MAX_MULTIPART_BYTES = 4 * 1024 * 1024;
/** How much of a part is looked at for its headers, in bytes. */
const MAX_PART_HEADER = 4096;
/** How long a body may take, in milliseconds; if it is read line by line, how long each chunk may. */
export const BODY_TIMEOUT = 60_000;

// ---- JSON ----------------------------------------------------------------------------------

/** The value of a `PUT`. */
export async function readValue(exchange: Exchange): Promise<JsonText> {
  expectJson(exchange);
  return parseJson(await readBytes(exchange), (reader) => reader.value());
}

/** Reads the members of an object. */
export function readMembers(reader: JsonReader): Map<string, JsonText> {
  expectObject(reader, "expected a JSON object or array");
  const values = new Map<string, JsonText>();
  let count = 0;
  reader.object((name) => {
    if (++count > MAX_MEMBERS) throw tooManyMembers();
    values.set(name, reader.value());
  });
  return values;
}

/** @throws {HTTPException} 400 if the text is of another value, or of none */
function expectObject(reader: JsonReader, wanted: string): void {
  if (reader.peek() === "{") return;
  reader.value();
  reader.end();
  throw badRequest(`Cannot set: ${wanted}`);
}

/** Reads all of a JSON text. */
export function parseJson<T>(bytes: Uint8Array<ArrayBuffer>, read: (reader: JsonReader) => T): T {
  try {
    const reader = new JsonReader(bytes);
    const result = read(reader);
    reader.end();
    return result;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw badRequest(`Cannot read the JSON: ${cause.message}`, cause);
  }
}

/** @throws {HTTPException} 415 if the body is not JSON */
export function expectJson({ headers }: Exchange): void {
  const type = headers.get("Content-Type") ?? "";
  if (type === "application/json") return;
  if (/^application\/([\w.-]+\+)?json\b/i.test(type)) return expectUtf8(type);
  const message = `Cannot read a body of type ${JSON.stringify(type)}: expected application/json` +
    ' (add the header "Content-Type: application/json")';
  throw new HTTPException(415, { message });
}

/**
 * @param type A `Content-Type`, or all headers of a part
 * @throws {HTTPException} 415 if it names another charset
 */
export function expectUtf8(type: string): void {
  const charset = /;\s*charset="?([^\s;"]*)/i.exec(type)?.[1] ?? "utf-8";
  if (/^(utf-?8|us-ascii)$/i.test(charset)) return;
  const message = `Cannot read a body of charset ${JSON.stringify(charset)}: expected UTF-8`;
  throw new HTTPException(415, { message });
}

// ---- Forms ---------------------------------------------------------------------------------

/** Whether the body is a form. */
export function isForm({ headers }: Exchange): boolean {
  const type = headers.get("Content-Type") ?? "";
  return /^(application\/x-www-form-urlencoded|multipart\/form-data)\b/i.test(type);
}

/** Returns the fields of a form as JSON strings. */
export async function readForm(exchange: Exchange): Promise<Map<string, JsonText>> {
  const bytes = await readBytes(exchange);
  const type = exchange.headers.get("Content-Type") ?? "";
  const fields = /^multipart/i.test(type) ? await partsOf(type, bytes) : fieldsOf(bytes);
  const values = new Map<string, JsonText>();
  for (const [key, value] of fields) {
    const problem = values.has(key)
      ? "expected each key once"
      : typeof value !== "string" && "expected a text, not a file";
    if (problem) throw badRequest(`Cannot set "${key}" from the form: ${problem}`);
    values.set(key, json(value));
    await pause();
  }
  return values;
}

/**
 * The fields of a URL-encoded form.
 *
 * @throws {HTTPException} 413 if there are too many, 415 if it is JSON
 */
function* fieldsOf(bytes: Buffer<ArrayBuffer>): Generator<[string, string]> {
  // `curl -d '{"foo": "bar"}'` says that it sends a form.
  const ends = bytes.subarray(0, 1).toString() + bytes.subarray(-1).toString();
  if (ends === "{}" || ends === "[]") {
    throw new HTTPException(415, {
      message: 'Cannot read JSON as a form: add the header "Content-Type: application/json"',
    });
  }
  if (occurrences(bytes, AMPERSAND, MAX_MEMBERS).length === MAX_MEMBERS) throw tooManyMembers();
  const hasByteOrderMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  for (let start = hasByteOrderMark ? 3 : 0; start < bytes.length;) {
    const found = bytes.indexOf(AMPERSAND, start);
    const end = found === -1 ? bytes.length : found;
    // Three bytes for each, if all are escaped.
    if (end - start > 3 * (MAX_KEY_BYTES + MAX_VALUE_BYTES)) throw new ValueTooLarge();
    const field = bytes.subarray(start, end);
    const equals = field.includes(EQUALS) ? field.indexOf(EQUALS) : field.length;
    if (field.length > 0) {
      yield [decoded(field.subarray(0, equals)), decoded(field.subarray(equals + 1))];
    }
    start = end + 1;
  }
}

/**
 * Decodes a name or a value in place (WHATWG URL, section 5.1). URLSearchParams would replace what is
 * not UTF-8.
 *
 * @throws {HTTPException} 400 if it is not UTF-8
 */
function decoded(bytes: Buffer): string {
  let end = 0;
  for (let at = 0; at < bytes.length; at++) {
    let byte = bytes[at] as number;
    if (byte === PLUS) byte = SPACE;
    // A percent sign that begins no escape stands for itself.
    const code = byte === PERCENT ? hexDigit(bytes[at + 1]) << 4 | hexDigit(bytes[at + 2]) : -1;
    if (code >= 0) {
      byte = code;
      at += 2;
    }
    bytes[end++] = byte;
  }
  const result = bytes.subarray(0, end);
  if (!isUtf8(result)) throw notUtf8();
  return result.toString();
}

function notUtf8(): HTTPException {
  return badRequest("Cannot read the form: expected UTF-8");
}

/**
 * The fields of a multipart form. The runtime's parser takes 50 µs for each, and 20 ms for a MiB.
 *
 * @throws {HTTPException} 400 if it is malformed, 413 if it is too large
 */
async function partsOf(type: string, bytes: Buffer<ArrayBuffer>): Promise<FormData> {
  const [, quoted, plain] = /;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type) ?? [];
  const boundary = quoted ?? plain;
  if (boundary === undefined) throw badRequest("Cannot read the form: expected a boundary");
  if (bytes.length > MAX_MULTIPART_BYTES) {
    throw tooLarge(`A multipart form is at most ${MAX_MULTIPART_BYTES} bytes`);
  }
  const parts = occurrences(bytes, `--${boundary}`, MAX_PARTS + 2);
  if (parts.length === MAX_PARTS + 2) {
    throw tooLarge(`A multipart form has at most ${MAX_PARTS} fields`);
  }
  for (const at of parts) {
    const head = bytes.toString("latin1", at, at + MAX_PART_HEADER);
    expectUtf8(head.slice(0, head.indexOf("\r\n\r\n")));
  }
  if (!isUtf8(bytes)) throw notUtf8();
  const headers = { "Content-Type": `multipart/form-data; boundary="${boundary}"` };
  try {
    return await new Response(bytes, { headers }).formData();
  } catch (cause) {
    throw badRequest("Cannot read the form", cause);
  }
}

/** Where a text or a byte is in the bytes, the first `limit` times. */
function occurrences(bytes: Buffer, wanted: string | number, limit: number): number[] {
  const found: number[] = [];
  for (let at = bytes.indexOf(wanted); at !== -1; at = bytes.indexOf(wanted, at + 1)) {
    if (found.push(at) === limit) break;
  }
  return found;
}

function tooManyMembers(): HTTPException {
  return tooLarge(`Cannot set more than ${MAX_MEMBERS} keys at once`);
}

// ---- Bytes ---------------------------------------------------------------------------------

/**
 * Returns all of the body.
 *
 * @throws {HTTPException} 413 if it is too large, 503 if there is no memory for it; see also
 * {@linkcode readChunks}
 */
export async function readBytes(exchange: Exchange): Promise<Buffer<ArrayBuffer>> {
  const length = lengthOf(exchange);
  if (length !== undefined && length <= SMALL_BYTES) {
    // One connection of HTTP/2 carries hundreds of requests.
    if (length > UNCOUNTED_BYTES) exchange.hold(length);
    // Several times cheaper than a reader.
    const body = await inTime(exchange.request.bytes(), BODY_TIMEOUT);
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
    if (bytes.length !== length) throw endedEarly();
    return bytes;
  }
  if (length !== undefined && length > MAX_BODY_BYTES) throw bodyTooLarge();
  let buffer: Buffer<ArrayBuffer> = Buffer.alloc(SMALL_BYTES);
  let used = 0;
  const end = performance.now() + BODY_TIMEOUT;
  for await (const chunk of readChunks(exchange, () => Math.max(0, end - performance.now()))) {
    const needed = used + chunk.length;
    if (needed > MAX_BODY_BYTES) throw bodyTooLarge();
    if (needed > buffer.length) {
      const larger = Buffer.alloc(Math.min(Math.max(needed, 2 * buffer.length), MAX_BODY_BYTES));
      exchange.hold(larger.length - buffer.length);
      buffer.copy(larger, 0, 0, used);
      buffer = larger;
    }
    // Copied, since a chunk is a view of a buffer of 64 KiB, however short it is.
    buffer.set(chunk, used);
    used = needed;
  }
  return buffer.subarray(0, used);
}

/** @throws {HTTPException} 415 if there is a body. Deno gives requests without one an empty one */
export async function expectNoBody(exchange: Exchange): Promise<void> {
  for await (const chunk of readChunks(exchange, () => BODY_TIMEOUT)) {
    if (chunk.length === 0) continue;
    const message = "Cannot read a body here: expected ?ttl and no body";
    throw new HTTPException(415, { message });
  }
}

/** Returns the length of the body, if its sender tells. */
function lengthOf({ headers }: Exchange): number | undefined {
  const length = headers.get("Content-Length");
  if (headers.has("Transfer-Encoding")) return undefined;
  return length !== null && /^\d{1,15}$/.test(length) ? Number(length) : undefined;
}

/**
 * Gives the body chunk by chunk.
 *
 * @param timeLeft How long the next chunk may take, in milliseconds
 * @throws {HTTPException} 400 if the body ended early, 408 if it is late, 411 if it cannot be known
 * whether it ended
 */
export async function* readChunks(
  exchange: Exchange,
  timeLeft: () => number,
): AsyncGenerator<Uint8Array> {
  const { body } = exchange.request;
  if (body === null) return;
  const length = lengthOf(exchange);
  const isUntold = length === undefined && !exchange.headers.has("Transfer-Encoding");
  let received = 0;
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await inTime(reader.read(), timeLeft());
      if (done) break;
      received += value.length;
      // An upload over HTTP/2 that is cancelled looks like one that ended.
      if (isUntold && received > 0 && exchange.isServed) {
        const message = "Cannot read the body: expected a Content-Length";
        throw new HTTPException(411, { message });
      }
      yield value;
      await pause();
    }
    if (length !== undefined && received !== length) throw endedEarly();
  } finally {
    reader.cancel().catch(() => {}); // The rest of the body is of no use, nor is its error.
  }
}

/**
 * @throws {HTTPException} 400 if reading fails: the client went away or sent malformed chunks; 408 if
 * it takes longer than `timeout` milliseconds
 */
async function inTime<T>(reading: Promise<T>, timeout: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    // Most bodies are there already, and a timer costs a tenth of such a request.
    const isThere = await Promise.race([reading.then(() => true), endOfTurn()]);
    if (isThere) return await reading;
    const late = new Promise<never>((_, reject) => {
      const message = `The body did not arrive within ${BODY_TIMEOUT / 1000} seconds`;
      timer = setTimeout(() => reject(new HTTPException(408, { message })), timeout);
    });
    return await Promise.race([reading, late]);
  } catch (cause) {
    throw cause instanceof HTTPException ? cause : endedEarly(cause);
  } finally {
    clearTimeout(timer);
  }
}

let turn: Promise<false> | undefined;

/** Resolves when all that the event loop has ready now was done. */
function endOfTurn(): Promise<false> {
  return turn ??= new Promise((resolve) => {
    setImmediate(() => {
      turn = undefined;
      resolve(false);
    });
  });
}

function endedEarly(cause?: unknown): HTTPException {
  return badRequest("The body ended early", cause);
}

function bodyTooLarge(): HTTPException {
  return tooLarge(`The body is over ${MAX_BODY_BYTES} bytes`);
}
