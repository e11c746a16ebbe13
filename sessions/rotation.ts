/**
 * Moves a session's entry to another key: five calls, and three more for each update in between.
 *
 * The copy is complete, with the session's whole lifetime, before the old entry is deleted, and the
 * old entry is deleted only while the copy equals it. If the rotation is cut off, the browser holds
 * the id of a living session with every update in it, however long the outage lasts. The old entry
 * names the copy, so that ending the session meanwhile ends the copy too. The tombstone only explains
 * why there is no entry. docs/sessions/outages.md lists what is left at each step.
 */
import { json } from "../stores/json/text.ts";
import {
  type Entry,
  RevisionConflict,
  type RevisionOption,
  type Store,
  StoreUnavailable,
} from "../stores/store.ts";
import { RotationUnknown, SessionRotated } from "./errors.ts";
import type { StoredSession } from "./session_store.ts";

/** What a session store needs of a store: three methods of {@linkcode Store}. */
export type SessionEntries = Pick<Store, "get" | "set" | "delete">;

/** How long requests with the old id are told that it has moved, in seconds. */
const TOMBSTONE_TTL = 10;

/** How often a rotation copies the session, if updates come between. */
const MAX_COPIES = 4;

/** A move of an entry to another key. */
export interface Move {
  readonly entry: Entry;
  readonly to: string;
  /** Writes the session of an entry under the new key. */
  copy(entry: Entry): Promise<StoredSession>;
  /** Notes in the old entry where it moves to. Throws a RevisionConflict if it has changed. */
  mark(entry: Entry): Promise<Entry>;
}

/**
 * Moves an entry. Returns the session under the new key, or null if another request has removed the
 * entry.
 *
 * @throws {RotationUnknown} If the entry may be gone, and the session lives under the new key
 */
export async function moveEntry(store: SessionEntries, move: Move): Promise<StoredSession | null> {
  // If this fails, too, the copy ends by itself.
  const deleteCopy = () => Promise.allSettled([store.delete(move.to)]);
  try {
    const moved = await tryMove(store, move, move.entry);
    if (moved === null) await deleteCopy();
    return moved;
  } catch (error) {
    if (!(error instanceof RotationUnknown)) await deleteCopy();
    throw error;
  }
}

async function tryMove(
  store: SessionEntries,
  move: Move,
  entry: Entry,
  copies = 1,
): Promise<StoredSession | null> {
  // Both come before the delete: whoever finds no entry learns why, and the session is safe.
  const [copy] = await Promise.all([move.copy(entry), setTombstone(store, entry.key)]);
  try {
    const { revision } = await move.mark(entry);
    await remove(store, entry.key, copy, { ifRevision: revision });
    return copy;
  } catch (error) {
    if (!(error instanceof RevisionConflict)) throw error;
    if (error.current === null) return null;
    if (copies < MAX_COPIES) return await tryMove(store, move, error.current, copies + 1);
  }
  // Whoever knows the old id must not be able to delay a login for ever.
  const removed = await remove(store, entry.key, copy, {});
  if (removed === null) return null;
  return await move.copy(removed).catch((error) => {
    throw new RotationUnknown(copy, error);
  });
}

/** Async, since the store of an app may throw at once, while the copy is under way. */
async function setTombstone(store: SessionEntries, key: string): Promise<void> {
  await store.set(tombstoneOf(key), json(true), { ttl: TOMBSTONE_TTL });
}

async function remove(
  store: SessionEntries,
  key: string,
  copy: StoredSession,
  condition: RevisionOption,
): Promise<Entry | null> {
  return await store.delete(key, condition).catch((error) => {
    const isUnknown = error instanceof StoreUnavailable && error.outcome === "unknown";
    throw isUnknown ? new RotationUnknown(copy, error) : error;
  });
}

/** @throws {SessionRotated} If the entry of this key has just been moved to another */
export async function checkMoved(store: SessionEntries, key: string): Promise<void> {
  if (await store.get(tombstoneOf(key)) !== null) throw new SessionRotated();
}

/** A key of its own, not a value under the id: no data is reserved, and ending a session is one call. */
function tombstoneOf(key: string): string {
  return `${key}.rotated`;
}
