/**
 * Sessions kept in a store, with a random id in the cookie and the data under that id.
 *
 * An update is compare-and-swap: it writes only over the revision that it was computed from, and is
 * computed again if another request was faster. Updates of one session in one process wait for each
 * other instead. The entry last seen is tried first, so that an update mostly costs one call; a
 * stale one is found out by the store, never believed.
 *
 * @module
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { LRUCache } from "lru-cache";
import { Buffer } from "node:buffer";
import { setTimeout as delay } from "node:timers/promises";
import { checkRevision } from "../stores/checks.ts";
import { json } from "../stores/json_text.ts";
import {
  type Entry,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";
import {
  type LifetimeOptions,
  Lifetimes,
  type LivingSession,
  RotationUnknown,
  SessionRotated,
  type SessionStore,
  type StoredSession,
} from "./session_store.ts";

/** How often a change is tried before it is given up: each time another writer was faster. */
const MAX_ATTEMPTS = 64;
/** About how much memory the entries last seen may take, in bytes. */
const REMEMBERED_BYTES = 32 * 1024 * 1024;
/** What one of them takes beside its key and its value. */
const ENTRY_BYTES = 240;
/** What stands under an id that was rotated away, so that requests under way are told. */
const ROTATED = json({ _rotated: true });
/** How long that stands there, in seconds. */
const ROTATED_TTL = 10;
const UUID4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** What {@linkcode KeyValueSessionStore} takes beside the store. */
export interface KeyValueStoreOptions extends LifetimeOptions {
  /**
   * Whether the store's key is a hash of the id, so that whoever reads the store, or its logs, cannot
   * take over a session. By default the id itself, as in Flask apps that share the store.
   */
  hashIds?: boolean;
}

/**
 * Keeps sessions in a store, which stays the caller's to close.
 *
 * @example
 * ```ts
 * import { KeyValueSessionStore } from "../sessions.ts";
 * import { openStore } from "../stores/open.ts";
 *
 * const store = await openStore(":memory:");
 * const sessionStore = new KeyValueSessionStore(store, { lifetime: 3600 });
 * const { cookie } = await sessionStore.update(null, () => Promise.resolve({ count: 1 }));
 * console.log((await store.get(cookie))?.value); // {"count":1}
 * await store.close();
 * ```
 */
export class KeyValueSessionStore implements SessionStore {
  readonly lifetime: number;
  readonly #store: Store;
  readonly #lifetimes: Lifetimes;
  readonly #hashIds: boolean;
  readonly #lastSeen = new LRUCache<string, Entry>({
    maxSize: REMEMBERED_BYTES,
    sizeCalculation: ({ key, value }) => ENTRY_BYTES + key.length + value.length,
  });
  /** The last update of each session that has one under way. */
  readonly #turns = new Map<string, Promise<unknown>>();

  /** @throws {TypeError} If a lifetime is invalid */
  constructor(store: Store, options: KeyValueStoreOptions = {}) {
    this.#store = store;
    this.#lifetimes = new Lifetimes(options);
    this.lifetime = this.#lifetimes.idle;
    this.#hashIds = options.hashIds ?? false;
  }

  async load(id: string): Promise<StoredSession | null> {
    if (!UUID4.test(id)) return null;
    const key = this.#key(id);
    const entry = await this.#store.get(key);
    const session = this.#unpack(entry);
    if (entry === null || session === null) return null;
    this.#lastSeen.set(key, entry);
    const left = (entry.expires ?? 0) / 1000 - this.#lifetimes.now();
    const renewed = this.#lifetimes.isStale(session, left) && await this.#renew(entry, session);
    return { cookie: id, data: session.data, renewed };
  }

  async update(
    id: string | null,
    change: (data: unknown) => Promise<object>,
  ): Promise<StoredSession> {
    if (id === null || !UUID4.test(id)) return await this.#begin(change);
    const key = this.#key(id);
    return await this.#inTurn(key, () =>
      this.#overLast(key, async (entry) => {
        const before = this.#unpack(entry);
        if (entry === null || before === null) return await this.#begin(change);
        const data = await change(before.data).catch(async (error) => {
          // What was last seen may be old, and the change refuse only that.
          checkRevision(key, await this.#store.get(key), entry.revision);
          throw error;
        });
        await this.#write(key, { ...before, data }, entry.revision);
        return { cookie: id, data, renewed: true };
      }));
  }

  async rotate(id: string): Promise<StoredSession | null> {
    if (!UUID4.test(id)) return null;
    const oldKey = this.#key(id);
    const newId = crypto.randomUUID();
    const newKey = this.#key(newId);
    return await this.#inTurn(oldKey, async () => {
      let entry = await this.#store.get(oldKey);
      let copy: Entry | null = null;
      for (;;) {
        // The session was ended or rotated meanwhile, and so its copy has to go.
        const isOver = entry === null || entry.value === ROTATED;
        if (isOver && copy !== null) await this.#store.delete(newKey);
        const session = this.#unpack(entry);
        if (entry === null || session === null) return null;
        copy = await this.#write(newKey, session, copy?.revision ?? null);
        try {
          this.#lastSeen.delete(oldKey);
          const ttl = ROTATED_TTL;
          await this.#store.set(oldKey, ROTATED, { ttl, ifRevision: entry.revision });
          return { cookie: newId, data: session.data, renewed: true };
        } catch (error) {
          if (error instanceof StoreUnavailable) {
            throw error.outcome === "unknown" ? new RotationUnknown(newId, error) : error;
          }
          if (!(error instanceof RevisionConflict)) {
            await this.#store.delete(newKey);
            throw error;
          }
          // Another request has changed the session: its data has to be copied.
          entry = error.current;
        }
      }
    });
  }

  async destroy(id: string): Promise<void> {
    if (!UUID4.test(id)) return;
    const key = this.#key(id);
    await this.#inTurn(key, () =>
      this.#overLast(key, async (entry) => {
        // Not removed: the requests that come after this one have to be told, too.
        if (entry?.value === ROTATED) throw new SessionRotated();
        this.#lastSeen.delete(key);
        if (entry !== null) await this.#store.delete(key, { ifRevision: entry.revision });
      }));
  }

  /**
   * Runs `write` over the entry last seen, and over the current one each time that another writer
   * was faster.
   *
   * @throws {StoreUnavailable} If that was so too often
   */
  async #overLast<T>(key: string, write: (entry: Entry | null) => Promise<T>): Promise<T> {
    let entry = this.#lastSeen.get(key) ?? await this.#store.get(key);
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      try {
        return await write(entry);
      } catch (error) {
        if (!(error instanceof RevisionConflict)) throw error;
        entry = error.current;
      }
      // Writers in step would meet again and again.
      if (attempt > 2) await delay(Math.random() * attempt);
    }
    throw new StoreUnavailable("The session has too many writers", { outcome: "unchanged" });
  }

  async #begin(change: (data: unknown) => Promise<object>): Promise<StoredSession> {
    const id = crypto.randomUUID();
    const data = await change(null);
    await this.#write(this.#key(id), { data, created: this.#lifetimes.now() }, null);
    return { cookie: id, data, renewed: true };
  }

  async #write(key: string, session: LivingSession, ifRevision: string | null): Promise<Entry> {
    this.#lastSeen.delete(key);
    // The session's last second may have passed since it was read.
    const ttl = Math.max(1, this.#lifetimes.left(session));
    const entry = await this.#store.set(key, json(this.#lifetimes.pack(session)), {
      ttl,
      ifRevision,
    });
    this.#lastSeen.set(key, entry);
    return entry;
  }

  /**
   * Whether it was renewed: somebody faster has done it already, or ended or rotated the session, or
   * there is no room, and it lasts as long as it did.
   */
  async #renew({ key, revision }: Entry, session: LivingSession): Promise<boolean> {
    try {
      await this.#write(key, session, revision);
      return true;
    } catch (error) {
      if (error instanceof RevisionConflict || error instanceof StoreFull) return false;
      throw error;
    }
  }

  /** @throws {SessionRotated} If the session lives on under another id */
  #unpack(entry: Entry | null): LivingSession | null {
    if (entry?.value === ROTATED) throw new SessionRotated();
    return entry && this.#lifetimes.unpack(entry.value);
  }

  #key(id: string): string {
    return this.#hashIds ? Buffer.from(sha256(Buffer.from(id))).toString("hex") : id;
  }

  /**
   * Runs one update of a session after the other. Those that wait behind one that the store did not
   * answer fail with it: each would wait for another deadline.
   */
  async #inTurn<T>(key: string, run: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(key);
    const turn = before === undefined ? run() : before.then(run);
    const settled = turn.catch((error) => {
      // Those that wait bear the old id, and are not to learn the new one.
      if (error instanceof RotationUnknown) throw error.cause;
      if (error instanceof StoreUnavailable) throw error;
    });
    // Nobody may be waiting behind this one.
    settled.catch(() => {});
    this.#turns.set(key, settled);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(key) === settled) this.#turns.delete(key);
    }
  }
}
