/**
 * What a page with a session costs: one counter page, with and without sessions, ours and others',
 * in one run.
 *
 * ```sh
 * deno task bench
 * ```
 *
 * The apps are called in this process, 32 browsers at once, without a server or a client of HTTP, so
 * that what differs is the sessions. They take turns, round after round, and the best round of each
 * counts: what else the machine does, and the warming up, fall out. Only the ratios of one run mean
 * something.
 */
import { Hono } from "hono";
import { getSignedCookie, setSignedCookie } from "hono/cookie";
import { CookieStore, MemoryStore, sessionMiddleware } from "hono-sessions";
import { z } from "zod";
import { kv } from "../kv.ts";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  sessions,
  type SessionStore,
} from "../sessions.ts";
import { httpStore } from "../stores/http.ts";
import { memoryStore } from "../stores/memory.ts";
import { sqliteStore } from "../stores/sqlite.ts";

const ROUNDS = 15;
const BROWSERS = 32;
const PAGES = 5 * BROWSERS;
const KEY = "a secret key for benchmarks alone";
const page = (count: number) => `<!DOCTYPE html><h1>Count: ${count}</h1>`;

/** An app, as Hono has it. */
interface App {
  fetch(request: Request): Response | Promise<Response>;
}

/** An app for each variant; the first is the limit. */
const VARIANTS: Record<string, () => App> = {
  "no session": () => {
    let count = 0;
    return new Hono().get("/", (c) => c.html(page(++count)));
  },
  "ours, signed cookie": () => ours(new CookieSessionStore(KEY)),
  "ours, memory": () => ours(new KeyValueSessionStore(memoryStore())),
  "ours, SQLite file": () =>
    ours(new KeyValueSessionStore(sqliteStore(`${Deno.makeTempDirSync()}/kv.db`))),
  "ours, key-value service on SQLite": () => {
    const service = kv(sqliteStore(`${Deno.makeTempDirSync()}/kv.db`));
    const { addr } = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, service.fetch);
    return ours(new KeyValueSessionStore(httpStore(`http://127.0.0.1:${addr.port}`)));
  },
  "Hono's own signed cookie": () =>
    new Hono().get("/", async (c) => {
      const count = Number(await getSignedCookie(c, KEY, "count") || 0) + 1;
      await setSignedCookie(c, "count", String(count), KEY, { httpOnly: true, sameSite: "Lax" });
      return c.html(page(count));
    }),
  "hono-sessions, memory": () => theirs({ store: new MemoryStore() }),
  // Its cookie store asks for a key and encrypts; its memory store needs neither.
  "hono-sessions, encrypted cookie": () => theirs({ store: new CookieStore(), encryptionKey: KEY }),
};

function ours(store: SessionStore) {
  const schema = z.object({ count: z.number().int().default(0) });
  return new Hono().use(sessions({ store, schema })).get("/", async (c) => {
    const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
    return c.html(page(count));
  });
}

function theirs(options: { store: MemoryStore | CookieStore; encryptionKey?: string }) {
  const app = new Hono<
    {
      Variables: { session: { get(key: string): unknown; set(key: string, value: unknown): void } };
    }
  >();
  app.use(sessionMiddleware({ ...options, expireAfterSeconds: 3600 }));
  return app.get("/", (c) => {
    const count = Number(c.get("session").get("count") ?? 0) + 1;
    c.get("session").set("count", count);
    return c.html(page(count));
  });
}

/** Loads the pages, and gives the microseconds that one took. */
async function load(app: App, cookies: string[]): Promise<number> {
  const start = performance.now();
  for (let pages = 0; pages < PAGES; pages += BROWSERS) {
    await Promise.all(cookies.map(async (Cookie) => {
      const response = await app.fetch(new Request("http://localhost/", { headers: { Cookie } }));
      if (!response.ok) throw new Error(`A page was answered with ${response.status}`);
      await response.text();
    }));
  }
  return (performance.now() - start) * 1000 / PAGES;
}

async function firstCookie(app: App): Promise<string> {
  const response = await app.fetch(new Request("http://localhost/"));
  await response.body?.cancel();
  return response.headers.get("Set-Cookie")?.split(";")[0] ?? "none=";
}

const variants = await Promise.all(
  Object.entries(VARIANTS).map(async ([name, open]) => {
    const app = open();
    const cookies = Array.from({ length: BROWSERS }, () => firstCookie(app));
    return { name, app, cookies: await Promise.all(cookies), best: Infinity };
  }),
);
for (let round = 0; round < ROUNDS; round++) {
  for (const variant of variants) {
    variant.best = Math.min(variant.best, await load(variant.app, variant.cookies));
  }
}
const limit = variants[0]?.best ?? NaN;
console.log("| Page | Microseconds | Times the limit |\n|---|---|---|");
for (const { name, best } of variants) {
  console.log(`| ${name} | ${best.toFixed(1)} | ${(best / limit).toFixed(1)} |`);
}
Deno.exit(0);
