/** Stores that fail, take their time, or count their writes. */
import { type Store, StoreUnavailable } from "../../stores/store.ts";

/** A store that does something before each call. */
export function storeWith(store: Store, before: () => unknown): Store {
  return {
    ...store,
    async get(...args) {
      await before();
      return await store.get(...args);
    },
    async set(...args) {
      await before();
      return await store.set(...args);
    },
    async delete(...args) {
      await before();
      return await store.delete(...args);
    },
  };
}

/** A store whose calls fail while `isBroken` says so. */
export function brokenStore(store: Store, isBroken: () => boolean): Store {
  return storeWith(store, () => {
    if (isBroken()) throw new StoreUnavailable("It is gone", { outcome: "unchanged" });
  });
}

/** A store that counts its writes in `writes`. */
export function countingStore(store: Store): Store & { writes: number } {
  const counting = {
    ...store,
    writes: 0,
    set: (...args: Parameters<Store["set"]>) => {
      counting.writes++;
      return store.set(...args);
    },
  };
  return counting;
}

/** A store whose calls take a turn of the event loop, as over a network. */
export function slowStore(store: Store): Store {
  return storeWith(store, () => new Promise((resolve) => setImmediate(resolve)));
}
