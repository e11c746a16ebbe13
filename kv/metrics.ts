/**
 * Metrics for Prometheus: the requests of the service, and the operations of its store.
 *
 * @module
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import {
  ChangesLost,
  InvalidArgument,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";

/** The methods with a series of their own. A client could invent any number of others. */
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/** Bounds of the histogram, in seconds. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What is measured from outside. */
export interface Observed {
  /** Returns the number of streams of changes. */
  watchers(): number;
  /** Returns the bytes held for slow clients. */
  held(): number;
}

/** What {@linkcode metrics} returns. */
export interface Metrics {
  /** The same store; its operations are counted. */
  readonly store: Store;
  /**
   * Counts a request and its duration, up to the headers of its response.
   *
   * @param begun What `performance.now()` returned at its beginning
   */
  count(method: string, status: number, begun: number): void;
  /** The media type of the text. */
  readonly contentType: string;
  /** Returns the metrics in Prometheus' text format. */
  text(): Promise<string>;
}

/** Measures a service, from now on. */
export function metrics(store: Store, observed: Observed): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Map<string, number>();
  const operations = new Map<string, number>();
  const durations = new Histogram({
    name: "kv_request_duration_seconds",
    help: "Time until the headers of the response",
    labelNames: ["method"],
    buckets: BUCKETS,
    registers,
  });
  const times = new Map(
    [...METHODS, "other"].map((method) => [method, durations.labels(method)] as const),
  );
  const name = "kv_requests_total";
  countedBy(requests, { name, help: "Requests", labelNames: ["method", "status"], registers });
  countedBy(operations, {
    name: "kv_store_operations_total",
    help: "Operations of the store",
    labelNames: ["operation", "outcome"],
    registers,
  });
  new Gauge({
    name: "kv_watchers",
    help: "Streams of changes",
    registers,
    collect() {
      this.set(observed.watchers());
    },
  });
  new Gauge({
    name: "kv_held_bytes",
    help: "Bytes of bodies and responses held for slow clients",
    registers,
    collect() {
      this.set(observed.held());
    },
  });
  new Gauge({
    name: "kv_store_up",
    help: "Whether the store is available",
    registers,
    async collect() {
      const isUp = await ifAvailable(async () => (await store.get("health"), true));
      this.set(isUp ? 1 : 0);
    },
  });

  if (store.count) {
    new Gauge({
      name: "kv_entries",
      help: "Entries, including some that have just expired",
      registers,
      async collect() {
        const count = await ifAvailable(async () => await store.count?.());
        if (count === undefined) this.remove();
        else this.set(count);
      },
    });
  }

  return {
    store: counted(store, (operation, outcome) => addOne(operations, `${operation} ${outcome}`)),
    count(requestMethod, status, begun) {
      const method = METHODS.includes(requestMethod) ? requestMethod : "other";
      addOne(requests, `${method} ${status}`);
      times.get(method)?.observe((performance.now() - begun) / 1000);
    },
    contentType: registry.contentType,
    text: () => registry.metrics(),
  };
}

/**
 * A counter whose values are looked up when they are read: adding one to a Map is several times
 * cheaper than prom-client's look-up of labels.
 */
function countedBy(
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

function addOne(counts: Map<string, number>, labels: string): void {
  counts.set(labels, (counts.get(labels) ?? 0) + 1);
}

/** The same store, whose operations and their outcomes are reported to `add`. */
function counted(store: Store, add: (operation: string, outcome: string) => void): Store {
  async function count<T>(operation: string, call: Promise<T>): Promise<T> {
    try {
      const result = await call;
      add(operation, "ok");
      return result;
    } catch (error) {
      add(operation, outcomeOf(error));
      throw error;
    }
  }
  return {
    get: (key) => count("get", store.get(key)),
    set: (...args) => count("set", store.set(...args)),
    setAll: (...args) => count("setAll", store.setAll(...args)),
    delete: (...args) => count("delete", store.delete(...args)),
    list: (...args) => count("list", store.list(...args)),
    watch: (...args) => count("watch", store.watch(...args)),
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

/** What a call returns, or undefined while the store is unavailable. */
async function ifAvailable<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof StoreUnavailable || error instanceof StoreFull) return undefined;
    throw error;
  }
}
