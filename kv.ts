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
 * | `GET /?health` | `{status: "ok"}`, 503 while the store is unavailable, or 507 while it is full |
 * | `GET /?metrics` | metrics in Prometheus' text format |
 * | `GET /?openapi` | this table for programs: an OpenAPI document |
 *
 * Reads and writes of one key are conditional by `If-Match` and `If-None-Match` (RFC 9110, section
 * 13). Errors are `application/problem+json` (RFC 9457).
 *
 * @module
 */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import {
  type Answer,
  type Handler,
  JSON_HEADERS,
  jsonAnswer,
  type KvContext,
  type KvEnv,
  responseOf,
} from "./kv/answers.ts";
import { post, removeAll } from "./kv/bulk_writes.ts";
import { backup, dump, NDJSON } from "./kv/dumps.ts";
import { badRequest, problemAnswer } from "./kv/errors.ts";
import { Events } from "./kv/events.ts";
import { explorerPage } from "./kv/explorer.tsx";
import { Budget, Held } from "./kv/held.ts";
import { extend, getJson, getText, put, remove } from "./kv/keys.ts";
import { list } from "./kv/lists.ts";
import { metrics } from "./kv/metrics.ts";
import { openApi } from "./kv/openapi.ts";
import { byAccept, QUERIES, readQuery } from "./kv/requests.ts";
import { accessOf } from "./kv/tokens.ts";
import {
  crossSite,
  isCrossSite,
  isKnownHost,
  isLoopback,
  methodsOf,
  splitUrl,
  type UrlParts,
} from "./server/guards.ts";
import { withoutPassword } from "./stores/open.ts";
import type { Store } from "./stores/store.ts";

export { MAX_WATCHERS } from "./kv/events.ts";

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
 * To serve it under a path of another app: `app.mount("/kv", kv(store).fetch)`.
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
  const budget = new Budget(options.maxHeldBytes);
  // Whoever may only read must not keep the others from writing.
  const readersBudget = new Budget(budget.limit / 2, budget);
  const events = new Events(stopping);
  const needsToken = tokens.length + readTokens.length > 0;
  const measured = metrics(store, () => events.count, () => budget.held);
  const access = accessOf(measured.store, tokens, readTokens);

  const app = new Hono<KvEnv>({ getPath: routeOf });
  const root = byAccept(
    ["application/json", list],
    ["text/event-stream", (c) => events.watch(c)],
    [NDJSON, dump],
    ["text/html", (c) => explorerPage(c.get("access").store, c.get("url").search)],
  );
  app
    .get("/", respond(root))
    .get("/?backup", respond(backup))
    .get("/?health", respond(health))
    .get("/?metrics", respond(metricsText))
    .get("/?openapi", respond(description))
    .post("/", respond(post))
    .delete("/", respond(removeAll))
    .get("/key", respond(byAccept(["application/json", getJson], ["text/plain", getText])))
    .put("/key", respond(put))
    .patch("/key", respond(extend))
    .delete("/key", respond(remove))
    .notFound(respond(notAllowed));
  // The types of the context are for these handlers only.
  return app as unknown as Hono;

  /** Checks a request, calls its handler and sends the answer. Middleware would cost as much as a read. */
  function respond(handler: Handler) {
    return async function respond(c: KvContext): Promise<Response> {
      const begun = performance.now();
      const { raw, method } = c.req;
      let held = new Held(budget);
      let response: Response;
      try {
        const url = splitUrl(raw.url);
        // A router above takes the path as it is, so that the key would be another one.
        if ((c.req.path === "/key") !== (url.path !== "")) {
          throw new TypeError("Cannot route to kv(): expected app.mount(path, kv(store).fetch)");
        }
        guard(raw, url);
        c.set("url", url);
        const granted = access(raw);
        if (!granted.canWrite) held = new Held(readersBudget);
        c.set("access", granted);
        c.set("held", held);
        response = await responseOf(method, await handler(c), held);
      } catch (error) {
        held.end();
        response = await responseOf(method, problemAnswer(error, held), held);
      }
      measured.count(method, response.status, begun);
      return response;
    };
  }

  /** @throws {HTTPException} If the request is not for this service */
  function guard(request: Request, url: UrlParts): void {
    if (isCrossSite(request, trustProxy)) throw crossSite();
    // HTTP/2 has no Host header. Otherwise the URL is made from it: a Host of "localhost/a?" would
    // change the key. Node and Bun leave a default port out.
    const header = request.headers.get("Host")?.toLowerCase() ?? "";
    const fromUrl = url.host.toLowerCase();
    if (header !== "" && header !== fromUrl && header.replace(/:(80|443)$/, "") !== fromUrl) {
      throw badRequest("Cannot read the Host: expected a name and a port");
    }
    if (!needsToken && !isKnownHost(url.host, host)) {
      const message = `The Host "${url.host}" is not served here: use localhost, or set KV_TOKEN`;
      throw new HTTPException(403, { message });
    }
  }

  async function health(c: KvContext): Promise<Answer> {
    readQuery(c, QUERIES.health);
    await c.get("access").store.check();
    return jsonAnswer({ status: "ok" });
  }

  async function metricsText(c: KvContext): Promise<Answer> {
    readQuery(c, QUERIES.metrics);
    const { registry } = measured;
    const headers = { ...JSON_HEADERS, "Content-Type": registry.contentType };
    return { status: 200, headers, body: await registry.metrics() };
  }

  function description(c: KvContext): Answer {
    readQuery(c, QUERIES.openapi);
    return jsonAnswer(openApi());
  }

  function notAllowed(c: KvContext): never {
    const allowed = methodsOf(app, c.req.path);
    throw new HTTPException(405, {
      message: `Cannot ${c.req.method} here: expected ${allowed}`,
      res: new Response(null, { headers: { Allow: allowed } }),
    });
  }
}

/** The route of a request. Every path but the root is a key, so options sit on the root. */
function routeOf({ url }: Request): string {
  const { path, search } = splitUrl(url);
  if (path !== "") return "/key";
  const option = search && /(?:^|&)(backup|health|metrics|openapi)(?:[=&]|$)/.exec(search)?.[1];
  return option ? `/?${option}` : "/";
}

// ---- The program ---------------------------------------------------------------------------

if (import.meta.main) {
  // Imported here, since they need Deno, and kv() runs on Node and Bun too.
  const { ConfigError } = await import("./server/config.ts");
  const { run } = await import("./server/program.ts");
  const { serve } = await import("./server/serve.ts");
  const port = 5100;
  await run("kv", (program) =>
    serve(program, {
      port,
      health: "/?health",
      async make({ DBM, HOST, PORT = port, KV_TOKEN, KV_READ_TOKEN, TRUST_PROXY }, open) {
        if (!isLoopback(HOST) && KV_TOKEN.length === 0) {
          const wanted = "expected KV_TOKEN to be set as well";
          throw new ConfigError(`HOST is "${HOST}", which other machines can reach: ${wanted}`);
        }
        if (TRUST_PROXY && KV_TOKEN.length === 0) {
          program.warnings.push(
            "KV_TOKEN is not set: everyone who reaches this service through a proxy " +
              "can read and change all of it",
          );
        }
        const other = URL.parse(DBM);
        const isOpen = isLoopback(HOST) || HOST === "0.0.0.0" || HOST === "::";
        const isHere = other?.hostname === HOST || isOpen && isLoopback(other?.hostname ?? "");
        if (other?.protocol === "http:" && isHere && Number(other.port || 80) === PORT) {
          const shown = withoutPassword(DBM);
          throw new ConfigError(`DBM is "${shown}", this service itself: expected another store`);
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
