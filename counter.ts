/**
 * A page that counts how often each browser has loaded it: sessions at work.
 *
 * ```sh
 * deno task counter                              # http://localhost:5000, sessions in the cookie
 * USE_SESSION_STORE=true deno task start         # sessions in the key-value service
 * ```
 *
 * | Request | Answer |
 * |---|---|
 * | `GET /` | the page, with a count one higher |
 * | `POST /reset` | 303 to the page; the session is ended and its cookie cleared |
 * | `GET /health` | 200, or 503 while the store is unavailable or full; starts no session |
 * | `GET /metrics` | metrics of the requests for Prometheus; starts no session |
 *
 * Its addresses are relative, so that a proxy can serve it under a path prefix. The page shows its
 * own browser what the response did: the `Set-Cookie`, and what it holds.
 *
 * @module
 */
import { type Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { COUNTER_HEADERS, counterPage, errorPage, unreadablePage } from "./counter/page.tsx";
import { operation } from "./counter/operation.ts";
import { type Config, ConfigError } from "./server/config.ts";
import { methodsOf, sameOriginOnly } from "./server/guards.ts";
import { run } from "./server/program.ts";
import { serve } from "./server/serve.ts";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  SessionDataInvalid,
  sessions,
  type SessionsOptions,
  type SessionStore,
  SessionUnavailable,
} from "./sessions.ts";
import { withoutPassword } from "./stores/open.ts";
import { StoreFull } from "./stores/store.ts";

/** What a counter's session holds. Of a Flask app's session, the other keys stay as they are. */
const CounterSession = z.looseObject({ count: z.number().int().default(0) });

/** How soon a page that says "Temporarily unavailable" is loaded again, in seconds. */
const RETRY_SECONDS = 5;
const TRY_AGAIN = { href: "./", action: "Try again" };

/** What {@linkcode counter} takes. */
export interface CounterOptions extends Omit<SessionsOptions<object>, "schema"> {
  /** Where the sessions are, if in a key-value service; only browsers on this machine get a link. */
  kvUrl?: string;
  /** Rejects if sessions cannot be kept: by default, if they cannot be read. */
  check?: () => Promise<unknown>;
}

/**
 * The counter.
 *
 * @example
 * ```ts
 * import { counter } from "./counter.ts";
 * import { CookieSessionStore } from "./sessions.ts";
 *
 * const store = new CookieSessionStore("a secret key of 16 characters or more");
 * const app = counter({ store });
 * console.log((await (await app.request("/")).text()).includes("Count: 1")); // true
 * ```
 */
export function counter({ kvUrl, check, ...options }: CounterOptions) {
  const page = counterPage(options.store, kvUrl);
  const app = new Hono();
  return app
    .route("/", operation(check ?? (() => options.store.load(crypto.randomUUID()))))
    .use(sessions({ ...options, schema: CounterSession }))
    .get("/", async (c) => {
      const session = c.get("session");
      const data = await session.update((s) => ({ ...s, count: s.count + 1 }));
      const html = page({ data, setCookie: session.setCookie ?? "", url: c.req.url });
      return session.response(html, { headers: COUNTER_HEADERS });
    })
    .post("/reset", sameOriginOnly(options), async (c) => {
      await c.get("session").destroy();
      return c.redirect("./", 303);
    })
    .notFound((c) => notFound(c, methodsOf(app, c.req.path)))
    .onError(failed);
}

// ---- What else it answers --------------------------------------------------------------------

function notFound(c: Context, allowed: string): Response {
  const href = "../".repeat(c.req.path.split("/").slice(2).length) || "./";
  const title = allowed ? "Not allowed" : "Not found";
  const message = allowed
    ? `Cannot ${c.req.method} here: expected ${allowed}.`
    : "There is no page at this address.";
  const html = errorPage({ title, message, href, action: "To the counter" });
  return c.body(html, allowed ? 405 : 404, {
    ...COUNTER_HEADERS,
    ...allowed && { Allow: allowed },
  });
}

function failed(error: Error, c: Context): Response {
  if (error instanceof SessionUnavailable) return unavailable(error, c);
  if (error instanceof SessionDataInvalid) {
    console.error(`counter: ${error.message}`);
    return c.body(unreadablePage({}), 500, COUNTER_HEADERS);
  }
  const status = error instanceof HTTPException ? error.status : 500;
  if (status === 500) console.error(error);
  const message = status === 500 ? "An internal error. It was logged." : `${error.message}.`;
  const html = errorPage({ title: "That failed", message, ...TRY_AGAIN });
  return c.body(html, status, COUNTER_HEADERS);
}

function unavailable({ cause }: SessionUnavailable, c: Context): Response {
  console.error(`counter: ${(cause as Error).message}`);
  const problem = cause instanceof StoreFull ? "is full" : "is unavailable";
  const isReset = c.req.method === "POST";
  const message = isReset
    ? `Your session was not reset: the store that keeps it ${problem}.`
    : `Your count is safe, but the store that keeps it ${problem}. ` +
      `This page tries again every ${RETRY_SECONDS} seconds.`;
  const next = isReset ? { href: "./", action: "To the counter" } : TRY_AGAIN;
  const html = errorPage({ title: "Temporarily unavailable", message, ...next });
  return c.body(html, 503, {
    ...COUNTER_HEADERS,
    "Retry-After": "1",
    // For browsers, without a script; relative, for a path prefix.
    ...!isReset && { "Refresh": `${RETRY_SECONDS}; url=./` },
  });
}

// ---- The program -----------------------------------------------------------------------------

/**
 * Returns the counter that the configuration describes.
 *
 * @throws {ConfigError} If the cookie's name and attributes break their rules
 */
function configured(config: Config, store: SessionStore, check?: () => Promise<void>) {
  const cookie = {
    name: config.SESSION_COOKIE_NAME,
    ...config.SESSION_COOKIE_DOMAIN && { domain: config.SESSION_COOKIE_DOMAIN },
    path: config.SESSION_COOKIE_PATH,
    secure: config.SESSION_COOKIE_SECURE,
    sameSite: config.SESSION_COOKIE_SAMESITE,
    partitioned: config.SESSION_COOKIE_PARTITIONED,
  };
  const { TRUST_PROXY: trustProxy, KV_URL: kvUrl } = config;
  try {
    return counter({ store, cookie, trustProxy, kvUrl, ...check && { check } });
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new ConfigError(cause.message, { cause });
  }
}

if (import.meta.main) {
  const randomKey = crypto.randomUUID();
  await run("counter", (program) =>
    serve(program, {
      port: 5000,
      health: "/health",
      logPaths: ["/", "/reset", "/health", "/metrics"],
      async make(config, open) {
        const { KV_URL, KV_TOKEN, SECRET_KEY = randomKey, SESSION_COOKIE_ENCRYPT } = config;
        const lifetimes = {
          lifetime: config.PERMANENT_SESSION_LIFETIME,
          ...config.SESSION_ABSOLUTE_LIFETIME &&
            { absoluteLifetime: config.SESSION_ABSOLUTE_LIFETIME },
        };
        if (config.USE_SESSION_STORE) {
          const kvStore = await open(KV_URL, { token: KV_TOKEN[0] });
          const hashIds = config.HASH_SESSION_IDS;
          const store = new KeyValueSessionStore(kvStore, { ...lifetimes, hashIds });
          const { fetch } = configured(config, store, () => kvStore.check());
          return { fetch, about: `sessions in ${withoutPassword(KV_URL)}` };
        }
        if (SECRET_KEY === randomKey) {
          program.warnings.push(
            "SECRET_KEY is not set; using a random key. Counts will be lost on restart. " +
              "To make a key: deno eval 'console.log(crypto.randomUUID())'",
          );
        }
        const store = new CookieSessionStore(SECRET_KEY, {
          ...lifetimes,
          fallbacks: config.SECRET_KEY_FALLBACKS,
          digest: config.SESSION_COOKIE_DIGEST,
          encrypt: SESSION_COOKIE_ENCRYPT,
        });
        const { fetch } = configured(config, store);
        const kind = store.dataInCookie === "encrypted" ? "an encrypted cookie" : "a signed cookie";
        return { fetch, about: `sessions in ${kind}` };
      },
    }));
}
