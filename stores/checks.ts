/**
 * The checks of a store's arguments.
 *
 * @module
 */
import { byteLength } from "./json_text.ts";
import {
  type Entry,
  InvalidArgument,
  MAX_KEY_BYTES,
  MAX_PAGE,
  MAX_TTL,
  RevisionConflict,
  StoreUnavailable,
} from "./store.ts";

/** @throws {InvalidArgument} If `key` is no key */
export function checkKey(key: string): void {
  if (key === "" || key === "." || key === "..") {
    throw new InvalidArgument("key", `Cannot use the key "${key}": expected any other text`);
  }
  if (!key.isWellFormed()) {
    throw new InvalidArgument("key", "Cannot use the key: it has half of a surrogate pair");
  }
  if (byteLength(key, MAX_KEY_BYTES) > MAX_KEY_BYTES) {
    throw new InvalidArgument("key", `Cannot use the key: it is over ${MAX_KEY_BYTES} bytes`);
  }
}

/**
 * The moment when an entry written `now` expires, in milliseconds, or null: never.
 *
 * @throws {InvalidArgument} If `ttl` is no whole number from 1 to {@linkcode MAX_TTL}
 */
export function expiry(ttl: number | undefined, now: number): number | null {
  if (ttl === undefined) return null;
  if (!Number.isInteger(ttl) || ttl < 1 || ttl > MAX_TTL) {
    throw new InvalidArgument(
      "ttl",
      `Cannot keep an entry for "${ttl}" seconds: expected a whole number from 1 to ${MAX_TTL}`,
    );
  }
  return now + ttl * 1000;
}

/** @throws {InvalidArgument} If no key can begin with `prefix`, which is no well-formed text */
export function checkPrefix(prefix: string): void {
  if (!prefix.isWellFormed()) {
    throw new InvalidArgument("prefix", "Cannot use the prefix: it has half of a surrogate pair");
  }
}

/** @throws {InvalidArgument} If `limit` is no whole number from 1 to {@linkcode MAX_PAGE} */
export function checkLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
    throw new InvalidArgument(
      "limit",
      `Cannot list "${limit}" keys: expected a whole number from 1 to ${MAX_PAGE}`,
    );
  }
}

/** @throws {RevisionConflict} If `current` is not what `ifRevision` asks for */
export function checkRevision(
  key: string,
  current: Entry | null,
  ifRevision: string | null | undefined,
): void {
  if (ifRevision !== undefined && ifRevision !== (current?.revision ?? null)) {
    throw new RevisionConflict(key, current);
  }
}

/** The error of every call to a store that was closed. */
export function closedStore(): StoreUnavailable {
  return new StoreUnavailable("The store is closed", { outcome: "unchanged" });
}
