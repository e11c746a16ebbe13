/**
 * How entries, conditions and ttls are written in Redis, and what replies there are.
 *
 * @module
 */
import { ReplyError } from "ioredis";
import { expiry } from "../checks.ts";
import { byteLength } from "../json/text.ts";
import { type Entry, type JsonText, MAX_VALUE_BYTES, StoreUnavailable } from "../store.ts";

/** The longest entry, in bytes: a revision, 15 digits of a time, two spaces, and a value. */
export const MAX_ENTRY_BYTES = 36 + 15 + 2 + MAX_VALUE_BYTES;

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
function isPacked(reply: unknown): reply is string | null {
  return reply === null || typeof reply === "string";
}

/** What PUT returns that has written: whether nothing was there, and when the entries expire. */
export type PutReply = [created: number, expires: string];
/** What REMOVE returns that has removed: the entry, if there was one. */
export type RemoveReply = [entry: string | null];

/** Whether PUT has returned that it wrote. */
export function isPutReply(reply: unknown[]): reply is PutReply {
  const [created, expires] = reply;
  return typeof created === "number" && typeof expires === "string" && EXPIRES.test(expires);
}

/** Whether REMOVE has returned what it removed. */
export function isRemoveReply(reply: unknown[]): reply is RemoveReply {
  return isPacked(reply[0]);
}

/**
 * Returns a script's reply: what it has done, or the entry that did not meet the condition.
 *
 * @throws {Error} If it is neither; then it is not known whether anything was written
 */
export function checkReply<Done extends unknown[]>(
  reply: unknown,
  condition: string,
  isDone: (values: unknown[]) => values is Done,
): Done | string | null {
  if (Array.isArray(reply) && isDone(reply)) return reply;
  if (!Array.isArray(reply) && condition !== "" && isPacked(reply)) return reply;
  throw new Error("its reply is unexpected");
}

/**
 * Reads an entry: `<revision> <expires or -> <value>`.
 *
 * @param outcome Of the call, if the entry cannot be read
 * @throws {StoreUnavailable} If another program wrote it
 */
export function decode(
  key: string,
  packed: unknown,
  outcome: StoreUnavailable["outcome"] = "unchanged",
): Entry | null {
  if (!isPacked(packed)) {
    throw new StoreUnavailable(`Cannot read "${key}": the reply is unexpected`, { outcome });
  }
  if (packed === null) return null;
  const [head, revision, expires] = ENTRY.exec(packed) ?? [];
  const isTooLong = byteLength(packed, MAX_ENTRY_BYTES) > MAX_ENTRY_BYTES;
  if (isTooLong || head === undefined || revision === undefined || expires === undefined) {
    throw new StoreUnavailable(
      `Cannot read "${key}": another program wrote it; give the store's URL a ?prefix= of its own`,
      { outcome },
    );
  }
  const value = packed.slice(head.length) as JsonText;
  return { key, value, revision, expires: timeOf(expires) };
}

/** Whether the server has answered with an error, which begins with `code`: then nothing was done. */
export function isRefusal(error: unknown, code = ""): error is Error {
  return error instanceof ReplyError && (error as Error).message.startsWith(code);
}
