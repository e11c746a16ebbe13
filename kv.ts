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
 * | `POST /` lines of either, `application/x-ndjson`, `?ttl=60` | `{restored: n}` |
 * | `POST /` an array of operations | the result of each, in the same order |
 * | `GET /key` | `{key: value}` with `ETag` and `Expires`; `{key: null}` if there is no entry |
 * | `GET /key`, `Accept: text/plain` | a string itself, other values as JSON; 404 if there is no entry |
 * | `PUT /key` a JSON value, `?ttl=60` | 201 or 200, `{key: value}` with `ETag` |
 * | `PATCH /key?ttl=60` | keeps the value for another 60 seconds; 404 if there is no entry |
 * | `DELETE /key` | `{key: value}`, as it was |
 * | `DELETE /?prefix=p` | removes all keys under a prefix; `?prefix=&all` removes everything |
 * | `GET /?prefix=p&limit=10&after=…` | `{keys: […], next: …}` |
 * | `GET /?prefix=p`, `Accept: application/x-ndjson` | every entry, one `{key: value}` a line |
 * | `GET /?backup&prefix=p` | the same with lifetimes, one `{key, value, expires}` a line |
 * | `GET /?prefix=p`, `Accept: text/event-stream` | changes as they happen; `Last-Event-ID` resumes |
 * | `GET /`, `Accept: text/html` | the explorer page, for browsers |
 * | `GET /?health` | `{status: "ok"}`, or 503 while the store is unavailable, 507 while it is full |
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
import { post, removeAll } from "./kv/bulk_writes.ts";
import { backup, dump, NDJSON } from "./kv/dumps.ts";
import { badRequest, notAllowed, problemResponse } from "./kv/errors.ts";
import { Exchange, type ExchangeOptions } from "./kv/exchange.ts";
import { explorerPage } from "./kv/explorer.tsx";
import { handleKey } from "./kv/keys.ts";
import { Memory } from "./kv/memory.ts";
import { metrics } from "./kv/metrics.ts";
import { openApi } from "./kv/openapi.ts";
import { streamResponse } from "./kv/pieces.ts";
import {
  acceptedType,
  HealthQuery,
  ListQuery,
  MetricsQuery,
  OpenApiQuery,
  PrefixQuery,
  readQuery,
} from "./kv/requests.ts";
import { JSON_HEADERS, jsonResponse, textResponse } from "./kv/responses.ts";
import { allKeys, events, EVENTS_HEADERS, LIST_HEADERS } from "./kv/streams.ts";
import { accessOf } from "./kv/tokens.ts";
import { crossSite, isCrossSite, isKnownHost, isLoopback, splitUrl } from "./server/guards.ts";
import { withoutPassword } from "./stores/open.ts";
import { MAX_PAGE, type Store } from "./stores/store.ts";

/** What `GET /` can respond with. */
const ROOT_TYPES: [string, ...string[]] = [
  "application/json",
  "text/event-stream",
  NDJSON,
  "text/html",
];
/** The most streams of changes at one time. */
export const MAX_WATCHERS = 1000;
const NO_STORE = { ...JSON_HEADERS, "Cache-Control": "no-store" };

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
 * @throws {TypeError} If a token is empty, or has a character that a `Bearer` header cannot carry
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
    let exchange: Exchange | undefined;
    let response: Response;
    try {
      guard(request);
      exchange = new Exchange(request, {
        access: access(request),
        memory,
        // The second argument of Deno.serve's handler.
        info: c.env as ExchangeOptions["info"],
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

  // ---- The root ----------------------------------------------------------------------------

  function getRoot(exchange: Exchange): Response | Promise<Response> {
    const parameters = new URLSearchParams(exchange.search ?? "");
    if (parameters.has("backup")) return backup(exchange);
    if (parameters.has("health")) return health(exchange);
    if (parameters.has("metrics")) return metricsText(exchange);
    if (parameters.has("openapi")) return description(exchange);
    switch (acceptedType(exchange, ROOT_TYPES)) {
      case "text/event-stream":
        return watch(exchange);
      case NDJSON:
        return dump(exchange);
      case "text/html":
        return page(exchange);
      default:
        return list(exchange);
    }
  }

  async function page(exchange: Exchange): Promise<Response> {
    const { status, headers, body } = await explorerPage(exchange.store, exchange.search);
    return textResponse(exchange, status, body, headers);
  }

  async function health(exchange: Exchange): Promise<Response> {
    readQuery(exchange, HealthQuery);
    await exchange.store.check();
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
    const headers: Record<string, string> = { ...LIST_HEADERS };
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
}

// ---- The program ---------------------------------------------------------------------------

if (import.meta.main) {
  // Imported here, since they need Deno, and kv() runs on Node and Bun too.
  const { ConfigError } = await import("./server/config.ts");
  const { run } = await import("./server/program.ts");
  const { serve } = await import("./server/serve.ts");
  await run("kv", (program) =>
    serve(program, {
      port: 5100,
      async make({ DBM, HOST, KV_TOKEN, KV_READ_TOKEN, TRUST_PROXY }, open) {
        if (!isLoopback(HOST) && KV_TOKEN.length === 0) {
          throw new ConfigError(
            `HOST is "${HOST}", which other machines can reach: expected KV_TOKEN to be set as well`,
          );
        }
        const store = await open(DBM);
        const count = await store.count?.();
        const stop = new AbortController();
        const { fetch } = kv(store, {
          tokens: KV_TOKEN,
          readTokens: KV_READ_TOKEN,
          host: HOST,
          trustProxy: TRUST_PROXY,
          stopping: stop.signal,
        });
        const entries = count === undefined ? "" : `, entries: ${count}`;
        const about = `store ${withoutPassword(DBM)}${entries}`;
        return { fetch, about, onStop: () => stop.abort() };
      },
    }));
}
