/**
 * How entries, conditions and ttls are written in Redis.
 *
 * @module
 */
import { expiry } from "../checks.ts";
import { type Entry, type JsonText, StoreUnavailable } from "../store.ts";

/** Returns a condition as the scripts take it. */
export function conditionOf(ifRevision: string | null | undefined): string {
  if (ifRevision === undefined) return "";
  return ifRevision === null ? "!" : `=${ifRevision}`;
}

/** Returns a ttl as the script takes it. */
export function milliseconds(ttl: number | undefined): string {
  return String(expiry(ttl, 0) ?? "");
}

/** Returns when an entry expires, in milliseconds since 1970, or null: never. */
export function timeOf(expires: string): number | null {
  return expires === "-" ? null : Number(expires);
}

/**
 * Reads an entry: `<revision> <expires or -> <value>`.
 *
 * @throws {StoreUnavailable} If another program wrote it
 */
export function decode(key: string, packed: string | null): Entry | null {
  if (packed === null) return null;
  const [head, revision, expires] = /^([\da-f-]{36}) (-|\d+) /.exec(packed) ?? [];
  if (head === undefined || revision === undefined || expires === undefined) {
    throw new StoreUnavailable(
      `Cannot read "${key}": another program wrote it; give the store's URL a ?prefix= of its own`,
      { outcome: "unchanged" },
    );
  }
  const value = packed.slice(head.length) as JsonText;
  return { key, value, revision, expires: timeOf(expires) };
}
