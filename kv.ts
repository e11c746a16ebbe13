/**
 * A key-value store served over HTTP.
 *
 * ```sh
 * deno task kv                          # serves DBM of counter.cfg.json on port 5100
 * http localhost:5100 foo=bar           # sets
 * http localhost:5100/foo               # gets
 * http 'localhost:5100?prefix=f'        # lists the keys
 * http DELETE localhost:5100/foo        # removes
 * ```
 *
 * | Request | Answer |
 * |---|---|
 * | `POST /` an object or a form, `?ttl=60` | all keys set, or none; the object |
 * | `POST /` an array of operations | an answer for each, in its place |
 * | `GET /key` | `{key: value}`, with `ETag` and `Expires`; `{key: null}` where there is none |
 * | `PUT /key` a JSON value, `?ttl=60` | 201 or 200, `{key: value}`, with `ETag` |
 * | `DELETE /key` | `{key: value}`, as it was |
 * | `GET /?prefix=p&limit=10&after=…` | `{keys: […], next: …}` |
 * | `GET /?prefix=p`, `Accept: text/event-stream` | changes as they happen; `Last-Event-ID` resumes |
 *
 * Reads and writes are conditional by `If-Match` and `If-None-Match` (RFC 9110, section 13). Errors
 * are `application/problem+json` (RFC 9457).
 *
 * @module
 */
import { type Context, Hono } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import { bodyLimit } from "hono/body-limit";
import { HTTPException } from "hono/http-exception";
import { streamSSE } from "hono/streaming";
import { z } from "zod";
import { ConfigError, readConfig } from "./config.ts";
import { isLoopback, knownHostOnly, listen, run, sameOriginOnly } from "./door.ts";
import {
  ChangesLost,
  type Entry,
  InvalidArgument,
  isRawNumber,
  json,
  type JsonText,
  MAX_PAGE,
  openStore,
  parseJson,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
  ValueTooLarge,
  type Watch,
} from "./stores/store.ts";

/** The most operations in one array. */
export const MAX_OPERATIONS = 1000;
/** The longest body, in bytes. */
export const MAX_BODY_BYTES = 16 * 1024 * 1024;
/** The most streams of changes at one time. */
export const MAX_WATCHERS = 1000;
/** How often a stream of changes says that it is alive, in milliseconds. */
export const HEARTBEAT = 15_000;
/** What a client that got a 503 should wait, in seconds. */
const RETRY_AFTER = "1";

/** What {@linkcode kv} takes. */
export interface KvOptions {
  /** Bearer tokens, any of which lets a request in; none: everybody who reaches the service. */
  tokens?: string[];
  /** A name beside the loopback ones under which requests come while no token is asked. */
  host?: string;
  /** Ends the streams of changes, which would keep a server from stopping. */
  stopping?: AbortSignal;
}

const Operation = z.discriminatedUnion("op", [
  z.strictObject({ op: z.literal("get"), key: z.string() }),
  z.strictObject({
    op: z.literal("put"),
    key: z.string(),
    value: z.unknown().refine((value) => value !== undefined, "expected a JSON value"),
    ttl: z.number().optional(),
    ifRevision: z.string().nullable().optional(),
  }),
  z.strictObject({
    op: z.literal("delete"),
    key: z.string(),
    ifRevision: z.string().nullable().optional(),
  }),
]);

const seconds = z.coerce.number();
const ListQuery = z.strictObject({
  prefix: z.string().default(""),
  limit: z.coerce.number().optional(),
  after: z.string().optional(),
});
const WatchQuery = z.strictObject({ prefix: z.string().default("") });
const WriteQuery = z.strictObject({ ttl: seconds.optional() });
const NoQuery = z.strictObject({});

/**
 * The HTTP face of a store.
 *
 * @param store Whose entries are served; it stays the caller's to close
 *
 * @example
 * ```ts
 * import { kv } from "./kv.ts";
 * import { openStore } from "./stores/store.ts";
 *
 * const store = await openStore(":memory:");
 * const app = kv(store);
 * await app.request("/foo", {
 *   method: "PUT",
 *   body: '"bar"',
 *   headers: { "Content-Type": "application/json" },
 * });
 * console.log(await (await app.request("/foo")).json()); // { foo: "bar" }
 * await store.close();
 * ```
 */
export function kv(store: Store, options: KvOptions = {}): Hono {
  const { tokens = [], host = "localhost", stopping = new AbortController().signal } = options;
  const app = new Hono();
  let watchers = 0;

  app.use(sameOriginOnly({ safeMethods: false }));
  app.use(tokens.length > 0 ? bearerAuth({ token: tokens }) : knownHostOnly(host));
  app.use(bodyLimit({ maxSize: MAX_BODY_BYTES, onError: tooLarge }));

  app.get("/", async (c, next) => {
    if (!/^text\/event-stream\b/.test(c.req.header("Accept") ?? "")) return await next();
    const { prefix } = query(c, WatchQuery);
    if (watchers === MAX_WATCHERS) {
      throw new HTTPException(503, { message: `Cannot watch: ${MAX_WATCHERS} others do` });
    }
    const watch = await store.watch(prefix, { since: c.req.header("Last-Event-ID") });
    watchers++;
    return events(c, watch, stopping, () => watchers--);
  });

  app.get("/", async (c) => {
    const { prefix, limit, after } = query(c, ListQuery);
    const page = await store.list(prefix, { limit, after });
    if (limit === undefined && after === undefined) return allKeys(c, store, prefix, page);
    if (page.next !== null) {
      const next = new URLSearchParams({
        prefix,
        limit: String(limit ?? MAX_PAGE),
        after: page.next,
      });
      c.header("Link", `</?${next}>; rel="next"`);
    }
    return c.json(page);
  });

  app.post("/", async (c) => {
    const { ttl } = query(c, WriteQuery);
    const body = await readBody(c);
    if (Array.isArray(body)) {
      query(c, NoQuery);
      return answer(c, 200, await performAll(store, body));
    }
    const values = new Map(members(body).map(([key, value]) => [key, json(value)]));
    await store.setAll(values, { ttl });
    return answer(c, 200, object(values));
  });

  app.all("/", allow("GET, HEAD, POST"));

  app.get("/*", async (c) => {
    query(c, NoQuery);
    const key = pathKey(c);
    const entry = await store.get(key);
    const conditions = readConditions(c);
    if (conditions && !matches(conditions.ifMatch, entry)) throw new RevisionConflict(key, entry);
    if (conditions && !noneMatches(conditions.ifNoneMatch, entry)) {
      return c.body(null, 304, entryHeaders(entry));
    }
    return answer(c, 200, object([[key, entry?.value]]), entryHeaders(entry));
  });

  app.put("/*", async (c) => {
    const { ttl } = query(c, WriteQuery);
    const key = pathKey(c);
    const value = json(await readJson(c));
    const written = await writeIf(
      c,
      store,
      key,
      (ifRevision) => store.set(key, value, { ttl, ifRevision }),
    );
    const status = written.created ? 201 : 200;
    return answer(c, status, object([[key, written.value]]), entryHeaders(written));
  });

  app.delete("/*", async (c) => {
    query(c, NoQuery);
    const key = pathKey(c);
    const removed = await writeIf(
      c,
      store,
      key,
      (ifRevision) => store.delete(key, { ifRevision }),
    );
    return answer(c, 200, object([[key, removed?.value]]));
  });

  app.all("*", allow("GET, HEAD, PUT, DELETE"));

  app.onError(problem);
  return app;
}

// ---- What a request says -------------------------------------------------------------------

/** The key in a URL's path, as it was sent: a parsed URL would have resolved its dots. */
function pathKey(c: Context): string {
  const path = /^[^/]*\/\/[^/]*\/([^?#]*)/.exec(c.req.url)?.[1] ?? "";
  try {
    return decodeURIComponent(path);
  } catch (cause) {
    throw new HTTPException(400, { message: `Cannot read the key "${path}": bad escapes`, cause });
  }
}

function query<T extends z.ZodType>(c: Context, schema: T): z.infer<T> {
  const values = Object.entries(c.req.queries()).map(([name, [value, ...more]]) => {
    if (more.length === 0) return [name, value];
    throw new HTTPException(400, { message: `Cannot read the query: ${name} stands twice` });
  });
  return check(schema, Object.fromEntries(values), "the query");
}

function check<T extends z.ZodType>(schema: T, value: unknown, what: string): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new HTTPException(400, { message: `Cannot read ${what}: ${explain(result.error)}` });
}

function explain(error: z.ZodError): string {
  return error.issues.map(({ path, message }) => [...path, message].join(": ")).join("; ");
}

/** The body of a `POST`: JSON, or a form, whose values are texts. */
async function readBody(c: Context): Promise<unknown> {
  const type = c.req.header("Content-Type") ?? "";
  if (!/^(application\/x-www-form-urlencoded|multipart\/form-data)\b/i.test(type)) {
    return await readJson(c);
  }
  let form: FormData;
  try {
    form = await c.req.formData();
  } catch (cause) {
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

async function readJson(c: Context): Promise<unknown> {
  const type = c.req.header("Content-Type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\b/i.test(type)) {
    throw new HTTPException(415, {
      message: `Cannot read a body of type "${type}": expected application/json`,
    });
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await c.req.arrayBuffer());
    return parseJson(text);
  } catch (cause) {
    // TypeError: no UTF-8. RangeError: nested too deeply.
    const bad = cause instanceof SyntaxError || cause instanceof TypeError ||
      cause instanceof RangeError;
    if (!bad) throw cause;
    throw new HTTPException(400, { message: `Cannot read the JSON: ${cause.message}`, cause });
  }
}

function members(body: unknown): [string, unknown][] {
  if (body instanceof Map) return [...body];
  if (typeof body === "object" && body !== null && !isRawNumber(body)) return Object.entries(body);
  throw new HTTPException(400, { message: "Cannot set: expected a JSON object or array" });
}

// ---- Conditional requests, RFC 9110 section 13 ---------------------------------------------

/** An entity tag, or `*`. */
type Tags = { weak: boolean; revision: string }[] | "*" | undefined;
interface Conditions {
  ifMatch: Tags;
  ifNoneMatch: Tags;
}

function readConditions(c: Context): Conditions | null {
  const ifMatch = c.req.header("If-Match");
  const ifNoneMatch = c.req.header("If-None-Match");
  if (ifMatch === undefined && ifNoneMatch === undefined) return null;
  return {
    ifMatch: readTags("If-Match", ifMatch),
    ifNoneMatch: readTags("If-None-Match", ifNoneMatch),
  };
}

function readTags(header: string, value: string | undefined): Tags {
  if (value === undefined) return undefined;
  if (value.trim() === "*") return "*";
  // A list may have empty elements, section 5.6.1.
  const tag = /[\s,]*(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,[\s,]*|$)/y;
  const tags: { weak: boolean; revision: string }[] = [];
  while (tag.lastIndex < value.length) {
    const match = tag.exec(value);
    if (match === null) {
      throw new HTTPException(400, {
        message: `Cannot read ${header}: expected * or a list of tags in double quotes`,
      });
    }
    tags.push({ weak: match[1] !== undefined, revision: match[2] ?? "" });
  }
  return tags;
}

/** `If-Match` compares strongly: a weak tag never matches. */
function matches(tags: Tags, entry: Entry | null): boolean {
  if (tags === undefined) return true;
  if (entry === null) return false;
  return tags === "*" || tags.some((tag) => !tag.weak && tag.revision === entry.revision);
}

/** `If-None-Match` compares weakly. */
function noneMatches(tags: Tags, entry: Entry | null): boolean {
  if (tags === undefined || entry === null) return true;
  return tags !== "*" && !tags.some((tag) => tag.revision === entry.revision);
}

/**
 * Does a write if the request's conditions hold. They are checked on an entry that is then named to
 * the store as the one to write over, so that no other write can come between.
 *
 * @throws {RevisionConflict} If they do not hold
 */
async function writeIf<T>(
  c: Context,
  store: Store,
  key: string,
  write: (ifRevision?: string | null) => Promise<T>,
): Promise<T> {
  const conditions = readConditions(c);
  if (conditions === null) return await write();
  let current = await store.get(key);
  for (;;) {
    const holds = matches(conditions.ifMatch, current) &&
      noneMatches(conditions.ifNoneMatch, current);
    if (!holds) throw new RevisionConflict(key, current);
    try {
      return await write(current?.revision ?? null);
    } catch (error) {
      // Another write came between, and so some client has got on.
      if (!(error instanceof RevisionConflict)) throw error;
      current = error.current;
    }
  }
}

// ---- Arrays of operations ------------------------------------------------------------------

/** Does the operations side by side; those on one key take effect in their order. */
async function performAll(store: Store, operations: unknown[]): Promise<string> {
  if (operations.length > MAX_OPERATIONS) {
    throw new HTTPException(413, {
      message: `Cannot do ${operations.length} operations: expected ${MAX_OPERATIONS} at most`,
    });
  }
  const answers = await Promise.all(operations.map((operation) => performOne(store, operation)));
  return `[${answers.join(",")}]`;
}

async function performOne(store: Store, operation: unknown): Promise<string> {
  try {
    const step = check(Operation, operation, "the operation");
    if (step.op === "get") return entryText(await store.get(step.key), { status: 200 });
    if (step.op === "delete") {
      return entryText(await store.delete(step.key, step), { status: 200 });
    }
    const written = await store.set(step.key, json(step.value), step);
    return entryText(written, { status: written.created ? 201 : 200 });
  } catch (error) {
    if (error instanceof RevisionConflict) return entryText(error.current, { status: 412 });
    const { status, detail, outcome } = describe(error);
    report(status, error);
    return JSON.stringify({ status, detail, outcome });
  }
}

/** The text of an object that has all of an entry; one that is not there has no revision. */
function entryText(entry: Entry | null, more: { status: number } | { key: string }): string {
  const { value = "null", revision = null, expires = null } = entry ?? {};
  return `${JSON.stringify(more).slice(0, -1)},"value":${value},` +
    `"revision":${JSON.stringify(revision)},"expires":${expires}}`;
}

// ---- Answers -------------------------------------------------------------------------------

/** Every key, however many there are: page by page, as the client reads. */
function allKeys(
  c: Context,
  store: Store,
  prefix: string,
  first: { keys: string[]; next: string | null },
): Response {
  if (first.next === null) return c.json({ keys: first.keys });
  async function* text() {
    yield `{"keys":[${first.keys.map((key) => JSON.stringify(key)).join()}`;
    let after = first.next;
    while (after !== null) {
      const { keys, next } = await store.list(prefix, { after });
      for (const key of keys) yield `,${JSON.stringify(key)}`;
      after = next;
    }
    yield "]}";
  }
  const stream = ReadableStream.from(text()).pipeThrough(new TextEncoderStream());
  return c.body(stream, 200, { "Content-Type": "application/json" });
}

/** Changes as server-sent events (HTML, section 9.2), until the client, the store or the server ends. */
function events(c: Context, watch: Watch, stopping: AbortSignal, ended: () => void): Response {
  c.header("X-Accel-Buffering", "no");
  return streamSSE(c, async (stream) => {
    const reader = watch.changes.getReader();
    const stop = () => reader.cancel();
    stream.onAbort(stop);
    stopping.addEventListener("abort", stop);
    if (stopping.aborted) await stop();
    const heartbeat = setInterval(() => stream.write(":\n\n"), HEARTBEAT);
    try {
      await stream.writeSSE({ event: "ready", id: watch.since, data: "{}" });
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        const { id, key, entry } = next.value;
        await stream.writeSSE({ id, data: entryText(entry, { key }) });
      }
    } catch (error) {
      // The client comes again with its Last-Event-ID, and learns what is the matter.
      if (!(error instanceof ChangesLost)) report(503, error);
    } finally {
      clearInterval(heartbeat);
      stopping.removeEventListener("abort", stop);
      await reader.cancel();
      ended();
    }
  });
}

/** The text of an object of JSON texts; a value that is not there is null. */
function object(values: Iterable<readonly [string, JsonText | undefined]>): string {
  const parts = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value ?? "null"}`);
  return `{${parts.join(",")}}`;
}

function answer(
  c: Context,
  status: 200 | 201,
  text: string,
  headers: Record<string, string> = {},
): Response {
  return c.body(text, status, { "Content-Type": "application/json", ...headers });
}

function entryHeaders(entry: Entry | null): Record<string, string> {
  const headers: Record<string, string> = { "Cache-Control": "no-cache" };
  if (entry) headers["ETag"] = `"${entry.revision}"`;
  if (entry?.expires) headers["Expires"] = new Date(entry.expires).toUTCString();
  return headers;
}

/** Turns away every other method. */
function allow(methods: string): (c: Context) => never {
  return (c) => {
    throw new HTTPException(405, {
      message: `${c.req.method} is not served here: expected ${methods}`,
      res: new Response(null, { headers: { Allow: methods } }),
    });
  };
}

function tooLarge(): never {
  throw new HTTPException(413, { message: `The body is over ${MAX_BODY_BYTES} bytes` });
}

/** What an error means for a client. Anything else than these is a defect of ours. */
function describe(error: unknown): { status: number; detail: string; outcome?: string } {
  if (error instanceof HTTPException) {
    return { status: error.status, detail: error.message || TOKEN_WANTED };
  }
  // Deno's word for a body whose sender went away. Stores have errors of their own.
  if (error instanceof Deno.errors.BadResource) {
    return { status: 400, detail: "The body ended early" };
  }
  if (error instanceof ValueTooLarge) return { status: 413, detail: error.message };
  if (error instanceof InvalidArgument) return { status: 400, detail: error.message };
  if (error instanceof RevisionConflict) return { status: 412, detail: error.message };
  if (error instanceof ChangesLost) return { status: 410, detail: error.message };
  if (error instanceof StoreFull) return { status: 507, detail: "The store is full" };
  if (error instanceof StoreUnavailable) {
    return { status: 503, detail: "The store does not answer", outcome: error.outcome };
  }
  return { status: 500, detail: "This is a defect of the service" };
}

function problem(error: Error, c: Context): Response {
  const { status, detail, outcome } = describe(error);
  report(status, error);
  const headers = new Headers(error instanceof HTTPException ? error.res?.headers : {});
  headers.set("Content-Type", "application/problem+json");
  if (status === 503) headers.set("Retry-After", RETRY_AFTER);
  const title = STATUS_TITLES[status] ?? "Error";
  let text = JSON.stringify({ title, status, detail, outcome });
  if (error instanceof RevisionConflict) {
    const { key, current } = error;
    for (const [name, value] of Object.entries(entryHeaders(current))) headers.set(name, value);
    text = `${text.slice(0, -1)},"current":${object([[key, current?.value]])}}`;
  }
  return new Response(c.req.method === "HEAD" ? null : text, { status, headers });
}

/** Tells the operator of a failure: the client does not learn where and why. */
function report(status: number, error: unknown): void {
  if (status < 500) return;
  const { stack, message } = error as Error;
  console.error(`kv: ${status === 500 ? stack : message}`);
}

/** What bearerAuth, whose errors have no message, turns away for. */
const TOKEN_WANTED = 'Expected "Authorization: Bearer" and a token of KV_TOKEN';

const STATUS_TITLES: Record<number, string> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  405: "Method Not Allowed",
  410: "Gone",
  412: "Precondition Failed",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  500: "Internal Server Error",
  503: "Service Unavailable",
  507: "Insufficient Storage",
};

// ---- The program ---------------------------------------------------------------------------

if (import.meta.main) {
  await run("kv", async () => {
    const { DBM, HOST, PORT = 5100, KV_TOKEN = [] } = readConfig();
    const tokens = [KV_TOKEN].flat();
    if (!isLoopback(HOST) && tokens.length === 0) {
      throw new ConfigError(
        `HOST is "${HOST}", which other machines reach: expected KV_TOKEN to be set as well`,
      );
    }
    const store = await openStore(DBM);
    const stop = new AbortController();
    try {
      const app = kv(store, { tokens, host: HOST, stopping: stop.signal });
      await listen("kv", app.fetch, { hostname: HOST, port: PORT, onStop: () => stop.abort() });
    } finally {
      await store.close();
    }
  });
}
