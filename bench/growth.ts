/** How a page's cost grows with connections, sessions, data, processes and time. */
import { join } from "node:path";
import { PROJECT } from "../tests/helpers/programs.ts";
import {
  type Line,
  load,
  type Loaded,
  memory,
  type Options,
  progress,
  type Started,
  whole,
} from "./load.ts";
import { type Plot, svg } from "./plot.ts";
import { Servers, visits } from "./servers.ts";
import { table, writeFormatted } from "./tables.ts";

const CONNECTIONS = [1, 4, 16, 64, 256, 1000];
const SESSIONS = [10, 1000, 100_000, 1_000_000];
const KIBIBYTES = [0.1, 1, 4, 16, 64];
const COUNTERS = [1, 2, 3, 4];
/** How many rounds long the long run is. */
const LONG_RUN = 30;

/** A table of each, and a plot of most. */
export async function growth(options: Options): Promise<string> {
  return [
    await byConnections(options),
    await bySessions(options),
    await bySize(options),
    await byCounters(options),
    await starts(options),
  ].join("\n\n");
}

async function byConnections(options: Options): Promise<string> {
  await using servers = new Servers();
  const kv = await servers.kv();
  const counter = await servers.counterOver(kv.url, [kv]);
  const atRest = memories(counter);
  const most = CONNECTIONS.filter((it) => it <= options.keys);
  const lines = await visits(counter, { sessions: Math.max(...most) });
  const rows = [];
  const points: Plot["points"] = [];
  for (const connections of most) {
    const loaded = await best(counter, lines, { ...options, connections });
    rows.push([whole(connections), whole(loaded.rate), loaded.p99.toFixed(1)]);
    points.push([connections, loaded.rate]);
  }
  const head = ["Connections", "Pages a second", "99th percentile, ms"];
  const peak = Math.max(...points.map(([, rate]) => rate));

  const rate = Math.round(peak / 2);
  progress(`half the peak rate: ${whole(rate)} a second`);
  const half = await load(counter, { ...options, lines, rate, seconds: 5 * options.seconds });
  progress("a long run");
  await load(counter, { ...options, lines, seconds: LONG_RUN * options.seconds });
  const latency = table(["Over kv.ts, at half the peak rate", ""], [
    ["pages a second, wanted", whole(rate)],
    ["pages a second, answered", whole(half.rate)],
    ["99th percentile, ms", half.p99.toFixed(1)],
    ["longest, ms", half.longest.toFixed(1)],
  ]);
  const run = `after ${whole(LONG_RUN * options.seconds)} s of pages at the peak rate`;
  const memoryTable = table(["Memory, MiB", "Counter", "kv.ts on SQLite"], [
    ["at rest", ...atRest],
    [run, ...memories(counter)],
  ]);
  const plot = { title: "Pages a second by connections", x: "connections", y: "Pages a second" };
  const image = await drawn("connections", { ...plot, points }, options);
  return [
    `### Connections\n\nPages over \`kv.ts\`, with ${lines.length} sessions.`,
    table(head, rows),
    image,
    latency,
    memoryTable,
  ].join("\n\n");
}

async function bySessions(options: Options): Promise<string> {
  await using servers = new Servers();
  const kv = await servers.kv();
  const counter = await servers.counterOver(kv.url, [kv]);
  const inMemory = await servers.kv(":memory:");
  const lines: Line[] = [];
  const rows = [];
  const points: Plot["points"] = [];
  for (const sessions of SESSIONS) {
    if (sessions > options.keys) break;
    const more = ids(sessions - lines.length);
    await restore(kv, more, { count: 1 });
    await restore(inMemory, more, { count: 1 });
    for (const id of more) lines.push({ method: "GET", path: "/", cookie: `session=${id}` });
    const loaded = await best(counter, lines, options);
    const [ofCounter, ofKv] = memories(counter);
    const cells = [whole(loaded.rate), ofCounter ?? "", ofKv ?? "", memories(inMemory)[0] ?? ""];
    rows.push([whole(sessions), ...cells]);
    points.push([sessions, loaded.rate]);
  }
  const plot = { title: "Pages a second by sessions", x: "sessions", y: "Pages a second" };
  return [
    "### Sessions\n\nPages over `kv.ts` on SQLite, all sessions in turn. The last column is a `kv.ts` " +
    "with the same sessions in memory.",
    table([
      "Sessions",
      "Pages a second",
      "Counter, MiB",
      "kv.ts on SQLite, MiB",
      "kv.ts in memory, MiB",
    ], rows),
    await drawn("sessions", { ...plot, points }, options),
  ].join("\n\n");
}

async function bySize(options: Options): Promise<string> {
  await using servers = new Servers();
  const kv = await servers.kv();
  const counter = await servers.counterOver(kv.url, [kv]);
  const rows = [];
  const points: Plot["points"] = [];
  for (const kibibytes of KIBIBYTES) {
    const some = ids(options.sessions);
    await restore(kv, some, { count: 1, text: "x".repeat(Math.round(1024 * kibibytes) - 22) });
    const lines = some.map((id): Line => ({ method: "GET", path: "/", cookie: `session=${id}` }));
    const loaded = await best(counter, lines, options);
    rows.push([kibibytes, whole(loaded.rate), loaded.p99.toFixed(1)]);
    points.push([kibibytes, loaded.rate]);
  }
  const plot = { title: "Pages a second by data", x: "KiB a session", y: "Pages a second" };
  return [
    "### Data in a session\n\nPages over `kv.ts` on SQLite.",
    table(["KiB a session", "Pages a second", "99th percentile, ms"], rows),
    await drawn("size", { ...plot, points }, options),
  ].join("\n\n");
}

async function byCounters(options: Options): Promise<string> {
  await using servers = new Servers();
  const redis = await servers.redis();
  const counters: Started[] = [];
  const rows = [];
  const points: Plot["points"] = [];
  for (const count of COUNTERS) {
    while (counters.length < count) counters.push(await servers.counterOver(redis.url));
    const lines = await Promise.all(counters.map((counter) => visits(counter, options)));
    // The connections are shared out, so that only the number of processes grows.
    const connections = Math.ceil(options.connections / count);
    const loads = counters.map((counter, i) =>
      load(counter, { ...options, connections, lines: lines[i] ?? [] })
    );
    const rate = (await Promise.all(loads)).reduce((sum, { rate }) => sum + rate, 0);
    progress(`${count} counters: ${whole(rate)} a second`);
    rows.push([count, whole(rate)]);
    points.push([count, rate]);
  }
  const plot = { title: "Pages a second by processes", x: "counters", y: "Pages a second" };
  return [
    `### Counters over one Redis\n\nClients, Redis and counters share ` +
    `${navigator.hardwareConcurrency} cores, so no more counters than cores can help.`,
    table(["Counters", "Pages a second, together"], rows),
    await drawn("counters", { ...plot, points }, options),
  ].join("\n\n");
}

async function starts(options: Options): Promise<string> {
  const rows = [];
  for (const name of ["kv.ts", "counter.ts"] as const) {
    const times: number[] = [];
    for (let i = 0; i < options.rounds; i++) {
      const start = performance.now();
      await using servers = new Servers();
      const { url } = name === "kv.ts" ? await servers.kv() : await servers.counter();
      await (await fetch(url)).body?.cancel();
      times.push(performance.now() - start);
    }
    rows.push([name, whole(Math.min(...times)), whole(Math.max(...times))]);
  }
  const head = ["Start to first answer", "Least, ms", "Most, ms"];
  return `### Start\n\n${table(head, rows)}`;
}

/** The better of two rounds. */
async function best(servers: Started, lines: Line[], options: Options): Promise<Loaded> {
  let best = await load(servers, { ...options, lines });
  if (options.rounds > 1) {
    const again = await load(servers, { ...options, lines });
    if (again.rate > best.rate) best = again;
  }
  progress(`${options.connections} connections, ${lines.length} sessions: ${whole(best.rate)}`);
  return best;
}

function ids(count: number): string[] {
  return Array.from({ length: count }, () => crypto.randomUUID());
}

/** Restores entries of one value into a service. */
async function restore({ url }: Started, keys: string[], value: unknown): Promise<void> {
  const text = JSON.stringify(value);
  const body = keys.map((key) => `{"${key}":${text}}\n`).join("");
  const headers = { "Content-Type": "application/x-ndjson" };
  const response = await fetch(url, { method: "POST", body, headers });
  const answer = await response.json();
  if (answer.restored !== keys.length) throw new Error(`Not restored: ${JSON.stringify(answer)}`);
}

/** The memory of each process of a server now, in MiB. */
function memories({ pids }: Started): number[] {
  return pids.map((pid) => memory(pid).now);
}

/** Returns the Markdown of a plot, and draws it into docs/images if the tables are written. */
async function drawn(name: string, plot: Plot, { write }: Options): Promise<string> {
  const file = `images/growth_${name}.svg`;
  if (write) await writeFormatted(join(PROJECT, "docs", file), svg(plot));
  return `![${plot.title}](${file})`;
}
