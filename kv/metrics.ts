/**
 * What the service tells Prometheus of itself: its requests, and what it asked of its store.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import {
  ChangesLost,
  InvalidArgument,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";

/** The methods that have a series of their own: a client could make up any number of others. */
const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"];
/** Bounds of the histogram, in seconds. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What {@linkcode metrics} gives. */
export interface Metrics {
  /** The same store, whose calls are counted. */
  readonly store: Store;
  /** Counts and times the requests: up to the answer's headers, where the body is a stream. */
  readonly middleware: MiddlewareHandler;
  /** The media type of the text. */
  readonly contentType: string;
  /** The figures in Prometheus' text format. */
  text(): Promise<string>;
}

/**
 * Measures a service, from now on.
 *
 * @param watchers Gives the number of streams of changes at the moment
 */
export function metrics(store: Store, watchers: () => number): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Map<string, number>();
  const operations = new Map<string, number>();
  const durations = new Histogram({
    name: "kv_request_duration_seconds",
    help: "Time until the headers of the answer",
    labelNames: ["method"],
    buckets: BUCKETS,
    registers,
  });
  const times = new Map(
    [...METHODS, "other"].map((method) => [method, durations.labels(method)] as const),
  );
  const name = "kv_requests_total";
  tallied(requests, { name, help: "Requests", labelNames: ["method", "status"], registers });
  tallied(operations, {
    name: "kv_store_operations_total",
    help: "Calls of the store",
    labelNames: ["operation", "outcome"],
    registers,
  });
  new Gauge({
    name: "kv_watchers",
    help: "Streams of changes",
    registers,
    collect() {
      this.set(watchers());
    },
  });
  new Gauge({
    name: "kv_store_up",
    help: "Whether the store answers",
    registers,
    async collect() {
      const answered = await unlessGone(async () => (await store.get("health"), true));
      this.set(answered ? 1 : 0);
    },
  });

  if (store.count) {
    new Gauge({
      name: "kv_entries",
      help: "Entries, with some that have just expired",
      registers,
      async collect() {
        const count = await unlessGone(async () => await store.count?.());
        if (count === undefined) this.remove();
        else this.set(count);
      },
    });
  }

  return {
    store: measured(store, (operation, outcome) => count(operations, `${operation} ${outcome}`)),
    async middleware(c, next) {
      const begun = performance.now();
      await next();
      const method = METHODS.includes(c.req.method) ? c.req.method : "other";
      count(requests, `${method} ${c.res.status}`);
      times.get(method)?.observe((performance.now() - begun) / 1000);
    },
    contentType: registry.contentType,
    text: () => registry.metrics(),
  };
}

/**
 * A counter whose figures are looked up when they are asked for: adding one to a Map is several
 * times cheaper than prom-client's look-up of its labels.
 */
function tallied(
  counts: ReadonlyMap<string, number>,
  options: { name: string; help: string; labelNames: string[]; registers: Registry[] },
): void {
  new Counter({
    ...options,
    collect() {
      this.reset();
      for (const [labels, value] of counts) this.labels(...labels.split(" ")).inc(value);
    },
  });
}

function count(counts: Map<string, number>, labels: string): void {
  counts.set(labels, (counts.get(labels) ?? 0) + 1);
}

function measured(store: Store, counted: (operation: string, outcome: string) => void): Store {
  async function measure<T>(operation: string, call: Promise<T>): Promise<T> {
    try {
      const result = await call;
      counted(operation, "ok");
      return result;
    } catch (error) {
      counted(operation, outcomeOf(error));
      throw error;
    }
  }
  return {
    get: (...args) => measure("get", store.get(...args)),
    set: (...args) => measure("set", store.set(...args)),
    setAll: (...args) => measure("setAll", store.setAll(...args)),
    delete: (...args) => measure("delete", store.delete(...args)),
    list: (...args) => measure("list", store.list(...args)),
    watch: (...args) => measure("watch", store.watch(...args)),
    close: () => store.close(),
  };
}

function outcomeOf(error: unknown): string {
  if (error instanceof RevisionConflict) return "conflict";
  if (error instanceof InvalidArgument) return "invalid";
  if (error instanceof ChangesLost) return "lost";
  if (error instanceof StoreFull) return "full";
  return error instanceof StoreUnavailable ? "unavailable" : "error";
}

/** What a store answers, or nothing while it does not. */
async function unlessGone<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof StoreUnavailable || error instanceof StoreFull) return undefined;
    throw error;
  }
}
