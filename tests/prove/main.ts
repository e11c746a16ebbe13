/**
 * Proves what docs/RELIABILITY.md promises, for as long as you like. First all orders of events: of a
 * few requests to one session, and of a few calls to one service or one SQLite file. Then clients and
 * browsers log what they ask and are answered while services are killed, frozen and cut off, and a
 * checker decides whether the answers fit together.
 *
 *     deno task prove                        # half an hour, another seed each time
 *     deno task prove --seconds=60 --seed=7 --setups=SQLite,Redis   # a few orders, and two setups
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startServer } from "../helpers/programs.ts";
import { type Call, violations } from "../helpers/histories.ts";
import { httpStore } from "../../stores/http/store.ts";
import {
  browse,
  callAtRandom,
  DEADLINE,
  randomOf,
  unreported,
  watchAll,
  type Watched,
} from "./clients.ts";
import type { Tried } from "../helpers/orders.ts";
import * as http from "./http_orders.ts";
import * as sessions from "./orders.ts";
import * as sqlite from "./sqlite_orders.ts";
import { clusterSetup, redisSetup, type Setup, sqliteSetup } from "./setups.ts";

const SETUPS = { SQLite: sqliteSetup, Redis: redisSetup, Cluster: clusterSetup };
/** Clients of each service; with more keys than this few calls would meet. */
const CLIENTS = 3;
const KEYS = ["a", "b", "c"];
const BROWSERS = 3;

/** What one setup was put through. */
export interface Proved {
  readonly name: string;
  readonly calls: number;
  /** Writes whose outcome the client was not told. */
  readonly unknown: number;
  readonly changes: number;
  readonly pages: number;
  readonly faults: string[];
  readonly violations: string[];
}

/** Runs clients and browsers against a setup while it fails. */
export async function prove(setup: Setup, seconds: number, seed: number): Promise<Proved> {
  const random = randomOf(seed);
  const stop = new AbortController();
  const history: Call[] = [];
  const found: string[] = [];
  const watches = setup.urls.map((url) => ({
    store: httpStore(url, { deadline: DEADLINE }),
    watched: { changes: [], begins: [] } as Watched,
  }));
  const counters = await Promise.all(
    setup.urls.map((url) =>
      startServer("counter.ts", { env: { USE_SESSION_STORE: "true", KV_URL: `${url}?prefix=s:` } })
    ),
  );
  const stopWatching = new AbortController();
  const watching = Promise.allSettled(
    watches.map(({ store, watched }) => watchAll(store, watched, stopWatching.signal)),
  );
  const histories = setup.urls.map((url, i) =>
    Array.from({ length: CLIENTS }, (_, j) => {
      const calls: Call[] = [];
      const options = { name: `${i}${j}`, keys: KEYS, history: calls, stop: stop.signal };
      const client = callAtRandom(url, { ...options, random: randomOf(random() * 2 ** 31) });
      return { i, calls, client };
    })
  ).flat();
  const browsing = Promise.allSettled(
    counters.flatMap(({ url }) =>
      Array.from({ length: BROWSERS }, () => browse(url, randomOf(random() * 2 ** 31), stop.signal))
    ),
  );
  const calling = Promise.allSettled(histories.map(({ client }) => client));

  const faults: string[] = [];
  for (const end = performance.now() + seconds * 1000; performance.now() < end;) {
    const fault = setup.faults[Math.floor(random() * setup.faults.length)];
    if (fault === undefined) break;
    faults.push(fault.name);
    await fault.run(100 + random() * 1500);
    await delay(200 + random() * 800);
  }
  await setup.heal();
  await delay(DEADLINE);
  stop.abort();
  const [ends, pages] = [await calling, await browsing];
  // What was written last is still to be reported.
  await delay(DEADLINE);
  stopWatching.abort();
  await watching;
  for (const end of [...ends, ...pages]) {
    if (end.status === "rejected") found.push(String(end.reason));
  }
  for (const { calls } of histories) history.push(...calls);
  found.push(...violations(history));
  for (const [i, { watched, store }] of watches.entries()) {
    const calls = histories.filter((it) => setup.sharesChanges || it.i === i);
    found.push(...unreported(calls.flatMap((it) => it.calls), watched));
    await store.close();
  }
  for (const counter of counters) await counter[Symbol.asyncDispose]();
  return {
    name: setup.name,
    calls: history.length,
    unknown: history.filter(({ answer }) => answer.is === "unknown").length,
    changes: watches.reduce((sum, { watched }) => sum + watched.changes.length, 0),
    pages: pages.reduce((sum, it) => sum + (it.status === "fulfilled" ? it.value : 0), 0),
    faults,
    violations: found,
  };
}

/** Requests or calls that meet in all orders. */
interface Meetings<T> {
  /** All orders of these take some seconds. */
  MEETINGS: readonly T[];
  /** All orders of these take minutes. */
  LARGE_MEETINGS: readonly T[];
  nameOf(meeting: T): string;
  meet(meeting: T): Promise<Tried>;
}

async function meetAll<T>(
  { MEETINGS, LARGE_MEETINGS, nameOf, meet }: Meetings<T>,
  isShort: boolean,
): Promise<void> {
  for (const meeting of isShort ? MEETINGS : [...MEETINGS, ...LARGE_MEETINGS]) {
    const begun = performance.now();
    const { orders, longest } = await meet(meeting);
    const seconds = Math.round((performance.now() - begun) / 1000);
    console.log(`${nameOf(meeting)}: ${orders} orders of up to ${longest} events, ${seconds} s`);
  }
}

if (import.meta.main) {
  const { values: options } = parseArgs({
    options: { seconds: { type: "string" }, seed: { type: "string" }, setups: { type: "string" } },
  });
  for (const name of ["seconds", "seed"] as const) {
    if (/^\d*$/.test(options[name] ?? "")) continue;
    throw new Error(`--${name} is "${options[name]}": expected a whole number`);
  }
  const isShort = options.seconds !== undefined;
  const end = performance.now() + Number(options.seconds ?? 1800) * 1000;
  const seed = Number(options.seed ?? Math.floor(Math.random() * 2 ** 31));
  const names = options.setups?.split(",") ?? Object.keys(SETUPS);
  const starts = names.map((name) => {
    const start = new Map(Object.entries(SETUPS)).get(name);
    if (!start) throw new Error(`There is no setup ${name}: expected ${Object.keys(SETUPS)}`);
    return start;
  });
  console.log(`seed ${seed}`);
  await meetAll(sessions, isShort);
  await meetAll(http, isShort);
  await meetAll(sqlite, isShort);
  let failed = false;
  for (const [i, start] of starts.entries()) {
    await using setup = await start();
    const seconds = (end - performance.now()) / 1000 / (starts.length - i);
    const proved = await prove(setup, seconds, seed);
    const { name, calls, unknown, changes, pages, faults, violations } = proved;
    console.log(
      `${name}: ${calls} calls, ${unknown} of unknown outcome; ${changes} changes; ` +
        `${pages} pages; ${faults.length} faults; ${violations.length} violations`,
    );
    for (const it of violations) console.log(`  ${it}`);
    // Without faults nothing is proved: the orders have taken all of the time.
    failed ||= violations.length > 0 || faults.length === 0;
  }
  Deno.exit(failed ? 1 : 0);
}
