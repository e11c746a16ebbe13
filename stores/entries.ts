/**
 * Every entry of a store, and an entry as a line of newline-delimited JSON, for dumps.
 *
 * @module
 */
import type { Entry, Store } from "./store.ts";

/**
 * Yields every entry of a store, or those under a prefix. One that is written, removed or expires
 * meanwhile may be among them or not.
 *
 * @param atOnce How many are fetched, and so in memory, at a time: each may be large
 *
 * @example
 * ```ts
 * import { entries, line } from "./entries.ts";
 * import { json } from "./json/text.ts";
 * import { openStore } from "./open.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("twitter", json("@csuf"));
 * for await (const entry of entries(store)) console.log(line(entry)); // {"twitter": "@csuf"}
 * await store.close();
 * ```
 */
export async function* entries(
  store: Store,
  prefix = "",
  atOnce = 100,
): AsyncGenerator<Entry> {
  let after: string | undefined;
  do {
    const { keys, next } = await store.list(prefix, { after });
    while (keys.length > 0) {
      const found = await Promise.all(keys.splice(0, atOnce).map((key) => store.get(key)));
      for (const entry of found) if (entry !== null) yield entry;
    }
    after = next ?? undefined;
  } while (after !== undefined);
}

/** Returns the line of an entry, without its newline: `{"key": value}`. */
export function line({ key, value }: Entry): string {
  return `{${JSON.stringify(key)}: ${value}}`;
}
