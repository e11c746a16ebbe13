/**
 * What a request to the service says: its key, its query, its body.
 *
 * @module
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { Buffer } from "node:buffer";
import { z } from "zod";
import { isRawNumber, parseJson } from "../stores/json_text.ts";
import { MAX_BODY_BYTES } from "../stores/wire.ts";

/** The most keys that one object may set: more of them would hold up other requests. */
export const MAX_MEMBERS = 10_000;
/** How long a body is waited for, in milliseconds; each part of it, where it is read line by line. */
export const BODY_TIMEOUT = 60_000;

const wholeNumber = z.string().regex(/^-?\d+$/, "expected a whole number").transform(Number);
export const ListQuery = z.strictObject({
  prefix: z.string().default(""),
  limit: wholeNumber.optional(),
  after: z.string().optional(),
});
export const PrefixQuery = z.strictObject({ prefix: z.string().default("") });
export const WriteQuery = z.strictObject({ ttl: wholeNumber.optional() });
const noValue = z.literal("", "expected no value");
export const HealthQuery = z.strictObject({ health: noValue });
export const MetricsQuery = z.strictObject({ metrics: noValue });
export const OpenApiQuery = z.strictObject({ openapi: noValue });
export const NoQuery = z.strictObject({});

/** The key in a URL's path, as it was sent: a parsed URL would have resolved its dots. */
export function pathKey(c: Context): string {
  const path = /^[^/]*\/\/[^/]*\/([^?#]*)/.exec(c.req.url)?.[1] ?? "";
  return unescaped(path, "the key");
}

export function query<T extends z.ZodType>(c: Context, schema: T): z.infer<T> {
  // Hono would take bad escapes for the text that they are.
  unescaped(/\?(.*)/.exec(c.req.url)?.[1] ?? "", "the query");
  const values = Object.entries(c.req.queries()).map(([name, [value, ...more]]) => {
    if (more.length === 0) return [name, value];
    throw new HTTPException(400, { message: `Cannot read the query: ${name} stands twice` });
  });
  return check(schema, Object.fromEntries(values), "the query");
}

function unescaped(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new HTTPException(400, { message: `Cannot read ${what} "${text}": bad escapes`, cause });
  }
}

export function check<T extends z.ZodType>(schema: T, value: unknown, what: string): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new HTTPException(400, { message: `Cannot read ${what}: ${explain(result.error)}` });
}

function explain(error: z.ZodError): string {
  return error.issues.map(({ path, message }) => [...path, message].join(": ")).join("; ");
}

/** The body of a `POST`: JSON, or a form, whose values are texts. */
export async function readBody(c: Context): Promise<unknown> {
  const type = c.req.header("Content-Type") ?? "";
  if (!/^(application\/x-www-form-urlencoded|multipart\/form-data)\b/i.test(type)) {
    return await readJson(c);
  }
  let form: FormData;
  try {
    const bytes = await readBytes(c);
    form = await new Response(bytes, { headers: { "Content-Type": type } }).formData();
  } catch (cause) {
    if (cause instanceof HTTPException) throw cause;
    throw new HTTPException(400, { message: "Cannot read the form", cause });
  }
  const values = new Map<string, string>();
  for (const [key, value] of form) {
    if (typeof value !== "string" || values.has(key)) {
      const wanted = values.has(key) ? "expected each key once" : "expected a text, not a file";
      throw new HTTPException(400, { message: `Cannot set "${key}" from the form: ${wanted}` });
    }
    values.set(key, value);
  }
  return values;
}

export async function readJson(c: Context): Promise<unknown> {
  const type = c.req.header("Content-Type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\b/i.test(type)) {
    throw new HTTPException(415, {
      message: `Cannot read a body of type "${type}": expected application/json`,
    });
  }
  return parseBody(await readBytes(c));
}

async function readBytes(c: Context): Promise<Uint8Array<ArrayBuffer>> {
  const length = c.req.header("Content-Length");
  if (length !== undefined && c.req.header("Transfer-Encoding") === undefined) {
    if (Number(length) > MAX_BODY_BYTES) throw tooLarge();
    return new Uint8Array(await inTime(c.req.arrayBuffer()));
  }
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const end = performance.now() + BODY_TIMEOUT;
  const left = () => Math.max(0, end - performance.now());
  for await (const chunk of chunksInTime(c.req.raw.body, left)) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(): HTTPException {
  return new HTTPException(413, { message: `The body is over ${MAX_BODY_BYTES} bytes` });
}

/**
 * What is read of a body, if the client sends it in time.
 *
 * @throws {HTTPException} 408, when the milliseconds that are `left` are over
 */
async function inTime<T>(reading: Promise<T>, left = BODY_TIMEOUT): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const message = `The body did not come within ${BODY_TIMEOUT / 1000} seconds`;
    timer = setTimeout(() => reject(new HTTPException(408, { message })), left);
  });
  try {
    return await Promise.race([reading, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A body as it comes: each chunk is waited for anew, unless `left` counts for all of them. */
export async function* chunksInTime(
  body: ReadableStream<Uint8Array> | null,
  left = () => BODY_TIMEOUT,
): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await inTime(reader.read(), left());
      if (done) break;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // neither the rest nor its error is of use
  }
}

/** The value of JSON in UTF-8. */
export function parseBody(bytes: Uint8Array): unknown {
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    // TypeError: no UTF-8. RangeError: nested too deeply.
    const bad = cause instanceof SyntaxError || cause instanceof TypeError ||
      cause instanceof RangeError;
    if (!bad) throw cause;
    throw new HTTPException(400, { message: `Cannot read the JSON: ${cause.message}`, cause });
  }
}

/** The members of an object, or the fields of a form: {@linkcode MAX_MEMBERS} at most. */
export function members(body: unknown): [string, unknown][] {
  const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
  if (!isObject || isRawNumber(body)) {
    throw new HTTPException(400, { message: "Cannot set: expected a JSON object or array" });
  }
  const all = body instanceof Map ? [...body] : Object.entries(body);
  if (all.length > MAX_MEMBERS) {
    const message = `Cannot set ${all.length} keys at once: expected ${MAX_MEMBERS} at most`;
    throw new HTTPException(413, { message });
  }
  return all;
}
