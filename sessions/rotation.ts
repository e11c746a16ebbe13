/**
 * Moving a session's entry to another key: four calls, and a fifth if an update came between.
 *
 * The copy is complete, and has the session's whole lifetime, before the old entry is deleted: if the
 * rotation is cut off, the browser holds the id of a living session, however long the outage lasts.
 * The tombstone only explains why there is no entry. What docs/sessions/outages.md lists is left at
 * each step.
 *
 * @module
 */
import { json } from "../stores/json/text.ts";
import { type Entry, type Store, StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown, SessionRotated } from "./errors.ts";

/** What a session store needs of a store: three methods of {@linkcode Store}. */
export type SessionEntries = Pick<Store, "get" | "set" | "delete">;

/** How long requests with an id that was rotated away are told so, in seconds. */
const TOMBSTONE_TTL = 10;

/** A move of an entry to another key. */
export interface Move<Written> {
  readonly entry: Entry;
  readonly to: string;
  /** The cookie for the new key. */
  readonly cookie: string;
  /** Writes what an entry holds under the new key. */
  write(entry: Entry): Promise<Written>;
}

/**
 * Moves an entry, whatever its revision is by now, so that no other request can delay it. Returns
 * what was written under the new key, or null if another request has removed the entry.
 *
 * @throws {RotationUnknown} If the entry may be gone, and the session lives under the new key
 */
export async function moveEntry<Written>(
  store: SessionEntries,
  { entry, to, cookie, write }: Move<Written>,
): Promise<Written | null> {
  try {
    // Both come before the delete: whoever finds no entry learns why, and the session is safe.
    const [copy] = await Promise.all([
      write(entry),
      store.set(tombstoneOf(entry.key), json(true), { ttl: TOMBSTONE_TTL }),
    ]);
    const removed = await store.delete(entry.key).catch((error) => {
      const isUnknown = error instanceof StoreUnavailable && error.outcome === "unknown";
      throw isUnknown ? new RotationUnknown(cookie, error) : error;
    });
    if (removed?.revision === entry.revision) return copy;
    if (removed !== null) {
      return await write(removed).catch((error) => {
        throw new RotationUnknown(cookie, error);
      });
    }
  } catch (error) {
    if (!(error instanceof RotationUnknown)) await undo();
    throw error;
  }
  await undo();
  return null;

  async function undo(): Promise<void> {
    // If this fails, too, the copy ends by itself.
    await Promise.allSettled([store.delete(to)]);
  }
}

/** @throws {SessionRotated} If the entry of this key has just been moved to another */
export async function checkMoved(store: SessionEntries, key: string): Promise<void> {
  if (await store.get(tombstoneOf(key)) !== null) throw new SessionRotated();
}

/** A key of its own, not a value under the id: no data is reserved, and ending a session is one call. */
function tombstoneOf(key: string): string {
  return `${key}.rotated`;
}
