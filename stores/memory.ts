/**
 * A store in this process's memory, for tests, for development, and for data that may be lost.
 * Reading and writing are one look-up in a Map.
 *
 * @module
 */
import { Changes } from "./changes.ts";
import { checked, checkRevision, expiry } from "./checks.ts";
import { byCodePoint, SortedKeys } from "./sorted_keys.ts";
import type { Entry, JsonText, Store } from "./store.ts";
import { unref } from "./timers.ts";

/** How often expired entries are removed, in milliseconds. Readers never see them. */
const SWEEP_INTERVAL = 10_000;

/** What {@linkcode memoryStore} takes. */
export interface MemoryOptions {
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
}

/**
 * Opens an empty store in memory.
 *
 * @example
 * ```ts
 * import { json } from "./json/text.ts";
 * import { memoryStore } from "./memory.ts";
 *
 * const store = memoryStore();
 * await store.set("a", json(1));
 * console.log((await store.list("")).keys); // ["a"]
 * await store.close();
 * ```
 */
export function memoryStore({ now = () => Date.now() }: MemoryOptions = {}): Store {
  const entries = new Map<string, Entry>();
  const changes = new Changes();
  const keys = new SortedKeys((key) => entries.has(key));
  // Other processes also count from 0: the prefix keeps their revisions apart.
  const run = crypto.randomUUID().slice(0, 8);
  let writes = 0;
  const timer = setInterval(sweep, SWEEP_INTERVAL);
  unref(timer);

  function find(key: string): Entry | null {
    const entry = entries.get(key);
    return entry && !isExpired(entry) ? entry : null;
  }

  function isExpired(entry: Entry): boolean {
    return entry.expires !== null && entry.expires <= now();
  }

  function write(key: string, value: JsonText, expires: number | null): Entry {
    const entry = { key, value, revision: `${run}-${++writes}`, expires };
    if (!entries.has(key)) keys.add(key);
    entries.set(key, entry);
    changes.add(key);
    return entry;
  }

  function remove(key: string): void {
    if (entries.delete(key)) keys.delete();
  }

  function sweep(): void {
    for (const entry of entries.values()) if (isExpired(entry)) remove(entry.key);
  }

  return checked({
    async get(key) {
      return find(key);
    },

    async set(key, value, { ttl, ifRevision }) {
      const expires = expiry(ttl, now());
      const current = find(key);
      checkRevision(key, current, ifRevision);
      return { ...write(key, value, expires), created: current === null };
    },

    async setAll(values, { ttl }) {
      const expires = expiry(ttl, now());
      for (const [key, value] of values) write(key, value, expires);
    },

    async delete(key, { ifRevision }) {
      const current = find(key);
      checkRevision(key, current, ifRevision);
      remove(key);
      if (current) changes.add(key);
      return current;
    },

    async list(prefix, { after = "", limit }) {
      const start = byCodePoint(after, prefix) < 0 ? prefix : after;
      const page: string[] = [];
      for (const key of keys.from(start)) {
        if (!key.startsWith(prefix)) break;
        if (key === after || find(key) === null) continue;
        if (page.length === limit) return { keys: page, next: page.at(-1) ?? null };
        page.push(key);
      }
      return { keys: page, next: null };
    },

    async count() {
      return entries.size;
    },

    async watch(prefix, { since }) {
      return changes.watch(prefix, since, (key) => Promise.resolve(find(key)));
    },

    async close() {
      changes.end();
      clearInterval(timer);
      entries.clear();
    },
  });
}
