/** The body of a request. Limits are checked on the bytes, before anything is parsed. */
import { HTTPException } from "hono/http-exception";
import { Buffer } from "node:buffer";
import { JsonReader } from "../stores/json/reader.ts";
import type { JsonText } from "../stores/store.ts";
import { within } from "../stores/timers.ts";
import { MAX_BODY_BYTES } from "../stores/wire.ts";
import type { KvContext } from "./answers.ts";
import { badRequest, tooLarge } from "./errors.ts";
import { SMALL_BYTES, UNCOUNTED_BYTES } from "./held.ts";
import { endOfTurn, pause } from "./pace.ts";

/** The most keys that one object or form may set. */
export const MAX_MEMBERS = 10_000;
/** How long a body may take, in milliseconds; if it is read line by line, each chunk. */
export const BODY_TIMEOUT = 60_000;

// ---- JSON ----------------------------------------------------------------------------------

export async function readValue(c: KvContext): Promise<JsonText> {
  expectJson(c);
  const value = parseJson(await readBytes(c), (reader) => reader.value());
  c.get("held").drop();
  return value;
}

/** @throws {HTTPException} 400 if the text is not an object, 413 if it has too many members */
export function readMembers(reader: JsonReader): Map<string, JsonText> {
  if (reader.peek() !== "{") {
    // What is wrong with the text comes first.
    reader.value();
    reader.end();
    throw badRequest("Cannot set: expected a JSON object or array");
  }
  const values = new Map<string, JsonText>();
  let count = 0;
  reader.object((name) => {
    if (++count > MAX_MEMBERS) throw tooManyMembers();
    values.set(name, reader.value());
  });
  return values;
}

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
export function expectJson(c: KvContext): void {
  const type = c.req.header("Content-Type") ?? "";
  if (type === "application/json") return;
  if (/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type)) return expectUtf8(type);
  const message = `Cannot read a body of type ${JSON.stringify(type)}: expected application/json` +
    ' (add the header "Content-Type: application/json")';
  throw new HTTPException(415, { message });
}

/** @throws {HTTPException} 415 if a `Content-Type`, or all headers of a part, names another charset */
export function expectUtf8(type: string): void {
  const charset = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(type)?.[1] ?? "utf-8";
  if (/^(utf-?8|us-ascii)$/i.test(charset)) return;
  const message = `Cannot read a body of charset ${JSON.stringify(charset)}: expected UTF-8`;
  throw new HTTPException(415, { message });
}

// ---- Bytes ---------------------------------------------------------------------------------

/** @throws {HTTPException} 413 if the body is too large; see also {@linkcode readChunks} */
export async function readBytes(c: KvContext): Promise<Buffer<ArrayBuffer>> {
  expectPlain(c);
  const length = lengthOf(c);
  if (length !== undefined && length <= SMALL_BYTES) {
    // One connection of HTTP/2 carries hundreds of requests.
    if (length > UNCOUNTED_BYTES) c.get("held").keep(length);
    // This is several times cheaper than a reader.
    const body = await inTime(c.req.raw.bytes(), BODY_TIMEOUT);
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
    if (bytes.length !== length) throw endedEarly();
    return bytes;
  }
  if (length !== undefined && length > MAX_BODY_BYTES) throw bodyTooLarge();
  let bytes = new Uint8Array();
  let used = 0;
  const end = performance.now() + BODY_TIMEOUT;
  for await (const chunk of readChunks(c, () => Math.max(0, end - performance.now()))) {
    const needed = used + chunk.length;
    if (needed > (length ?? MAX_BODY_BYTES)) throw bodyTooLarge();
    if (needed > bytes.length) {
      const size = Math.min(Math.max(needed, 2 * bytes.length), length ?? MAX_BODY_BYTES);
      c.get("held").keep(size - bytes.length);
      bytes = new Uint8Array(bytes.buffer.transfer(size));
    }
    // Copy the chunk: even a short one is a view of a buffer of 64 KiB.
    bytes.set(chunk, used);
    used = needed;
  }
  return Buffer.from(bytes.buffer, 0, used);
}

/** @throws {HTTPException} 415 if there is a body. Deno gives a request without one an empty body */
export async function expectNoBody(c: KvContext): Promise<void> {
  const message = "Cannot read a body here: expected ?ttl and no body";
  for await (const { length } of readChunks(c)) {
    if (length > 0) throw new HTTPException(415, { message });
  }
}

/** @throws {HTTPException} 415 if the body is compressed, 400 if it is a part of one */
export function expectPlain(c: KvContext): void {
  const encoding = c.req.header("Content-Encoding") ?? "identity";
  if (!/^\s*(identity)?\s*$/i.test(encoding)) {
    throw new HTTPException(415, {
      message: `Cannot read a body of encoding ${JSON.stringify(encoding)}: expected identity`,
      res: new Response(null, { headers: { "Accept-Encoding": "identity" } }),
    });
  }
  // RFC 9110, section 14.5
  if (c.req.header("Content-Range") !== undefined) {
    throw badRequest("Cannot set a part of a value: expected no Content-Range");
  }
}

function lengthOf(c: KvContext): number | undefined {
  const length = c.req.header("Content-Length");
  if (length === undefined || c.req.header("Transfer-Encoding") !== undefined) return undefined;
  return /^\d{1,15}$/.test(length) ? Number(length) : undefined;
}

/**
 * Yields the body chunk by chunk.
 *
 * @param timeLeft How long the next chunk may take, in milliseconds
 * @throws {HTTPException} 400 if the body ended early, 408 if it is late, 411 if its end cannot be
 * detected
 */
export async function* readChunks(
  c: KvContext,
  timeLeft = () => BODY_TIMEOUT,
): AsyncGenerator<Uint8Array> {
  const { body } = c.req.raw;
  if (body === null) return;
  const length = lengthOf(c);
  const isUnknown = length === undefined && c.req.header("Transfer-Encoding") === undefined;
  // What Deno's server adds, or @hono/node-server. An app in this process needs no length.
  const isServed = "completed" in Object(c.env) || "incoming" in Object(c.env);
  let received = 0;
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await inTime(reader.read(), timeLeft());
      if (done) break;
      received += value.length;
      // Over HTTP/2, a cancelled upload looks like a complete one.
      if (isUnknown && received > 0 && isServed) {
        const message = "Cannot read the body: expected a Content-Length";
        throw new HTTPException(411, { message });
      }
      yield value;
      await pause();
    }
    if (length !== undefined && received !== length) throw endedEarly();
  } finally {
    reader.cancel().catch(() => {}); // Neither the rest of the body nor its error matters.
  }
}

export function tooManyMembers(): HTTPException {
  return tooLarge(`Cannot set more than ${MAX_MEMBERS} keys at once`);
}

/** @throws {HTTPException} 400 if the client went away or sent malformed chunks, 408 if it is late */
async function inTime<T>(reading: Promise<T>, timeout: number): Promise<T> {
  try {
    // Most bodies are there already, and a timer costs a tenth of such a request.
    const isThere = await Promise.race([reading.then(() => true), endOfTurn()]);
    const read = isThere ? await reading : await within(timeout, reading, () => undefined);
    if (read !== undefined) return read;
  } catch (cause) {
    throw endedEarly(cause);
  }
  const message = `The body did not arrive within ${BODY_TIMEOUT / 1000} seconds`;
  throw new HTTPException(408, { message });
}

function endedEarly(cause?: unknown): HTTPException {
  return badRequest("The body ended early", cause);
}

function bodyTooLarge(): HTTPException {
  return tooLarge(`The body is over ${MAX_BODY_BYTES} bytes`);
}
