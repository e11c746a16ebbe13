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
 * | `POST /` lines of `{key: value}`, `application/x-ndjson`, `?ttl=60` | `{restored: n}` |
 * | `POST /` an array of operations | an answer for each, in its place |
 * | `GET /key` | `{key: value}`, with `ETag` and `Expires`; `{key: null}` where there is none |
 * | `PUT /key` a JSON value, `?ttl=60` | 201 or 200, `{key: value}`, with `ETag` |
 * | `DELETE /key` | `{key: value}`, as it was |
 * | `GET /?prefix=p&limit=10&after=…` | `{keys: […], next: …}` |
 * | `GET /?prefix=p`, `Accept: application/x-ndjson` | every entry, a `{key: value}` a line |
 * | `GET /?prefix=p`, `Accept: text/event-stream` | changes as they happen; `Last-Event-ID` resumes |
 * | `GET /`, `Accept: text/html` | the explorer page, for browsers |
 * | `GET /?health` | `{status: "ok"}`, or 503 while the store does not answer |
 * | `GET /?metrics` | figures in Prometheus' text format |
 * | `GET /?openapi` | this table for programs: an OpenAPI document |
 *
 * Reads and writes are conditional by `If-Match` and `If-None-Match` (RFC 9110, section 13). Errors
 * are `application/problem+json` (RFC 9457).
 *
 * @module
 */
import { type Context, Hono, type MiddlewareHandler } from "hono";
import { accepts } from "hono/accepts";
import { HTTPException } from "hono/http-exception";
import { ConfigError, readConfig } from "./server/config.ts";
import { isLoopback, knownHostOnly, sameOriginOnly } from "./server/guards.ts";
import { listen, run } from "./server/listen.ts";
import { matches, noneMatches, readConditions, writeIf } from "./kv/conditions.ts";
import { answer, entryHeaders, object } from "./kv/responses.ts";
import { metrics } from "./kv/metrics.ts";
import { dump, NDJSON, restore } from "./kv/dumps.ts";
import { openApi } from "./kv/openapi.ts";
import { performAll } from "./kv/operations.ts";
import { allow, problem } from "./kv/errors.ts";
import {
  HealthQuery,
  ListQuery,
  members,
  MetricsQuery,
  NoQuery,
  OpenApiQuery,
  pathKey,
  PrefixQuery,
  query,
  readBody,
  readJson,
  WriteQuery,
} from "./kv/requests.ts";
import { allKeys, events } from "./kv/streams.ts";
import { type Access, bearersOnly } from "./kv/tokens.ts";
import { json } from "./stores/json_text.ts";
import { openStore } from "./stores/open.ts";
import { MAX_PAGE, RevisionConflict, type Store } from "./stores/store.ts";
import { EXPLORER, EXPLORER_HEADERS } from "./kv/explorer.tsx";

export type { Access } from "./kv/tokens.ts";

/** What `GET /` can answer. */
const TYPES = ["application/json", "text/event-stream", NDJSON, "text/html"];
/** The most streams of changes at one time. */
export const MAX_WATCHERS = 1000;

/** What {@linkcode kv} takes. */
export interface KvOptions {
  /** Bearer tokens, any of which lets a request in; without one, every request is let in. */
  tokens?: string[];
  /** Bearer tokens that let a request in to read. */
  readTokens?: string[];
  /** A `Host` that is served beside the loopback names, while no token is asked for. */
  host?: string;
  /** Ends the streams of changes, which would keep a server from stopping. */
  stopping?: AbortSignal;
}

/**
 * The HTTP face of a store.
 *
 * @param store The one that is served; the caller closes it
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
export function kv(store: Store, options: KvOptions = {}): Hono<Access> {
  const { tokens = [], readTokens = [], host = "localhost" } = options;
  const { stopping = new AbortController().signal } = options;
  const app = new Hono<Access>();
  let watchers = 0;
  const countAll = store.count?.bind(store);
  const measured = metrics(store, () => watchers);

  app.use(measured.middleware, guardedHeaders, headLength);
  app.use(sameOriginOnly({ safeMethods: false }));
  if (tokens.length + readTokens.length > 0) {
    app.use(bearersOnly(measured.store, tokens, readTokens));
  } else {
    app.use(knownHostOnly(host), (c, next) => (c.set("store", measured.store), next()));
  }

  app.get("/", async (c) => {
    // Options of `/`, since every other path is a key.
    if (c.req.query("health") !== undefined) return await health(c);
    if (c.req.query("metrics") !== undefined) return await figures(c);
    if (c.req.query("openapi") !== undefined) return description(c);
    c.header("Vary", "Accept");
    switch (accepts(c, { header: "Accept", supports: TYPES, default: "application/json" })) {
      case "text/event-stream":
        return await watch(c);
      case NDJSON:
        return await dump(c, c.var.store, query(c, PrefixQuery).prefix);
      case "text/html":
        return c.html(EXPLORER, 200, EXPLORER_HEADERS);
      default:
        return await list(c);
    }
  });

  async function health(c: Context<Access>): Promise<Response> {
    query(c, HealthQuery);
    await c.var.store.get("health");
    return c.json({ status: "ok" }, 200, { "Cache-Control": "no-store" });
  }

  async function figures(c: Context): Promise<Response> {
    query(c, MetricsQuery);
    const headers = { "Content-Type": measured.contentType, "Cache-Control": "no-store" };
    return c.body(await measured.text(), 200, headers);
  }

  function description(c: Context): Response {
    query(c, OpenApiQuery);
    return c.json(openApi());
  }

  async function list(c: Context<Access>): Promise<Response> {
    const { store } = c.var;
    const { prefix, limit, after } = query(c, ListQuery);
    const page = await store.list(prefix, { limit, after });
    if (limit === undefined && after === undefined) return allKeys(c, store, prefix, page);
    const total = prefix === "" ? await countAll?.() : undefined;
    if (page.next !== null) {
      const next = new URLSearchParams({
        prefix,
        limit: String(limit ?? MAX_PAGE),
        after: page.next,
      });
      c.header("Link", `</?${next}>; rel="next"`);
    }
    if (total !== undefined) c.header("X-Total-Count", String(total));
    return c.json(page);
  }

  async function watch(c: Context<Access>): Promise<Response> {
    const { store } = c.var;
    const { prefix } = query(c, PrefixQuery);
    // A body that is never read would never end the watch.
    if (c.req.method === "HEAD") return c.body(null, 200, { "Content-Type": "text/event-stream" });
    if (watchers >= MAX_WATCHERS) {
      throw new HTTPException(503, { message: `Cannot watch: ${MAX_WATCHERS} others do` });
    }
    watchers++;
    const watch = await store.watch(prefix, { since: c.req.header("Last-Event-ID") })
      .catch((error) => {
        watchers--;
        throw error;
      });
    return events(c, watch, stopping, () => watchers--);
  }

  app.post("/", async (c) => {
    const { store } = c.var;
    if (readConditions(c) !== null) {
      const message = "Cannot set on a condition: PUT the key, or send an array with ifRevision";
      throw new HTTPException(400, { message });
    }
    const { ttl } = query(c, WriteQuery);
    if (isRestore(c)) return await restore(c, store, ttl);
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
    const entry = await c.var.store.get(key);
    const conditions = readConditions(c);
    if (conditions && !matches(conditions.ifMatch, entry)) throw new RevisionConflict(key, entry);
    if (conditions && !noneMatches(conditions.ifNoneMatch, entry)) {
      return c.body(null, 304, entryHeaders(entry));
    }
    return answer(c, 200, object([[key, entry?.value]]), entryHeaders(entry));
  });

  app.put("/*", async (c) => {
    const { store } = c.var;
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
    const { store } = c.var;
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

/** A browser may neither run an answer nor frame it, whatever type it takes it for. */
const guardedHeaders: MiddlewareHandler = async (c, next) => {
  await next();
  const { headers } = c.res;
  headers.set("X-Content-Type-Options", "nosniff");
  if (!headers.has("Content-Security-Policy")) {
    headers.set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  }
};

/** Hono answers HEAD as GET and leaves the body out, and with it its length. */
const headLength: MiddlewareHandler = async (c, next) => {
  await next();
  // Answers that go on have no body here, and no length.
  if (c.req.method !== "HEAD" || c.res.body === null) return;
  const { byteLength } = await c.res.arrayBuffer();
  c.res = new Response(null, c.res);
  c.res.headers.set("Content-Length", String(byteLength));
};

function isRestore(c: Context): boolean {
  return /^application\/x-ndjson\b/i.test(c.req.header("Content-Type") ?? "");
}

// ---- The program ---------------------------------------------------------------------------

if (import.meta.main) {
  await run("kv", async () => {
    const { DBM, HOST, PORT = 5100, KV_TOKEN: tokens, KV_READ_TOKEN: readTokens } = readConfig();
    if (!isLoopback(HOST) && tokens.length === 0) {
      throw new ConfigError(
        `HOST is "${HOST}", which other machines can reach: expected KV_TOKEN to be set as well`,
      );
    }
    const store = await openStore(DBM);
    const stop = new AbortController();
    try {
      const app = kv(store, { tokens, readTokens, host: HOST, stopping: stop.signal });
      await listen("kv", app.fetch, { hostname: HOST, port: PORT, onStop: () => stop.abort() });
    } finally {
      await store.close();
    }
  });
}
