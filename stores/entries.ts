/**
 * Every entry of a store, and an entry as a line of newline-delimited JSON: what `dump.ts` prints
 * and `kv.ts` streams.
 *
 * @module
 */
import type { Entry, Store } from "./store.ts";

/**
 * How many entries are fetched at once, at first and at most: as many are in memory, however many
 * there are. Of large ones, about as many as have {@linkcode LENGTH_AT_ONCE} characters.
 */
const FIRST_AT_ONCE = 10;
const MOST_AT_ONCE = 100;
const LENGTH_AT_ONCE = 4 * 1024 * 1024;

/**
 * Every entry of a store, or those under a prefix. One that is written, removed or expires
 * meanwhile may be in it or not.
 *
 * @example
 * ```ts
 * import { entries, line } from "./entries.ts";
 * import { json, openStore } from "./store.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("twitter", json("@csuf"));
 * for await (const entry of entries(store)) console.log(line(entry)); // {"twitter": "@csuf"}
 * await store.close();
 * ```
 */
export async function* entries(store: Store, prefix = ""): AsyncGenerator<Entry> {
  let after: string | undefined;
  let limit = FIRST_AT_ONCE;
  do {
    const { keys, next } = await store.list(prefix, { after, limit });
    let length = 0;
    for (const entry of await Promise.all(keys.map((key) => store.get(key)))) {
      if (entry === null) continue;
      length += entry.value.length;
      yield entry;
    }
    limit = length > LENGTH_AT_ONCE ? Math.ceil(limit / 2) : Math.min(2 * limit, MOST_AT_ONCE);
    after = next ?? undefined;
  } while (after !== undefined);
}

/** An entry without its revision and its end, as a line without its newline. */
export function line({ key, value }: Entry): string {
  return `{${JSON.stringify(key)}: ${value}}`;
}
