/**
 * What others wait for while a slow disk syncs: reads beside writers, and pages without a session
 * beside visitors that count. `deno run -A bench/disk.ts` is the app with these pages.
 */
import { Hono } from "hono";
import { z } from "zod";
import { KeyValueSessionStore, sessions } from "../sessions.ts";
import { openStore } from "../stores/open.ts";
import { disk } from "../tests/helpers/disk.ts";
import { type Line, load, type Options, progress, type Started, whole } from "./load.ts";
import { Servers, visits } from "./servers.ts";
import { table } from "./tables.ts";

/** How much longer a sync takes than on this machine's disk, in milliseconds: cloud disks take 1 to 10. */
const DELAY = 10;
const WRITERS = 16;
const KEYS = 1000;

/** Loads alone and beside writers. */
export async function slowDisk(options: Options): Promise<string> {
  await using made = await disk();
  await using servers = new Servers();
  const env = made.env({ DISK_DELAY: String(DELAY) });
  const kv = await servers.kv("kv.db", [], env);
  const file = `${await servers.directory()}/kv.db`;
  const app = await servers.program(import.meta.filename ?? "", { ...env, KV_URL: file });
  const lines = (line: Omit<Line, "path">): Line[] =>
    Array.from({ length: KEYS }, (_, i) => ({ ...line, path: `/key${i}` }));
  const puts = lines({ method: "PUT", type: "application/json", body: '"value"' });
  const counts = await visits(app, { sessions: WRITERS });
  const about: Line = { method: "GET", path: "/about" };
  await load(kv, { ...options, lines: puts });
  const rows = [
    await row(`GET /key, PUT /key`, kv, lines({ method: "GET" }), puts, options),
    await row(`a page without a session, one that counts`, app, [about], counts, options),
  ];
  const name = `Beside ${WRITERS} writers, a sync takes ${DELAY} ms`;
  return table([name, "Alone", "Beside", "99th percentile, ms", "Longest, ms", "Writes"], rows);
}

async function row(
  name: string,
  servers: Started,
  reads: Line[],
  writes: Line[],
  options: Options,
): Promise<string[]> {
  progress(name);
  const alone = await load(servers, { ...options, lines: reads });
  const [beside, written] = await Promise.all([
    load(servers, { ...options, lines: reads }),
    load(servers, { ...options, lines: writes, connections: WRITERS }),
  ]);
  return [
    name,
    whole(alone.rate),
    whole(beside.rate),
    beside.p99.toFixed(1),
    beside.longest.toFixed(1),
    whole(written.rate),
  ];
}

if (import.meta.main) {
  const store = new KeyValueSessionStore(await openStore(Deno.env.get("KV_URL") ?? ""));
  const schema = z.object({ count: z.number().default(0) });
  const app = new Hono()
    .use(sessions({ store, schema }))
    .get("/about", (c) => c.text("about"))
    .get("/", async (c) => {
      const { count } = await c.var.session.update((s) => ({ count: s.count + 1 }));
      return c.text(`Count: ${count}`);
    });
  const onListen = ({ port }: Deno.NetAddr) => console.log(`peer: http://127.0.0.1:${port}`);
  Deno.serve({ hostname: "127.0.0.1", port: 0, onListen }, app.fetch);
}
