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
 * | `POST /reset` | 303 to `/`; the session is ended and its cookie cleared |
 *
 * @module
 */
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { type Config, ConfigError, readConfig } from "./server/config.ts";
import { sameOriginOnly } from "./server/guards.ts";
import { listen, run } from "./server/listen.ts";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  sessions,
  type SessionsOptions,
  SessionUnavailable,
} from "./sessions.ts";
import { openStore } from "./stores/open.ts";
import { type Store, StoreFull } from "./stores/store.ts";
import { CounterPage, ErrorPage } from "./counter/page.tsx";
import { PAGE_HEADERS } from "./server/layout.tsx";

/** What a counter's session holds. Of a Flask app's session, the other keys stay as they are. */
const CounterSession = z.looseObject({ count: z.number().int().default(0) });

/** What {@linkcode counter} takes. */
export interface CounterOptions extends Omit<SessionsOptions<object>, "schema"> {
  /** What the page says of where the count is kept, as in "a signed cookie". */
  keptIn: string;
}

/**
 * The counter page.
 *
 * @example
 * ```ts
 * import { counter } from "./counter.ts";
 * import { CookieSessionStore } from "./sessions.ts";
 *
 * const store = new CookieSessionStore("a secret key of 16 characters or more");
 * const app = counter({ store, keptIn: "a signed cookie" });
 * console.log((await (await app.request("/")).text()).includes("Count: 1")); // true
 * ```
 */
export function counter({ keptIn, ...options }: CounterOptions) {
  return new Hono()
    .use(sameOriginOnly({ safeMethods: true }))
    .use(sessions({ ...options, schema: CounterSession }))
    .get("/", async (c) => {
      const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
      return c.html(CounterPage({ count, keptIn }), 200, PAGE_HEADERS);
    })
    .post("/reset", async (c) => {
      await c.var.session.destroy();
      return c.redirect("/", 303);
    })
    .notFound((c) => {
      const message = "There is no such page here.";
      const page = ErrorPage({ title: "Not found", message, action: "To the counter" });
      return c.html(page, 404, PAGE_HEADERS);
    })
    .onError((error, c) => {
      if (error instanceof SessionUnavailable) {
        console.error(`counter: ${(error.cause as Error).message}`);
        const problem = error.cause instanceof StoreFull ? "is full" : "does not answer";
        const message = `Your count is safe, but the store that keeps it ${problem}.`;
        const page = ErrorPage({ title: "Please wait", message });
        return c.html(page, 503, { ...PAGE_HEADERS, "Retry-After": "1" });
      }
      const status = error instanceof HTTPException ? error.status : 500;
      if (status === 500) console.error(error);
      const message = status === 500 ? "This is a defect of the page." : error.message;
      return c.html(ErrorPage({ title: "That failed", message }), status, PAGE_HEADERS);
    });
}

/** Where the configuration has sessions kept. */
async function openSessionStore(config: Config) {
  const lifetimes = {
    lifetime: config.PERMANENT_SESSION_LIFETIME,
    ...config.SESSION_ABSOLUTE_LIFETIME && { absoluteLifetime: config.SESSION_ABSOLUTE_LIFETIME },
  };
  if (config.USE_SESSION_STORE) {
    const kvStore: Store = await openStore(config.KV_URL, { token: config.KV_TOKEN[0] });
    const store = new KeyValueSessionStore(kvStore, {
      ...lifetimes,
      hashIds: config.HASH_SESSION_IDS,
    });
    return {
      store,
      keptIn: "a key-value store, under an id in the cookie",
      close: () => kvStore.close(),
    };
  }
  if (config.SECRET_KEY === undefined) {
    console.warn(
      "counter: SECRET_KEY is not set, so a random one was made: " +
        "every count begins anew when the server does",
    );
  }
  const store = new CookieSessionStore(config.SECRET_KEY ?? crypto.randomUUID(), {
    ...lifetimes,
    fallbacks: config.SECRET_KEY_FALLBACKS,
    digest: config.SESSION_COOKIE_DIGEST,
  });
  return { store, keptIn: "a signed cookie", close: () => Promise.resolve() };
}

/** @throws {ConfigError} If the cookie's name and attributes break their rules */
function app(config: Config, options: Pick<CounterOptions, "store" | "keptIn">) {
  try {
    return counter({
      ...options,
      trustProxy: config.TRUST_PROXY,
      cookie: {
        name: config.SESSION_COOKIE_NAME,
        ...config.SESSION_COOKIE_DOMAIN && { domain: config.SESSION_COOKIE_DOMAIN },
        path: config.SESSION_COOKIE_PATH,
        secure: config.SESSION_COOKIE_SECURE,
        sameSite: config.SESSION_COOKIE_SAMESITE,
        partitioned: config.SESSION_COOKIE_PARTITIONED,
      },
    });
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new ConfigError(cause.message, { cause });
  }
}

if (import.meta.main) {
  await run("counter", async () => {
    const config = readConfig();
    const { store, keptIn, close } = await openSessionStore(config);
    try {
      await listen("counter", app(config, { store, keptIn }).fetch, {
        hostname: config.HOST,
        port: config.PORT ?? 5000,
      });
    } finally {
      await close();
    }
  });
}
