/** Many processes on one session: whether each gets its share, counts are exact, and logouts hold. */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Options, progress, type Started, whole } from "./load.ts";
import { Servers, visits } from "./servers.ts";
import { table } from "./tables.ts";

/** How many loads are under way at each process at one time. */
const LOADS = 2;
const LOGOUTS = 24;

/** Counters over the service, over Redis, and over one SQLite file. */
export async function contention(options: Options): Promise<string> {
  const rows: (string | number)[][] = [];
  for (const [name, open] of STORES) {
    await using servers = new Servers();
    const url = await open(servers);
    const most = Math.max(...options.processes);
    const counters: Started[] = [];
    while (counters.length < most) counters.push(await servers.counterOver(url));
    for (const processes of options.processes) {
      progress(`${name}: ${processes} processes`);
      const some = counters.slice(0, processes);
      rows.push([name, processes, ...await share(some, options), await logouts(some, options)]);
    }
  }
  return table([
    "Sessions in",
    "Processes",
    "Pages a second",
    "Least of a process ÷ fair share",
    "503",
    "Longest wait, ms",
    "Count",
    `Logouts that held, of ${LOGOUTS}`,
  ], rows);
}

const STORES: [string, (servers: Servers) => Promise<string>][] = [
  ["kv.ts on SQLite", async (servers) => (await servers.kv()).url],
  ["Redis", async (servers) => (await servers.redis()).url],
  ["one SQLite file", async (servers) => join(await servers.directory(), "sessions.db")],
];

/** Loads one session at all processes, and compares what each answered. */
async function share(counters: Started[], options: Options): Promise<(string | number)[]> {
  const cookie = await newSession(counters[0]);
  // The first pages of a process take longer, until its code is compiled.
  const first = new Loads(counters, cookie);
  await delay(options.seconds * 1000);
  await first.stop();
  const before = await count(counters[0], cookie);
  const loads = new Loads(counters, cookie);
  await delay(options.seconds * 1000);
  await loads.stop();
  const pages = loads.pages.reduce((sum, it) => sum + it, 0);
  const lost = before + pages + 1 - await count(counters[0], cookie);
  return [
    whole(pages / options.seconds),
    (Math.min(...loads.pages) / (pages / counters.length)).toFixed(2),
    loads.unavailable,
    whole(loads.longest),
    lost === 0 ? "exact" : `${lost} lost`,
  ];
}

/** Counts the logouts, each during loads of its session, that succeed and are not undone. */
async function logouts(counters: Started[], options: Options): Promise<number> {
  let held = 0;
  for (let i = 0; i < LOGOUTS; i++) {
    const cookie = await newSession(counters[0]);
    const loads = new Loads(counters, cookie);
    const moment = Math.min(50, options.seconds * 100);
    await delay(moment);
    const counter = counters[i % counters.length];
    const headers = { Cookie: cookie };
    const reset = await fetch(`${counter?.url}/reset`, {
      method: "POST",
      redirect: "manual",
      headers,
    });
    await reset.body?.cancel();
    await delay(moment);
    await loads.stop();
    if (reset.status === 303 && await count(counters[0], cookie) === 1) held++;
  }
  return held;
}

/** Loads of one session, at all processes at once, until they are stopped. */
class Loads {
  /** Pages that each process answered. */
  readonly pages: number[];
  unavailable = 0;
  /** The longest time to an answer, in milliseconds. */
  longest = 0;
  #stopped = false;
  readonly #running: Promise<void>[];

  constructor(counters: Started[], cookie: string) {
    this.pages = counters.map(() => 0);
    this.#running = counters.flatMap(({ url }, i) =>
      Array.from({ length: LOADS }, () => this.#load(url, cookie, i))
    );
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  async #load(url: string, Cookie: string, process: number): Promise<void> {
    while (!this.#stopped) {
      const start = performance.now();
      const response = await fetch(url, { headers: { Cookie } });
      await response.body?.cancel();
      this.longest = Math.max(this.longest, performance.now() - start);
      if (response.status === 200) this.pages[process] = (this.pages[process] ?? 0) + 1;
      else if (response.status === 503) this.unavailable++;
      else throw new Error(`${url} answered ${response.status}`);
    }
  }
}

async function newSession(counter: Started | undefined): Promise<string> {
  const [line] = counter ? await visits(counter, { sessions: 1 }) : [];
  return line?.cookie ?? "";
}

/** Loads the page once, and returns its count. */
async function count(counter: Started | undefined, Cookie: string): Promise<number> {
  const response = await fetch(counter?.url ?? "", { headers: { Cookie } });
  const text = await response.text();
  const [, count] = /<h1>Count: (\d+)/.exec(text) ?? [];
  if (count === undefined) throw new Error(`No count, with ${response.status}: ${text}`);
  return Number(count);
}
