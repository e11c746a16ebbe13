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
 *
 * Its addresses are relative, so that a proxy can serve it under a path prefix. The page shows its
 * own browser what the response did: the `Set-Cookie`, and what it holds.
 *
 * @module
 */
import { type Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { type Config, ConfigError, readConfig } from "./server/config.ts";
import { isLoopback, sameOriginOnly } from "./server/guards.ts";
import { listen } from "./server/listen.ts";
import { run } from "./server/program.ts";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  sessions,
  type SessionsOptions,
  SessionUnavailable,
} from "./sessions.ts";
import { openStore, withoutPassword } from "./stores/open.ts";
import { type Store, StoreFull } from "./stores/store.ts";
import { COUNTER_HEADERS, counterPage, errorPage } from "./counter/page.tsx";

/** What a counter's session holds. Of a Flask app's session, the other keys stay as they are. */
const CounterSession = z.looseObject({ count: z.number().int().default(0) });

/** How soon a page that says "Temporarily unavailable" is loaded again, in seconds. */
const RETRY_SECONDS = 5;

/** What {@linkcode counter} takes. */
export interface CounterOptions extends Omit<SessionsOptions<object>, "schema"> {
  /** Where the count is kept, as the page words it: "a signed cookie". */
  keptIn: string;
  /** The address of a page that shows the store; only browsers on this machine get a link to it. */
  storePage?: string | undefined;
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
export function counter({ keptIn, storePage, ...options }: CounterOptions) {
  const page = counterPage({ keptIn });
  const localPage = storePage === undefined ? page : counterPage({ keptIn, storePage });

  return new Hono()
    .use(sessions({ ...options, schema: CounterSession }))
    .get("/", async (c) => {
      const { session } = c.var;
      const data = await session.update((s) => ({ ...s, count: s.count + 1 }));
      const show = localPage !== page && isLocal(c) ? localPage : page;
      const html = show({ data, count: data.count, setCookie: session.setCookie ?? "" });
      return session.response(html, { headers: COUNTER_HEADERS });
    })
    .post("/reset", sameOriginOnly(options), async (c) => {
      await c.var.session.destroy();
      return c.redirect("./", 303);
    })
    .notFound((c) => {
      const depth = c.req.path.split("/").length - 2;
      const href = "../".repeat(depth) || "./";
      const message = "There is no page at this address.";
      const html = errorPage({ title: "Not found", message, href, action: "To the counter" });
      return c.body(html, 404, COUNTER_HEADERS);
    })
    .onError((error, c) => {
      if (error instanceof SessionUnavailable) return unavailable(c, error);
      const status = error instanceof HTTPException ? error.status : 500;
      if (status === 500) console.error(error);
      const message = status === 500 ? "An internal error. It was logged." : `${error.message}.`;
      return c.body(
        errorPage({ title: "That failed", message, ...TRY_AGAIN }),
        status,
        COUNTER_HEADERS,
      );
    });
}

const TRY_AGAIN = { href: "./", action: "Try again" };

function unavailable(c: Context, { cause }: SessionUnavailable): Response {
  console.error(`counter: ${(cause as Error).message}`);
  const problem = cause instanceof StoreFull ? "is full" : "is unavailable";
  const message = `Your count is safe, but the store that keeps it ${problem}. ` +
    `This page tries again every ${RETRY_SECONDS} seconds.`;
  return c.body(errorPage({ title: "Temporarily unavailable", message, ...TRY_AGAIN }), 503, {
    ...COUNTER_HEADERS,
    "Retry-After": "1",
    // For browsers, without a script; relative, for a path prefix.
    "Refresh": `${RETRY_SECONDS}; url=./`,
  });
}

function isLocal(c: Context): boolean {
  // Not the Host header, which HTTP/2 does not have.
  return isLoopback(/^\w+:\/\/(\[.*?\]|[^:/]*)/.exec(c.req.url)?.[1] ?? "");
}

/** Opens the store that the configuration names for sessions. */
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
      storePage: storePage(config.KV_URL),
      close: () => kvStore.close(),
    };
  }
  if (config.SECRET_KEY === undefined) {
    console.warn(
      "SECRET_KEY is not set; using a random key. Counts will be lost on restart. " +
        "To make a key: deno eval 'console.log(crypto.randomUUID())'",
    );
  }
  const store = new CookieSessionStore(config.SECRET_KEY ?? crypto.randomUUID(), {
    ...lifetimes,
    fallbacks: config.SECRET_KEY_FALLBACKS,
    digest: config.SESSION_COOKIE_DIGEST,
  });
  return { store, keptIn: "a signed cookie", close: () => Promise.resolve() };
}

/** The page of a key-value service that browsers on this machine can reach. */
function storePage(kvUrl: string): string | undefined {
  const url = URL.parse(kvUrl);
  if (!/^https?:$/.test(url?.protocol ?? "") || !isLoopback(url?.hostname ?? "")) return undefined;
  return `${url?.origin}${url?.pathname}${url?.search}`;
}

/** @throws {ConfigError} If the cookie's name and attributes break their rules */
function app(config: Config, options: Pick<CounterOptions, "store" | "keptIn" | "storePage">) {
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
  await run("counter", async (program) => {
    const config = readConfig();
    const { close, ...options } = await openSessionStore(config);
    const keptIn = config.USE_SESSION_STORE ? withoutPassword(config.KV_URL) : "a signed cookie";
    try {
      await listen(program, app(config, options).fetch, {
        hostname: config.HOST,
        port: config.PORT ?? 5000,
        log: config.LOG,
        logPaths: ["/", "/reset"],
        about: `sessions in ${keptIn}`,
      });
    } finally {
      await close();
    }
  });
}
