/** What a page with a session costs, beside the least it could cost and other libraries. */
import { pageOf, Servers, visits } from "./servers.ts";
import { type Options, type Started, takeTurns, type Variant } from "./load.ts";
import { installPeers } from "./peers.ts";
import { ratioTable, resultTable } from "./tables.ts";

const COOKIE = "ours, signed cookie";
const ENCRYPTED = "ours, encrypted cookie";
const MEMORY = "ours, memory";
const SERVICE = "ours, kv.ts on SQLite, synced";
const REDIS = "ours, Redis";
const REDIS_SERVICE = "ours, kv.ts on Redis";
const LIMIT = "Hono, same page and headers, no session";
const COOKIE_LIMIT = "Hono, the same signed cookie by hand";
const BARE = "Deno.serve, one short text";
const RAW_REDIS = "Hono, GET and SET of Redis, no session layer";
const HONO_MEMORY = "hono-sessions, memory";
const HONO_COOKIE = "hono-sessions, encrypted cookie";
const HONO_SESSION = "@hono/session, encrypted cookie";
const FASTIFY = "Fastify, secure-session, encrypted cookie";
const EXPRESS_REDIS = "Express, connect-redis";
const EXPRESS_COOKIE = "Express, cookie-session, signed cookie";

/** Those that send a new cookie with each response. */
const ROLLING = [COOKIE, COOKIE_LIMIT, ENCRYPTED, HONO_COOKIE, HONO_SESSION, FASTIFY];

/** Every way to keep a session. */
export async function pages(options: Options): Promise<string> {
  await using servers = new Servers();
  const redis = await servers.redis();
  const kv = await servers.kv();
  const redisKv = await servers.kv(redis.url, [redis]);
  const cookie = await servers.counter();
  const shown = await pageOf(cookie);
  const page = await variants(servers, options, shown);
  await page.add(COOKIE, "ours", cookie);
  await page.add(ENCRYPTED, "ours", await servers.counter({ SESSION_COOKIE_ENCRYPT: "true" }));
  await page.add(MEMORY, "ours", await servers.counterOver(":memory:"));
  await page.add(SERVICE, "ours", await servers.counterOver(kv.url, [kv]));
  await page.add(REDIS, "ours", await servers.counterOver(redis.url, [redis]));
  await page.add(REDIS_SERVICE, "ours", await servers.counterOver(redisKv.url, [redisKv]));
  await page.add(LIMIT, "limit", await servers.limit("hono.js", shown));
  await page.add(COOKIE_LIMIT, "limit", await servers.limit("cookie.js", shown));
  await page.add(BARE, "limit", await servers.limit("deno.js"));
  if (options.peers) {
    const REDIS_URL = redis.url;
    await page.peer(RAW_REDIS, "deno", "hono_redis.js", { REDIS_URL }, [redis]);
    await page.peer(HONO_MEMORY, "deno", "hono_sessions.js", { STORE: "memory" });
    await page.peer(HONO_COOKIE, "deno", "hono_sessions.js", { STORE: "cookie" });
    await page.peer(HONO_SESSION, "deno", "hono_session.js");
    await page.peer(FASTIFY, "node", "fastify_secure_session.js");
    await page.peer(EXPRESS_REDIS, "node", "express_redis.js", { REDIS_URL }, [redis]);
    await page.peer(EXPRESS_COOKIE, "node", "express_cookie_session.js");
  }
  const results = await takeTurns(page.variants, options);
  const ratios = ratioTable(results, [
    [COOKIE, COOKIE_LIMIT],
    [COOKIE, FASTIFY],
    [COOKIE, HONO_SESSION],
    [COOKIE, EXPRESS_COOKIE],
    [ENCRYPTED, FASTIFY],
    [ENCRYPTED, HONO_COOKIE],
    [MEMORY, HONO_MEMORY],
    [REDIS, RAW_REDIS],
    [REDIS, EXPRESS_REDIS],
    [SERVICE, RAW_REDIS],
    [SERVICE, EXPRESS_REDIS],
    [REDIS_SERVICE, RAW_REDIS],
    [REDIS_SERVICE, EXPRESS_REDIS],
  ]);
  return `${resultTable(results, "Page")}\n\n${ratios}`;
}

/** Collects variants of the counter's page; `env` tells peers what is on it. */
async function variants(servers: Servers, options: Options, env: Record<string, string>) {
  if (options.peers) await installPeers();
  const variants: Variant[] = [];
  async function add(name: string, kind: Variant["kind"], started: Started) {
    const rolling = ROLLING.includes(name);
    const isPlain = kind === "limit" && !rolling;
    const lines = isPlain ? variants[0]?.lines ?? [] : await visits(started, options);
    variants.push({ name, kind, servers: started, lines, rolling });
  }
  return {
    variants,
    add,
    async peer(
      name: string,
      runtime: "deno" | "node",
      file: string,
      more = {},
      needs: Started[] = [],
    ) {
      await add(name, "peer", await servers.peer(runtime, file, { ...env, ...more }, needs));
    },
  };
}
