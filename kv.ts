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
 * | Request | Response |
 * |---|---|
 * | `POST /` an object or a form, `?ttl=60` | sets all keys, or none; the object |
 * | `POST /` lines of `{key: value}`, `application/x-ndjson`, `?ttl=60` | `{restored: n}` |
 * | `POST /` an array of operations | the result of each, in the same order |
 * | `GET /key` | `{key: value}` with `ETag` and `Expires`; `{key: null}` if there is no entry |
 * | `GET /key`, `Accept: text/plain` | a string itself, other values as JSON; 404 if there is no entry |
 * | `PUT /key` a JSON value, `?ttl=60` | 201 or 200, `{key: value}` with `ETag` |
 * | `PATCH /key?ttl=60` | keeps the value for another 60 seconds; 404 if there is no entry |
 * | `DELETE /key` | `{key: value}`, as it was |
 * | `DELETE /?prefix=p` | removes all keys under a prefix; `?prefix=&all` removes everything |
 * | `GET /?prefix=p&limit=10&after=…` | `{keys: […], next: …}` |
 * | `GET /?prefix=p`, `Accept: application/x-ndjson` | every entry, one `{key: value}` a line |
 * | `GET /?prefix=p`, `Accept: text/event-stream` | changes as they happen; `Last-Event-ID` resumes |
 * | `GET /`, `Accept: text/html` | the explorer page, for browsers |
 * | `GET /?health` | `{status: "ok"}`, or 503 while the store is unavailable |
 * | `GET /?metrics` | metrics in Prometheus' text format |
 * | `GET /?openapi` | this table for programs: an OpenAPI document |
 *
 * Reads and writes are conditional by `If-Match` and `If-None-Match` (RFC 9110, section 13). Errors
 * are `application/problem+json` (RFC 9457).
 *
 * @module
 */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { matches, noneMatches, readConditions, writeIf, writeOver } from "./kv/conditions.ts";
import { dump, NDJSON, restore } from "./kv/dumps.ts";
import { badRequest, notAllowed, problemResponse } from "./kv/errors.ts";
import { Exchange } from "./kv/exchange.ts";
import { EXPLORER, EXPLORER_HEADERS } from "./kv/explorer.tsx";
import { Memory, SMALL_BYTES } from "./kv/memory.ts";
import { metrics } from "./kv/metrics.ts";
import { pause } from "./kv/pace.ts";
import { openApi } from "./kv/openapi.ts";
import { execute, readOperations } from "./kv/operations.ts";
import {
  acceptedType,
  expectJson,
  expectNoQuery,
  HealthQuery,
  isForm,
  ListQuery,
  MetricsQuery,
  OpenApiQuery,
  parseJson,
  PrefixQuery,
  readBytes,
  readForm,
  readKey,
  readMembers,
  readQuery,
  readValue,
  RemoveQuery,
  TtlQuery,
  WriteQuery,
} from "./kv/requests.ts";
import {
  entryHeaders,
  JSON_HEADERS,
  jsonResponse,
  memberText,
  objectText,
  textResponse,
} from "./kv/responses.ts";
import { allKeys, events, EVENTS_HEADERS, streamResponse } from "./kv/streams.ts";
import { accessOf, readOnlyToken } from "./kv/tokens.ts";
import { crossSite, isCrossSite, isKnownHost, isLoopback, splitUrl } from "./server/guards.ts";
import type { JsonText } from "./stores/json_text.ts";
import { openStore, withoutPassword } from "./stores/open.ts";
import { type Entry, MAX_PAGE, RevisionConflict, type Store } from "./stores/store.ts";

/** What `GET /` can respond with. */
const ROOT_TYPES: [string, ...string[]] = [
  "application/json",
  "text/event-stream",
  NDJSON,
  "text/html",
];
/** The most streams of changes at one time. */
export const MAX_WATCHERS = 1000;
/** How many keys `DELETE /?prefix=` removes at once: the store returns their values. */
const REMOVED_AT_ONCE = 64;
/** Setting more keys than this takes a while. */
const MANY_KEYS = 1000;
const NO_STORE = { ...JSON_HEADERS, "Cache-Control": "no-store" };
const VARIES = { ...JSON_HEADERS, "Vary": "Accept" };

/** What {@linkcode kv} takes. */
export interface KvOptions {
  /** Bearer tokens that allow everything; without tokens of either kind, no token is needed. */
  tokens?: string[];
  /** Bearer tokens that only allow reading. */
  readTokens?: string[];
  /** A `Host` that is served beside the loopback names, while no token is needed. */
  host?: string;
  /** Whether a proxy in front sets `X-Forwarded-Host` or `Forwarded`. */
  trustProxy?: boolean;
  /** Ends the streams of changes, which would keep a server from stopping. */
  stopping?: AbortSignal;
  /** The most bytes of bodies and responses held for slow clients, by default 128 MiB. */
  maxHeldBytes?: number;
}

/**
 * The HTTP face of a store.
 *
 * @param store The store that is served; the caller closes it
 *
 * @example
 * ```ts
 * import { kv } from "./kv.ts";
 * import { openStore } from "./stores/open.ts";
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
  const { tokens = [], readTokens = [], host = "localhost", trustProxy = false } = options;
  const { stopping = new AbortController().signal } = options;
  const memory = new Memory(options.maxHeldBytes);
  const countAll = store.count?.bind(store);
  const needsToken = tokens.length + readTokens.length > 0;
  let watchers = 0;
  const measured = metrics(store, { watchers: () => watchers, held: () => memory.held });
  const access = accessOf(measured.store, tokens, readTokens);

  // One handler for all: a chain of middleware costs as much as a read.
  // A key may be any path. Hono 4.10 finds no route for one with a newline in it.
  return new Hono({ getPath: () => "/" }).all("/", async (c) => {
    const begun = performance.now();
    const request = c.req.raw;
    // The second argument of Deno.serve's handler.
    const { completed } = (c.env ?? {}) as { completed?: unknown };
    let exchange: Exchange | undefined;
    let response: Response;
    try {
      guard(request);
      exchange = new Exchange(request, {
        access: access(request),
        memory,
        completed: completed instanceof Promise ? completed : undefined,
      });
      response = await (exchange.path === "" ? handleRoot(exchange) : handleKey(exchange));
    } catch (error) {
      response = problemResponse(request.method, error);
    }
    exchange?.end();
    measured.count(request.method, response.status, begun);
    return response;
  });

  /** @throws {HTTPException} If the request is not for this service */
  function guard(request: Request): void {
    if (isCrossSite(request, trustProxy)) throw crossSite();
    // HTTP/2 has no Host header. Where there is one, Deno takes the URL from it: "localhost/a?" as
    // a Host would move the key.
    const { host: asked } = splitUrl(request.url);
    const header = request.headers.get("Host");
    if (header !== null && header !== "" && header.toLowerCase() !== asked.toLowerCase()) {
      throw badRequest("Cannot read the Host: expected a name and a port");
    }
    if (!needsToken && !isKnownHost(asked, host)) {
      const message = `The Host "${asked}" is not served here: use localhost, or set KV_TOKEN`;
      throw new HTTPException(403, { message });
    }
  }

  /** Options sit on the root, since every other path is a key. */
  function handleRoot(exchange: Exchange): Response | Promise<Response> {
    switch (exchange.method) {
      case "GET":
      case "HEAD":
        return getRoot(exchange);
      case "POST":
        return post(exchange);
      case "DELETE":
        return removeAll(exchange);
      default:
        throw notAllowed(exchange.method, "GET, HEAD, POST, DELETE");
    }
  }

  function handleKey(exchange: Exchange): Promise<Response> {
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

  // ---- The root ----------------------------------------------------------------------------

  function getRoot(exchange: Exchange): Response | Promise<Response> {
    const parameters = new URLSearchParams(exchange.search ?? "");
    if (parameters.has("health")) return health(exchange);
    if (parameters.has("metrics")) return metricsText(exchange);
    if (parameters.has("openapi")) return description(exchange);
    switch (acceptedType(exchange, ROOT_TYPES)) {
      case "text/event-stream":
        return watch(exchange);
      case NDJSON:
        return dump(exchange, readQuery(exchange, PrefixQuery).prefix);
      case "text/html":
        return textResponse(exchange, 200, EXPLORER, {
          ...EXPLORER_HEADERS,
          "Content-Type": "text/html; charset=UTF-8",
          "Vary": "Accept",
        });
      default:
        return list(exchange);
    }
  }

  async function health(exchange: Exchange): Promise<Response> {
    readQuery(exchange, HealthQuery);
    await exchange.store.get("health");
    return jsonResponse(exchange, { status: "ok" }, NO_STORE);
  }

  async function metricsText(exchange: Exchange): Promise<Response> {
    readQuery(exchange, MetricsQuery);
    const headers = { ...NO_STORE, "Content-Type": measured.contentType };
    return textResponse(exchange, 200, await measured.text(), headers);
  }

  function description(exchange: Exchange): Response {
    readQuery(exchange, OpenApiQuery);
    return jsonResponse(exchange, openApi());
  }

  async function list(exchange: Exchange): Promise<Response> {
    const { prefix, limit, after } = readQuery(exchange, ListQuery);
    const page = await exchange.store.list(prefix, { limit, after });
    if (limit === undefined && after === undefined) return allKeys(exchange, prefix, page);
    const headers: Record<string, string> = { ...VARIES };
    if (page.next !== null) {
      const next = new URLSearchParams({
        prefix,
        limit: String(limit ?? MAX_PAGE),
        after: page.next,
      });
      // Relative: a proxy may serve this under a path of its own.
      headers["Link"] = `<?${next}>; rel="next"`;
    }
    const total = prefix === "" ? await countAll?.() : undefined;
    if (total !== undefined) headers["X-Total-Count"] = String(total);
    return jsonResponse(exchange, page, headers);
  }

  async function watch(exchange: Exchange): Promise<Response> {
    const { prefix } = readQuery(exchange, PrefixQuery);
    // A body that is never read would never end the watch.
    if (exchange.method === "HEAD") return new Response(null, { headers: EVENTS_HEADERS });
    if (watchers >= MAX_WATCHERS) {
      const message = `Cannot watch: there are ${MAX_WATCHERS} streams of changes`;
      throw new HTTPException(503, { message });
    }
    watchers++;
    const ended = () => watchers--;
    const since = exchange.headers.get("Last-Event-ID") ?? undefined;
    const changes = await exchange.store.watch(prefix, { since }).catch((error) => {
      ended();
      throw error;
    });
    return await streamResponse(exchange, events(changes, stopping, ended), EVENTS_HEADERS);
  }

  async function post(exchange: Exchange): Promise<Response> {
    const { access } = exchange;
    if (readConditions(exchange) !== null) {
      throw badRequest("Cannot set on a condition: PUT the key, or send an array with ifRevision");
    }
    const { ttl } = readQuery(exchange, WriteQuery);
    const type = exchange.headers.get("Content-Type") ?? "";
    const isLines = /^application\/x-ndjson\b/i.test(type);
    if (!access.canWrite && (isLines || isForm(exchange))) throw readOnlyToken();
    if (isLines) return await restore(exchange, ttl);
    if (isForm(exchange)) return await set(exchange, await readForm(exchange), ttl);
    expectJson(exchange);
    // An array is executed also for a reader: it may consist of gets.
    const bytes = await readBytes(exchange);
    const body = parseJson(
      bytes,
      (reader) => reader.peek() === "[" ? readOperations(reader) : readMembers(reader),
    );
    if (bytes.length > SMALL_BYTES) await pause();
    if (body instanceof Map) return await set(exchange, body, ttl);
    expectNoQuery(exchange);
    return await execute(exchange, body);
  }

  async function set(
    exchange: Exchange,
    values: Map<string, JsonText>,
    ttl: number | undefined,
  ): Promise<Response> {
    await exchange.store.setAll(values, { ttl });
    if (values.size > MANY_KEYS) await pause();
    return textResponse(exchange, 200, objectText(values));
  }

  async function removeAll(exchange: Exchange): Promise<Response> {
    const { access, store } = exchange;
    if (!access.canWrite) throw readOnlyToken();
    const { prefix, all } = readQuery(exchange, RemoveQuery);
    if (prefix === "" && all === undefined) {
      throw badRequest("Cannot delete everything: expected a prefix, or ?prefix=&all");
    }
    if (readConditions(exchange) !== null) {
      throw badRequest("Cannot delete a prefix on a condition: DELETE the keys");
    }
    let deleted = 0;
    let after: string | undefined;
    do {
      const { keys, next } = await store.list(prefix, { after, limit: REMOVED_AT_ONCE });
      const entries = await Promise.all(keys.map((key) => store.delete(key)));
      deleted += entries.filter((entry) => entry !== null).length;
      after = next ?? undefined;
    } while (after !== undefined);
    return jsonResponse(exchange, { deleted });
  }

  // ---- Keys --------------------------------------------------------------------------------

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
    const { access, request, store } = exchange;
    if (!access.canWrite) throw readOnlyToken();
    const { ttl } = readQuery(exchange, TtlQuery);
    const key = readKey(exchange);
    if (request.body !== null) {
      throw new HTTPException(415, {
        message: "Cannot read a body here: expected ?ttl and no body",
      });
    }
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

// ---- The program ---------------------------------------------------------------------------

if (import.meta.main) {
  // Imported here, since they need Deno, and kv() runs on Node and Bun too.
  const { ConfigError, readConfig } = await import("./server/config.ts");
  const { listen } = await import("./server/listen.ts");
  const { run } = await import("./server/program.ts");
  await run("kv", async (program) => {
    const config = readConfig();
    const { DBM, HOST, PORT = 5100, KV_TOKEN: tokens, KV_READ_TOKEN: readTokens } = config;
    if (!isLoopback(HOST) && tokens.length === 0) {
      throw new ConfigError(
        `HOST is "${HOST}", which other machines can reach: expected KV_TOKEN to be set as well`,
      );
    }
    const store = await openStore(DBM);
    const stop = new AbortController();
    const options = { tokens, readTokens, host: HOST, trustProxy: config.TRUST_PROXY };
    try {
      const count = await store.count?.();
      const app = kv(store, { ...options, stopping: stop.signal });
      await listen(program, app.fetch, {
        hostname: HOST,
        port: PORT,
        about: `store ${withoutPassword(DBM)}` + (count === undefined ? "" : `, entries: ${count}`),
        log: config.LOG,
        onStop: () => stop.abort(),
      });
    } finally {
      await store.close();
    }
  });
}
