/**
 * Metrics for Prometheus: the requests of the service, and the operations of its store.
 *
 * @module
 */
import { Gauge } from "prom-client";
import { counterOf, type RequestMetrics, requestMetrics } from "../server/metrics.ts";
import {
  ChangesLost,
  InvalidArgument,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";

/** What is measured from outside. */
export interface Observed {
  /** Returns the number of streams of changes. */
  watchers(): number;
  /** Returns the bytes held for slow clients. */
  held(): number;
}

/** What {@linkcode metrics} returns. */
export interface Metrics extends Pick<RequestMetrics, "count"> {
  /** The same store; its operations are counted. */
  readonly store: Store;
  /** The media type of the text. */
  readonly contentType: string;
  /** Returns the metrics in Prometheus' text format. */
  text(): Promise<string>;
}

/** Measures a service, from now on. */
export function metrics(store: Store, observed: Observed): Metrics {
  const { registry, count } = requestMetrics("kv");
  const registers = [registry];
  const addOperation = counterOf(registry, {
    name: "kv_store_operations_total",
    help: "Operations of the store",
    labelNames: ["operation", "outcome"],
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
      const isUp = await ifAvailable(async () => (await store.check(), true));
      this.set(isUp ? 1 : 0);
    },
  });

  if (store.count) {
    new Gauge({
      name: "kv_entries",
      help: "Entries, including some that have just expired",
      registers,
      async collect() {
        const entries = await ifAvailable(async () => await store.count?.());
        if (entries === undefined) this.remove();
        else this.set(entries);
      },
    });
  }

  return {
    store: counted(store, (operation, outcome) => addOperation(`${operation} ${outcome}`)),
    count,
    contentType: registry.contentType,
    text: () => registry.metrics(),
  };
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
  const countAll = store.count?.bind(store);
  return {
    ...(countAll && { count: () => count("count", countAll()) }),
    get: (key) => count("get", store.get(key)),
    set: (...args) => count("set", store.set(...args)),
    setAll: (...args) => count("setAll", store.setAll(...args)),
    delete: (...args) => count("delete", store.delete(...args)),
    list: (...args) => count("list", store.list(...args)),
    watch: (...args) => count("watch", store.watch(...args)),
    check: () => store.check(),
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
