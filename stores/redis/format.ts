/**
 * How entries, conditions and ttls are written in Redis.
 *
 * @module
 */
import { expiry } from "../checks.ts";
import { type Entry, type JsonText, StoreUnavailable } from "../store.ts";

/** Milliseconds since 1970, which a `Date` can hold, or never. */
const EXPIRES = /^(?:-|\d{1,15})$/;
const ENTRY = /^([\da-f-]{36}) (-|\d{1,15}) /;

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

/** Whether a reply is an entry or nothing: a server may answer anything. */
export function isPacked(reply: unknown): reply is string | null {
  return reply === null || typeof reply === "string";
}

/** Whether a script has returned that it wrote: whether nothing was there, and when it expires. */
export function isPutReply([created, expires]: unknown[]): boolean {
  return typeof created === "number" && typeof expires === "string" && EXPIRES.test(expires);
}

/** Whether a script has returned what it removed. */
export function isRemoveReply([entry]: unknown[]): boolean {
  return isPacked(entry);
}

/**
 * Returns a script's reply: what it has done, or the entry that did not meet the condition.
 *
 * @throws {Error} If it is neither; then it is not known whether anything was written
 */
export function checkReply<T>(
  reply: T,
  condition: string,
  isDone: (values: unknown[]) => boolean,
): T {
  const isExpected = Array.isArray(reply) ? isDone(reply) : condition !== "" && isPacked(reply);
  if (!isExpected) throw new Error("its reply is unexpected");
  return reply;
}

/**
 * Reads an entry: `<revision> <expires or -> <value>`.
 *
 * @param outcome Of the call, if the entry cannot be read
 * @throws {StoreUnavailable} If another program wrote it
 */
export function decode(
  key: string,
  packed: string | null,
  outcome: StoreUnavailable["outcome"] = "unchanged",
): Entry | null {
  if (packed === null) return null;
  if (!isPacked(packed)) {
    throw new StoreUnavailable(`Cannot read "${key}": the reply is unexpected`, { outcome });
  }
  const [head, revision, expires] = ENTRY.exec(packed) ?? [];
  if (head === undefined || revision === undefined || expires === undefined) {
    throw new StoreUnavailable(
      `Cannot read "${key}": another program wrote it; give the store's URL a ?prefix= of its own`,
      { outcome },
    );
  }
  const value = packed.slice(head.length) as JsonText;
  return { key, value, revision, expires: timeOf(expires) };
}
