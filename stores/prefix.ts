/** A part of a store: the entries whose keys begin with a prefix, as a store of its own. */
import { checked, isKey } from "./checks.ts";
import { type Change, type Entry, RevisionConflict, type Store } from "./store.ts";

/**
 * Returns the store of the entries under `prefix`, named without it. The prefix counts towards the
 * length of a key. Closing it closes `store`.
 *
 * @example
 * ```ts
 * import { json } from "./json/text.ts";
 * import { memoryStore } from "./memory.ts";
 * import { prefixed } from "./prefix.ts";
 *
 * const store = memoryStore();
 * const users = prefixed(store, "users:");
 * await users.set("ada", json(1));
 * console.log((await store.list("")).keys); // ["users:ada"]
 * console.log((await users.list("")).keys); // ["ada"]
 * await users.close();
 * ```
 */
export function prefixed(store: Store, prefix: string): Store {
  function named<T extends Entry>(entry: T): T {
    return { ...entry, key: entry.key.slice(prefix.length) };
  }

  function found(entry: Entry | null): Entry | null {
    return entry && named(entry);
  }

  function renamed(error: unknown): never {
    if (!(error instanceof RevisionConflict)) throw error;
    throw new RevisionConflict(error.key.slice(prefix.length), found(error.current));
  }

  return checked({
    async get(key) {
      return found(await store.get(prefix + key));
    },

    async set(key, value, options) {
      return named(await store.set(prefix + key, value, options).catch(renamed));
    },

    async setAll(values, options) {
      const entries = Array.from(values, ([key, value]) => [prefix + key, value] as const);
      await store.setAll(new Map(entries), options);
    },

    async delete(key, options) {
      return found(await store.delete(prefix + key, options).catch(renamed));
    },

    async list(keyPrefix, options) {
      const { keys, next } = await store.list(prefix + keyPrefix, options);
      // The entry under the prefix itself has no key here. The cursor is not a key on every engine.
      return { keys: keys.map((key) => key.slice(prefix.length)).filter(isKey), next };
    },

    async watch(keyPrefix, options) {
      const watch = await store.watch(prefix + keyPrefix, options);
      const reader = watch.changes.getReader();
      const named = new ReadableStream<Change>({
        async pull(controller) {
          for (;;) {
            const { value, done } = await reader.read();
            if (done) return controller.close();
            const { id, entry } = value;
            const key = value.key.slice(prefix.length);
            if (isKey(key)) return controller.enqueue({ id, key, entry: found(entry) });
          }
        },
        cancel: (reason) => reader.cancel(reason),
      }, { highWaterMark: 0 });
      return { ...watch, changes: named };
    },

    check: () => store.check(),
    close: () => store.close(),
  });
}
