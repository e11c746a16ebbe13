/** Forms: URL-encoded or multipart, in UTF-8. */
import { HTTPException } from "hono/http-exception";
import { type Buffer, isUtf8 } from "node:buffer";
import { json } from "../stores/json/text.ts";
import { hexDigit } from "../stores/json/reader.ts";
import { type JsonText, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueTooLarge } from "../stores/store.ts";
import type { KvContext } from "./answers.ts";
import { expectUtf8, MAX_MEMBERS, readBytes, tooManyMembers } from "./bodies.ts";
import { badRequest, tooLarge } from "./errors.ts";
import { pause } from "./pace.ts";

const SPACE = 0x20, PERCENT = 0x25, AMPERSAND = 0x26, PLUS = 0x2b, EQUALS = 0x3d;
/** The most fields of a multipart form, and its most bytes. */
const MAX_PARTS = 1000;
const MAX_MULTIPART_BYTES = 4 * 1024 * 1024;
/** How many bytes of white space around JSON are skipped to recognize it. */
const MAX_BLANKS = 1024;
/** The longest headers of a part, with its delimiter, in bytes: twice the longest key. */
const MAX_PART_HEADER = 2048;
const BYTE_ORDER_MARK = "\xef\xbb\xbf";

export function isForm(type: string): boolean {
  return /^(application\/x-www-form-urlencoded|multipart\/form-data)\s*(;|$)/i.test(type);
}

export async function readForm(c: KvContext, type: string): Promise<Map<string, JsonText>> {
  const bytes = await readBytes(c);
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

/** @throws {HTTPException} 413 if there are too many fields, 415 if the form is JSON */
function* fieldsOf(bytes: Buffer<ArrayBuffer>): Generator<[string, string]> {
  // `curl -d '{"foo": "bar"}'` sends JSON with the type of a form.
  const first = bytes.toString("utf8", 0, MAX_BLANKS).trimStart().at(0);
  const last = bytes.subarray(-MAX_BLANKS).toString().trimEnd().at(-1);
  if (first === "{" && last === "}" || first === "[" && last === "]") {
    const isLines = bytes.includes("}\n{") || bytes.includes("}\r\n{");
    const type = isLines ? "application/x-ndjson" : "application/json";
    throw new HTTPException(415, {
      message: `Cannot read JSON as a form: add the header "Content-Type: ${type}"`,
    });
  }
  const ends = occurrences(bytes, AMPERSAND, MAX_MEMBERS);
  if (ends.length === MAX_MEMBERS) throw tooManyMembers();
  let start = bytes.toString("latin1", 0, 3) === BYTE_ORDER_MARK ? 3 : 0;
  for (const end of [...ends, bytes.length]) {
    // An escaped byte takes three.
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
 * Decodes a name or a value in place (WHATWG URL, section 5.1). URLSearchParams would replace bytes
 * that are not UTF-8.
 */
function decoded(bytes: Buffer): string {
  let end = 0;
  for (let at = 0; at < bytes.length; at++) {
    let byte = bytes[at] as number;
    if (byte === PLUS) byte = SPACE;
    // A percent sign without two hexadecimal digits is literal.
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
 * Returns the fields of a multipart form. It is checked first: the runtime's parser takes 50 µs for
 * each field, 20 ms for a MiB of values, and 100 ms for one of headers.
 */
async function partsOf(
  type: string,
  bytes: Buffer<ArrayBuffer>,
): Promise<[string, FormDataEntryValue][]> {
  const [, quoted, plain] = /;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type) ?? [];
  const boundary = quoted ?? plain;
  if (boundary === undefined) throw badRequest("Cannot read the form: expected a boundary");
  if (bytes.length > MAX_MULTIPART_BYTES) {
    throw tooLarge(`A multipart form is at most ${MAX_MULTIPART_BYTES} bytes`);
  }
  const count = countParts(bytes, `--${boundary}`);
  await pause();
  if (!isUtf8(bytes)) throw notUtf8();
  const headers = { "Content-Type": `multipart/form-data; boundary="${boundary}"` };
  const form = await new Response(bytes, { headers }).formData().catch((cause) => {
    throw badRequest("Cannot read the form", cause);
  });
  const fields = [...form];
  // The parser leaves out what it cannot read, and leaves quotes in a name that it has cut off.
  if (fields.length !== count) {
    throw badRequest("Cannot read the form: expected a name in each part");
  }
  if (fields.some(([name]) => name.includes('"'))) {
    throw badRequest("Cannot read the form: expected no ; and no = in a name");
  }
  // HTML, section 4.10.22.8: names have these three escaped, and no others.
  return fields.map(([name, value]) => [name.replace(/%22|%0D|%0A/g, decodeURIComponent), value]);
}

/** @throws {HTTPException} 400 if there is no closing delimiter, 413 if a limit is exceeded */
function countParts(bytes: Buffer, delimiter: string): number {
  const parts = occurrences(bytes, delimiter, MAX_PARTS + 2);
  if (parts.length === MAX_PARTS + 2) {
    throw tooLarge(`A multipart form has at most ${MAX_PARTS} fields`);
  }
  let count = 0;
  let isClosed = false;
  for (const at of parts) {
    const head = bytes.toString("latin1", at, at + MAX_PART_HEADER);
    // A line of its own, RFC 2046, section 5.1.1.
    const isLine = at === 0 || bytes.toString("latin1", at - 2, at) === "\r\n";
    const end = /^(--)?[ \t]*(?:\r\n|$)/.exec(head.slice(delimiter.length));
    if (isClosed || !isLine || end === null) continue;
    isClosed = end[1] !== undefined;
    if (isClosed) continue;
    const [headers = "", value] = head.split("\r\n\r\n", 2);
    expectUtf8(headers);
    // The parser would leave it out.
    if (value?.startsWith(BYTE_ORDER_MARK) || /name="?\xef\xbb\xbf/i.test(headers)) {
      throw badRequest("Cannot read the form: expected no byte order mark in a part");
    }
    if (value === undefined && head.length === MAX_PART_HEADER) {
      throw tooLarge(`A part of a form has at most ${MAX_PART_HEADER} bytes of headers`);
    }
    count++;
  }
  if (!isClosed) throw badRequest(`Cannot read the form: expected ${delimiter}-- at its end`);
  return count;
}

/** Returns the first positions of a text or a byte, `limit` at most. */
function occurrences(bytes: Buffer, wanted: string | number, limit: number): number[] {
  const found: number[] = [];
  for (let at = bytes.indexOf(wanted); at !== -1; at = bytes.indexOf(wanted, at + 1)) {
    if (found.push(at) === limit) break;
  }
  return found;
}
