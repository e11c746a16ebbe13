/** Metrics for Prometheus: the requests of the service, and the operations of its store. */
import { Gauge } from "prom-client";
import { counterOf, requestMetrics } from "../server/metrics.ts";
import {
  ChangesLost,
  InvalidArgument,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";

/** Measures a service. Returns its metrics, and the same store, whose operations are counted. */
export function metrics(store: Store, watchers: () => number, held: () => number) {
  const { registry, count } = requestMetrics("kv");
  const addOperation = counterOf(registry, {
    name: "kv_store_operations_total",
    help: "Operations of the store",
    labelNames: ["operation", "outcome"],
  });
  gauge("kv_watchers", "Streams of changes", watchers);
  gauge("kv_held_bytes", "Bytes of bodies and responses held for slow clients", held);
  const isUp = async () => await ifAvailable(() => store.check().then(() => 1)) ?? 0;
  gauge("kv_store_up", "Whether the store is available", isUp);
  const { count: countAll } = store;
  if (countAll) {
    const help = "Entries, including some that have just expired";
    gauge("kv_entries", help, () => ifAvailable(() => countAll.call(store)));
  }

  /** Adds a metric that is read when it is asked for; undefined leaves it out. */
  function gauge(name: string, help: string, read: () => number | Promise<number | undefined>) {
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const value = await read();
        if (value === undefined) this.remove();
        else this.set(value);
      },
    });
  }

  return { store: counted(store, addOperation), registry, count };
}

/** The same store. Each operation is reported to `add`, with its outcome after a space. */
function counted(store: Store, add: (labels: string) => void): Store {
  async function count<T>(operation: string, call: Promise<T>): Promise<T> {
    try {
      const result = await call;
      add(`${operation} ok`);
      return result;
    } catch (error) {
      add(`${operation} ${outcomeOf(error)}`);
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
