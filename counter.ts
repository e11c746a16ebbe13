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
import { Hono } from "hono";
import { z } from "zod";
import { failed, notFound } from "./counter/errors.tsx";
import { operation } from "./counter/operation.ts";
import { COUNTER_HEADERS, counterPage } from "./counter/page.tsx";
import { type Config, ConfigError } from "./server/config.ts";
import { sameOriginOnly } from "./server/guards.ts";
import { run } from "./server/program.ts";
import { serve } from "./server/serve.ts";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  sessions,
  type SessionsOptions,
} from "./sessions.ts";
import { withoutPassword } from "./stores/open.ts";

/** What a counter's session holds. Of a Flask app's session, the other keys stay as they are. */
const CounterSession = z.looseObject({ count: z.number().int().default(0) });

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
  const page = counterPage(options, kvUrl);
  const app = new Hono();
  return app
    .route("/", operation(check ?? (() => options.store.load(crypto.randomUUID()))))
    .use(sessions({ ...options, schema: CounterSession }))
    .get("/", async (c) => {
      const session = c.get("session");
      const data = await session.update((s) => ({ ...s, count: s.count + 1 }));
      const html = page({ data, setCookie: session.setCookie ?? "", request: c.req.raw });
      return session.response(html, { headers: COUNTER_HEADERS });
    })
    .post("/reset", sameOriginOnly(options), async (c) => {
      await c.get("session").destroy();
      return c.redirect("./", 303);
    })
    .notFound((c) => notFound(c, app))
    .onError(failed);
}

// ---- The program -----------------------------------------------------------------------------

/** Returns the counter with the cookie that the configuration describes. */
function configured(config: Config, options: CounterOptions) {
  const cookie = {
    name: config.SESSION_COOKIE_NAME,
    domain: config.SESSION_COOKIE_DOMAIN || undefined,
    path: config.SESSION_COOKIE_PATH,
    secure: config.SESSION_COOKIE_SECURE,
    sameSite: config.SESSION_COOKIE_SAMESITE,
    partitioned: config.SESSION_COOKIE_PARTITIONED,
  };
  try {
    return counter({ ...options, cookie, trustProxy: config.TRUST_PROXY });
  } catch (cause) {
    // The name and the attributes break a rule of cookies together.
    if (!(cause instanceof TypeError)) throw cause;
    throw new ConfigError(cause.message, { cause });
  }
}

if (import.meta.main) {
  // One for all readings of the configuration: sessions outlive a SIGHUP.
  const randomKey = crypto.randomUUID();
  await run("counter", (program) =>
    serve(program, {
      port: 5000,
      health: "/health",
      logPaths: ["/", "/reset", "/health", "/metrics"],
      async make(config, open) {
        const { KV_URL, KV_TOKEN, SECRET_KEY = randomKey } = config;
        const lifetimes = {
          lifetime: config.PERMANENT_SESSION_LIFETIME,
          absoluteLifetime: config.SESSION_ABSOLUTE_LIFETIME,
        };
        if (config.USE_SESSION_STORE) {
          const kvStore = await open(KV_URL, { token: KV_TOKEN[0] });
          const hashIds = config.HASH_SESSION_IDS;
          const store = new KeyValueSessionStore(kvStore, { ...lifetimes, hashIds });
          const check = () => kvStore.check();
          const { fetch } = configured(config, { store, check, kvUrl: KV_URL });
          return { fetch, about: `sessions in ${withoutPassword(KV_URL)}` };
        }
        const store = new CookieSessionStore(SECRET_KEY, {
          ...lifetimes,
          fallbacks: config.SECRET_KEY_FALLBACKS,
          digest: config.SESSION_COOKIE_DIGEST,
          encrypt: config.SESSION_COOKIE_ENCRYPT,
        });
        const { fetch } = configured(config, { store });
        if (SECRET_KEY === randomKey) {
          program.warnings.push(
            "SECRET_KEY is not set; using a random key. Counts will be lost on restart. " +
              "To make a key: deno eval 'console.log(crypto.randomUUID())'",
          );
        }
        const kind = store.dataInCookie === "encrypted" ? "an encrypted" : "a signed";
        return { fetch, about: `sessions in ${kind} cookie` };
      },
    }));
}
