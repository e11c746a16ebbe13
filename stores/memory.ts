/**
 * A store in this process's memory, for tests, for development, and for data that may be lost.
 * Reading and writing are one look-up in a Map. A listing sorts all keys if some were added or
 * removed since the last one; for long listings with many writes use SQLite.
 *
 * @module
 */
import { Changes } from "./changes.ts";
import { checked, checkRevision, expiry } from "./checks.ts";
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
 * import { json } from "./json_text.ts";
 * import { memoryStore } from "./memory.ts";
 *
 * const store = memoryStore();
 * await store.set("a", json(1));
 * console.log((await store.list("")).keys); // ["a"]
 * await store.close();
 * ```
 */
export function memoryStore({ now = Date.now }: MemoryOptions = {}): Store {
  const entries = new Map<string, Entry>();
  const changes = new Changes();
  let sortedKeys: string[] | null = null;
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
    if (!entries.has(key)) sortedKeys = null;
    entries.set(key, entry);
    changes.add(key);
    return entry;
  }

  function remove(key: string): void {
    if (entries.delete(key)) sortedKeys = null;
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
      sortedKeys ??= [...entries.keys()].sort(byCodePoint);
      const start = byCodePoint(after, prefix) < 0 ? prefix : after;
      const keys: string[] = [];
      for (let i = firstFrom(sortedKeys, start); i < sortedKeys.length; i++) {
        const key = sortedKeys[i] as string;
        if (!key.startsWith(prefix)) break;
        if (key === after || find(key) === null) continue;
        if (keys.length === limit) return { keys, next: keys.at(-1) ?? null };
        keys.push(key);
      }
      return { keys, next: null };
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
      sortedKeys = null;
    },
  });
}

/** Returns the index of the first key that is not before `start`, by binary search. */
function firstFrom(sortedKeys: string[], start: string): number {
  let low = 0;
  let high = sortedKeys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (byCodePoint(sortedKeys[middle] as string, start) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Compares by UTF-8 bytes. JavaScript's `<` sorts surrogate pairs, U+10000 and up, too low. */
function byCodePoint(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

function rank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}
