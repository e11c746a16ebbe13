/**
 * Pages a second: one counter page, with and without sessions, ours and others', in one run.
 *
 * ```sh
 * deno task bench
 * ```
 *
 * Each variant is a process of its own, loaded by `wrk` (Debian's package) over loopback with 32
 * connections and as many sessions. They take turns, round after round, and the best round of each
 * counts: what else the machine does, and the warming up, fall out. Only the ratios of one run mean
 * something, since load and server share the machine. `bench/pages.ts NAME` serves one variant alone.
 */
import { Hono } from "hono";
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

const ROUNDS = 6;
const SECONDS = 2;
const CONNECTIONS = 32;
const KEY = "a secret key for benchmarks alone";
const page = (count: number) => `<!DOCTYPE html><h1>Count: ${count}</h1>`;

/** Has wrk send these sessions' cookies in turn. */
const wrkScript = (cookies: string[]) => `
local cookies, turn = { ${cookies.map((cookie) => `"${cookie}"`).join(", ")} }, 0
function request()
  turn = turn % #cookies + 1
  return wrk.format("GET", "/", { Cookie = cookies[turn] })
end
`;

/** An app for each variant; the first is the limit. */
const VARIANTS: Record<string, () => { fetch: Deno.ServeHandler }> = {
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
  "hono-sessions, memory": () => theirs(new MemoryStore()),
  "hono-sessions, cookie": () => theirs(new CookieStore()),
};

function ours(store: SessionStore) {
  const schema = z.object({ count: z.number().int().default(0) });
  return new Hono().use(sessions({ store, schema })).get("/", async (c) => {
    const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
    return c.html(page(count));
  });
}

function theirs(store: MemoryStore | CookieStore) {
  const app = new Hono<
    {
      Variables: { session: { get(key: string): unknown; set(key: string, value: unknown): void } };
    }
  >();
  app.use(sessionMiddleware({ store, encryptionKey: KEY, expireAfterSeconds: 3600 }));
  return app.get("/", (c) => {
    const count = Number(c.get("session").get("count") ?? 0) + 1;
    c.get("session").set("count", count);
    return c.html(page(count));
  });
}

/** A variant that is served, by a process of its own. */
interface Server {
  /** Loads it for some seconds, and gives the requests a second. */
  load(): Promise<number>;
  stop(): Promise<void>;
}

async function start(name: string): Promise<Server> {
  const server = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-all", import.meta.filename as string, name],
    stdout: "piped",
  }).spawn();
  const output = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value: address = "" } = await output.read();
  const cookies = await Promise.all(Array.from({ length: CONNECTIONS }, async () => {
    const response = await fetch(address.trim());
    await response.body?.cancel();
    return response.headers.get("Set-Cookie")?.split(";")[0] ?? "none=";
  }));
  const script = await Deno.makeTempFile({ suffix: ".lua" });
  await Deno.writeTextFile(script, wrkScript(cookies));
  const wrk = new Deno.Command("wrk", {
    args: [`-t1`, `-c${CONNECTIONS}`, `-d${SECONDS}s`, `-s${script}`, address.trim()],
  });
  return {
    async load() {
      const text = new TextDecoder().decode((await wrk.output()).stdout);
      if (text.includes("Non-2xx")) throw new Error(`${name} answered errors:\n${text}`);
      return Number(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1]);
    },
    async stop() {
      server.kill();
      await output.cancel();
      await server.status;
      await Deno.remove(script);
    },
  };
}

const [variant] = Deno.args;
if (variant !== undefined) {
  const app = VARIANTS[variant]?.();
  if (!app) throw new TypeError(`No variant "${variant}": expected ${Object.keys(VARIANTS)}`);
  Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: ({ port }) => console.log(`http://127.0.0.1:${port}/`),
  }, app.fetch);
} else {
  const servers = new Map<string, Server>();
  for (const name of Object.keys(VARIANTS)) servers.set(name, await start(name));
  const best = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, server] of servers) {
      best.set(name, Math.max(best.get(name) ?? 0, await server.load()));
    }
  }
  for (const server of servers.values()) await server.stop();
  const limit = best.get("no session") ?? NaN;
  console.log("| Page | Pages a second | Of the limit |\n|---|---|---|");
  for (const [name, rate] of best) {
    console.log(`| ${name} | ${Math.round(rate)} | ${(rate / limit).toFixed(2)} |`);
  }
}
