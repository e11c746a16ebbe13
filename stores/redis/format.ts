/** How entries and conditions are written in Redis, and what replies there are. */
import { ReplyError } from "ioredis";
import { byteLength } from "../json/text.ts";
import { type Entry, type JsonText, MAX_VALUE_BYTES, StoreUnavailable } from "../store.ts";

/** The longest entry, in bytes: a revision, 15 digits of a time, two spaces, and a value. */
export const MAX_ENTRY_BYTES = 36 + 15 + 2 + MAX_VALUE_BYTES;

const ENTRY = /^([\da-f-]{36}) (-|\d{1,15}) /;

/** What ioredis says of a command without a connection. */
const NO_CONNECTION =
  /^(Connection is closed|Stream isn't writeable|Cluster isn't ready|None of startup nodes|Reached the max retries)/;

/** What to say of a key that has no entry. */
export const FOREIGN =
  "Cannot read an entry: another program wrote it; give the store's URL a ?prefix= of its own";

/** Returns a condition as the scripts take it. */
export function conditionOf(ifRevision: string | null | undefined): string {
  if (ifRevision === undefined) return "";
  return ifRevision === null ? "!" : `=${ifRevision}`;
}

/** Returns when an entry expires, in milliseconds since 1970, or null: never. */
export function timeOf(expires: string): number | null {
  return expires === "-" ? null : Number(expires);
}

/** Whether a reply is when an entry expires: a time that a `Date` can hold, or never. */
export function isExpiry(reply: unknown): reply is string {
  return typeof reply === "string" && /^(?:-|\d{1,15})$/.test(reply);
}

/** Whether a reply is an entry or nothing: a server may answer anything. */
export function isPacked(reply: unknown): reply is string | null {
  return reply === null || typeof reply === "string";
}

/**
 * Reads an entry: `<revision> <expires or -> <value>`. Errors do not name the key, which may be a
 * session id, since servers log them.
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
    throw new StoreUnavailable("Cannot read an entry: the reply is unexpected", { outcome });
  }
  if (packed === null) return null;
  const [head, revision, expires] = ENTRY.exec(packed) ?? [];
  const isTooLong = byteLength(packed, MAX_ENTRY_BYTES) > MAX_ENTRY_BYTES;
  if (isTooLong || head === undefined || revision === undefined || expires === undefined) {
    throw new StoreUnavailable(FOREIGN, { outcome });
  }
  const value = packed.slice(head.length) as JsonText;
  return { key, value, revision, expires: timeOf(expires) };
}

/**
 * Whether the server has answered with an error, which begins with `code`: then nothing was done. An
 * error without a code is that of a proxy, which may have lost the answer.
 */
export function isRefusal(error: unknown, code = ""): error is Error {
  if (!(error instanceof ReplyError)) return false;
  const { message } = error as Error;
  return /^[A-Z]+\b/.test(message) && message.startsWith(code);
}

/** Whether a command had no connection: the reason came as an event. */
export function hasNoConnection(error: unknown): boolean {
  return error instanceof Error && NO_CONNECTION.test(error.message);
}
