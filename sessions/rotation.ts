/**
 * Moving a session's entry to another key, in a number of calls that no other request can raise.
 *
 * @module
 */
import { json, type JsonText } from "../stores/json/text.ts";
import { type Entry, RevisionConflict, type Store, StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown, SessionRotated } from "./errors.ts";

/** What a session store needs of a store: three methods of {@linkcode Store}. */
export type SessionEntries = Pick<Store, "get" | "set" | "delete">;

/** How long requests with an id that was rotated away are told so, in seconds. */
const TOMBSTONE_TTL = 10;
/** How long a rotation that is cut off may leave a copy of the session, in seconds. */
const COPY_TTL = 60;

/** A move of an entry from one key to another. */
export interface Move {
  readonly from: string;
  readonly to: string;
  /** The session as it was when the move began, and how long it may live, in seconds. */
  readonly copy: JsonText;
  readonly ttl: number;
  /** The cookie for the new key. */
  readonly cookie: string;
}

/**
 * Removes an entry and returns it, for the caller to write under the new key; null if another
 * request has removed it. The entry is removed whatever its revision, so that every update which
 * was done before is in it. In between, a copy under the new key keeps the session safe.
 *
 * @throws {SessionRotated} If another request moves the entry
 * @throws {RotationUnknown} If it is not known whether the entry was removed
 */
export async function moveEntry(store: SessionEntries, move: Move): Promise<Entry | null> {
  await announce(store, move.from);
  try {
    await store.set(move.to, move.copy, { ttl: Math.min(COPY_TTL, move.ttl) });
    const removed = await remove(store, move);
    if (removed === null) await undo(store, move);
    return removed;
  } catch (error) {
    if (!(error instanceof RotationUnknown)) await undo(store, move);
    throw error;
  }
}

/** @throws {SessionRotated} If the entry of this key has just been moved to another */
export async function checkMoved(store: SessionEntries, key: string): Promise<void> {
  if (await store.get(tombstoneOf(key)) !== null) throw new SessionRotated();
}

/** Comes first, so that every request which finds no entry is told that it was moved. */
async function announce(store: SessionEntries, key: string): Promise<void> {
  try {
    const options = { ttl: TOMBSTONE_TTL, ifRevision: null };
    await store.set(tombstoneOf(key), json(true), options);
  } catch (error) {
    throw error instanceof RevisionConflict ? new SessionRotated() : error;
  }
}

async function remove(store: SessionEntries, { from, cookie }: Move): Promise<Entry | null> {
  try {
    return await store.delete(from);
  } catch (error) {
    const isUnknown = error instanceof StoreUnavailable && error.outcome === "unknown";
    throw isUnknown ? new RotationUnknown(cookie, error) : error;
  }
}

async function undo(store: SessionEntries, { from, to }: Move): Promise<void> {
  // If this fails, too, the copy and the tombstone end by themselves.
  await Promise.allSettled([store.delete(to), store.delete(tombstoneOf(from))]);
}

/** A key of its own, not a value under the id: no data is reserved, and ending a session is one call. */
function tombstoneOf(key: string): string {
  return `${key}.rotated`;
}
