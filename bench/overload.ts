/** Ten times as many requests as a server can carry: what is answered, and whether it recovers. */
import { put } from "../tests/helpers/http.ts";
import { watch } from "./hostile.ts";
import {
  type Line,
  type Load,
  load,
  type Loaded,
  memory,
  type Options,
  progress,
  type Started,
  whole,
} from "./load.ts";
import { Servers } from "./servers.ts";
import { table } from "./tables.ts";

/** How many times as many requests, over how many times as many connections. */
const TIMES = 10;
const CONNECTIONS = 100;
/** The bytes of a session or value: so many that one machine can make ten times the load. */
const SIZE = 16 * 1024;

/** A server under load. */
interface Case {
  name: string;
  health: string;
  start(servers: Servers, ids: string[]): Promise<{ server: Started; lines: Line[] }>;
}

const VALUE = JSON.stringify({ count: 1, text: "x".repeat(SIZE) });

const CASES: Case[] = [
  {
    name: "counter.ts over kv.ts: pages",
    health: "/health",
    async start(servers, ids) {
      const kv = await servers.kv();
      for (const id of ids) await put(`${kv.url}/${id}`, VALUE);
      const server = await servers.counterOver(kv.url, [kv]);
      return { server, lines: ids.map((id) => ({ ...GET, path: "/", cookie: `session=${id}` })) };
    },
  },
  {
    name: "kv.ts: writes",
    health: "/?health",
    async start(servers, ids) {
      const type = "application/json";
      const lines = ids.map((id): Line => ({ method: "PUT", path: `/${id}`, type, body: VALUE }));
      return { server: await servers.kv(), lines };
    },
  },
];

const GET = { method: "GET" } as const;

/** Each server before, during and after it. */
export async function overload(options: Options): Promise<string> {
  const rows = [];
  for (const { name, health, start } of CASES) {
    progress(name);
    await using servers = new Servers();
    const ids = Array.from({ length: 4 * options.connections }, () => crypto.randomUUID());
    const { server, lines } = await start(servers, ids);
    const usual = { ...options, lines };
    await load(server, usual); // until its code is compiled
    const before = await load(server, usual);
    const probe = await watch(server.url + health);
    const during = await load(server, {
      ...usual,
      seconds: 5 * usual.seconds,
      connections: CONNECTIONS * options.connections,
      rate: TIMES * before.rate,
      mayRefuse: true,
    });
    const { longest, failed } = await probe.stop();
    const peak = server.pids.map((pid) => memory(pid).peak);
    const after = await recovered(server, { ...usual, mayRefuse: true });
    const answered = 1 - during.refused / during.requests;
    rows.push([
      name,
      whole(before.rate),
      whole(during.rate),
      whole(answered * during.rate),
      whole(during.p99),
      `${whole(longest)}, ${failed} failed`,
      peak.join(" + "),
      whole(after.rate),
    ]);
  }
  return table([
    `Values of ${SIZE / 1024} KiB`,
    "Carried a second",
    "Sent a second",
    "Of them not refused",
    "99th percentile, ms",
    "Health, longest ms",
    "Peak memory, MiB",
    "Carried afterwards",
  ], rows);
}

/** Loads a server until it refuses nothing any more, for a minute at most. */
async function recovered(server: Started, wanted: Load): Promise<Loaded> {
  for (const end = performance.now() + 60_000;;) {
    const loaded = await load(server, wanted);
    if (loaded.refused === 0 && loaded.requests > 0) return loaded;
    if (performance.now() > end) throw new Error(`${server.url} goes on refusing requests`);
  }
}
