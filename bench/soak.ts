/** The servers under a mixed load for a long time: does anything grow? */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { httpStore } from "../stores/http/store.ts";
import { json } from "../stores/json/text.ts";
import { memory, type Options, type Started, whole } from "./load.ts";
import { Servers } from "./servers.ts";
import { table } from "./tables.ts";

/** The most times it looks. */
const SAMPLES = 360;
/** How long sessions and keys live at most, in seconds: after that as many end as begin. */
const LIFETIME = 60;
/** Clients of each store, and how long each waits between two requests, in milliseconds. */
const CLIENTS = 8;
const PAUSE = 20;

/** What was seen at one moment, of both servers together. */
interface Sample {
  /** Hours since the beginning. */
  readonly time: number;
  readonly memory: number;
  readonly files: number;
  readonly disk: number;
  /** How long a request waits, in milliseconds. */
  readonly wait: number;
}

/** All stores at once, for as long as a round. */
export async function soak(options: Options): Promise<string> {
  await using servers = new Servers();
  const directory = await servers.directory();
  const redis = await servers.redis();
  const urls = { memory: ":memory:", SQLite: join(directory, "kv.db"), Redis: redis.url };
  const rows = await Promise.all(
    Object.entries(urls).map(async ([name, url]) => {
      const { samples, requests } = await watched(servers, url, options);
      return [name, whole(requests), ...columns(samples)];
    }),
  );
  const head = ["Keys in", "Requests", "Memory, MiB", "Open files", "File, MiB", "Wait, ms"];
  return table(head, rows);
}

/** Puts a `kv.ts` and a `counter.ts` over one store under load. */
async function watched(servers: Servers, DBM: string, { seconds }: Options) {
  const service = await servers.kv(DBM);
  const counter = await servers.counter({
    USE_SESSION_STORE: "true",
    KV_URL: service.url,
    PERMANENT_SESSION_LIFETIME: String(LIFETIME),
  }, [service]);
  const stop = new AbortController();
  const clients = Array.from({ length: CLIENTS / 2 }, () => [
    browse(counter, stop.signal),
    work(service, stop.signal),
  ]).flat();
  const samples: Sample[] = [];
  const count = Math.min(SAMPLES, 4 + seconds);
  const begun = performance.now();
  for (let i = 1; i <= count; i++) {
    await delay(Math.max(0, begun + i * seconds * 1000 / count - performance.now()));
    samples.push({
      time: (performance.now() - begun) / 3_600_000,
      memory: sum(counter.pids.map((pid) => memory(pid).now)),
      files: sum(counter.pids.map((pid) => [...Deno.readDirSync(`/proc/${pid}/fd`)].length)),
      disk: sum([DBM, `${DBM}-wal`].map(mebibytes)),
      wait: await waitAt(service),
    });
  }
  stop.abort();
  return { samples, requests: sum(await Promise.all(clients)) };
}

/** A few browsers, one after another: each loads some pages; then it resets, or never comes back. */
async function browse({ url }: Started, stop: AbortSignal): Promise<number> {
  let requests = 0;
  for (let cookie = ""; !stop.aborted; requests++) {
    const isReset = cookie !== "" && Math.random() < 0.1;
    const response = await fetch(isReset ? `${url}/reset` : url, {
      method: isReset ? "POST" : "GET",
      redirect: "manual",
      headers: { Cookie: cookie },
    });
    await response.body?.cancel();
    if (response.status >= 400) throw new Error(`${url} answered ${response.status}`);
    const isOver = isReset || Math.random() < 0.1;
    cookie = isOver ? "" : response.headers.get("Set-Cookie")?.split(";")[0] ?? cookie;
    await delay(PAUSE);
  }
  return requests;
}

/** A program that keeps keys for a while, lists them now and then, and watches them for a moment. */
async function work({ url }: Started, stop: AbortSignal): Promise<number> {
  const store = httpStore(url);
  let requests = 0;
  for (let i = 0; !stop.aborted; i++, requests += 2) {
    const key = `key ${crypto.randomUUID()}`;
    const value = json("x".repeat(Math.random() * 2000));
    await store.set(key, value, { ttl: Math.ceil(Math.random() * LIFETIME) });
    await store.get(key);
    if (i % 3 === 0) await store.delete(key);
    if (i % 50 === 0) await store.list("key", { limit: 100 });
    if (i % 200 === 0) await (await store.watch("key")).changes.cancel();
    await delay(PAUSE);
  }
  await store.close();
  return requests;
}

/** The median of a few requests that need no store. */
async function waitAt({ url }: Started): Promise<number> {
  const waits = [];
  for (let i = 0; i < 9; i++) {
    const asked = performance.now();
    await (await fetch(`${url}/?openapi`)).body?.cancel();
    waits.push(performance.now() - asked);
  }
  return median(waits);
}

/** The median of the second half, and by how much it grows in an hour (Theil and Sen's slope). */
function columns(samples: Sample[]): string[] {
  const half = samples.slice(samples.length / 2);
  return (["memory", "files", "disk", "wait"] as const).map((field) => {
    const slopes = half.flatMap((a, i) =>
      half.slice(i + 1).map((b) => (b[field] - a[field]) / (b.time - a.time))
    );
    const slope = median(slopes);
    return `${median(half.map((it) => it[field])).toFixed(1)} ` +
      `(${slope < 0 ? "−" : "+"}${Math.abs(slope).toFixed(1)})`;
  });
}

function mebibytes(path: string): number {
  try {
    return Deno.statSync(path).size / 2 ** 20;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
}

function sum(numbers: number[]): number {
  return numbers.reduce((a, b) => a + b, 0);
}
