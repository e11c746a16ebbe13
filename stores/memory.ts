/**
 * A store in this process's memory, for tests, for development, and for data that may be lost. No
 * call blocks for long, however many entries there are.
 *
 * @module
 */
import { Changes } from "./changes.ts";
import { checked, checkRevision, expiry } from "./checks.ts";
import { byCodePoint, SortedEntries } from "./sorted_entries.ts";
import type { Entry, JsonText, Store } from "./store.ts";
import { forwardOnly, unref } from "./timers.ts";

/** What {@linkcode memoryStore} takes. */
export interface MemoryOptions {
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
  /** How often expired entries are removed, in milliseconds. Readers never see them. */
  sweepInterval?: number;
  /** How many entries a listing or a sweep looks at before it lets other calls run. */
  step?: number;
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
export function memoryStore(
  { now = () => Date.now(), sweepInterval = 10_000, step = 1024 }: MemoryOptions = {},
): Store {
  const entries = new SortedEntries();
  const changes = new Changes();
  const clock = forwardOnly(now);
  // Distinguishes revisions from those of other processes, which also count from 0.
  const run = crypto.randomUUID().slice(0, 8);
  let writes = 0;
  let sweepFrom = "";
  let timer = unref(setTimeout(sweep, sweepInterval));

  function find(key: string): Entry | null {
    const entry = entries.get(key);
    return entry && !isExpired(entry) ? entry : null;
  }

  function isExpired(entry: Entry): boolean {
    return entry.expires !== null && entry.expires <= clock();
  }

  function write(key: string, value: JsonText, expires: number | null): Entry {
    const entry = { key, value, revision: `${run}-${++writes}`, expires };
    entries.set(entry);
    changes.add(key);
    return entry;
  }

  /** Removes expired entries, a step at a time. */
  function sweep(): void {
    const some = entries.from(sweepFrom, step);
    for (const entry of some) if (isExpired(entry)) entries.delete(entry.key);
    const last = some.length < step ? undefined : some.at(-1);
    sweepFrom = last === undefined ? "" : following(last.key);
    timer = unref(setTimeout(sweep, last === undefined ? sweepInterval : 0));
  }

  return checked({
    async get(key) {
      return find(key);
    },

    async set(key, value, { ttl, ifRevision }) {
      const expires = expiry(ttl, clock());
      const current = find(key);
      checkRevision(key, current, ifRevision);
      return { ...write(key, value, expires), created: current === null };
    },

    async setAll(values, { ttl }) {
      const expires = expiry(ttl, clock());
      for (const [key, value] of values) write(key, value, expires);
    },

    async delete(key, { ifRevision }) {
      const current = find(key);
      checkRevision(key, current, ifRevision);
      entries.delete(key);
      if (current) changes.add(key);
      return current;
    },

    async list(prefix, { after = "", limit }) {
      const page: string[] = [];
      let start = byCodePoint(after, prefix) < 0 ? prefix : following(after);
      for (;;) {
        const some = entries.from(start, step);
        for (const entry of some) {
          if (!entry.key.startsWith(prefix)) return { keys: page, next: null };
          if (isExpired(entry)) continue;
          if (page.length === limit) return { keys: page, next: page.at(-1) ?? null };
          page.push(entry.key);
        }
        const last = some.length < step ? undefined : some.at(-1);
        if (last === undefined) return { keys: page, next: null };
        start = following(last.key);
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    },

    async count() {
      return entries.size;
    },

    async watch(prefix, { since }) {
      return changes.watch(prefix, since, (key) => Promise.resolve(find(key)));
    },

    async close() {
      changes.end();
      clearTimeout(timer);
    },
  });
}

/** Returns the first key after another. */
function following(key: string): string {
  return `${key}\0`;
}
