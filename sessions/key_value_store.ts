/**
 * Sessions in a key-value store, with a random id in the cookie and the data under that id.
 *
 * An update states the revision that it is based on, and the store rejects it if the entry has
 * changed since; then it is computed again, on the newer entry. The entry seen last is cached and
 * tried first, so that an update mostly costs one call. If it is outdated, the store says so.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { validate as isUuid } from "@std/uuid/v4";
import { LRUCache } from "lru-cache";
import { json } from "../stores/json/text.ts";
import {
  type Entry,
  RevisionConflict,
  StoreFull,
  StoreUnavailable,
  ValueTooLarge,
} from "../stores/store.ts";
import { KeyedQueue } from "./keyed_queue.ts";
import { LIFETIME_OPTIONS, type LifetimeOf, type LifetimeOptions, Lifetimes } from "./lifetimes.ts";
import { checkMethods, checkOptions } from "./options.ts";
import { checkMoved, moveEntry, type SessionEntries } from "./rotation.ts";
import { readRecord, type SessionRecord, writeRecord } from "./session_record.ts";
import type { DataChange, SessionStore, StoredSession } from "./session_store.ts";

/** How long an update is tried while other writers are faster, in milliseconds. */
const MAX_TRYING = 5000;
/** The memory of a cached entry beside its key and value, in bytes. */
const ENTRY_BYTES = 240;
/** What {@linkcode KeyValueSessionStore} takes beside the store. */
export interface KeyValueSessionOptions extends LifetimeOptions {
  /**
   * Whether the store's key is a hash of the id, so that whoever reads the store, or its logs, cannot
   * take over a session. By default the id itself, as in Flask apps that share the store.
   */
  hashIds?: boolean;
}

interface InternalOptions {
  prefix?: string;
  lifetimeOf?: LifetimeOf | undefined;
  /** About how much memory cached entries may take, in bytes: by default 32 MiB. */
  cacheBytes?: number;
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
 * const { cookie } = await sessionStore.create({ count: 1 });
 * console.log((await store.get(cookie))?.value); // {"count":1}
 * await store.close();
 * ```
 */
export class KeyValueSessionStore implements SessionStore {
  readonly lifetime: number;
  readonly now: () => number;
  readonly #store: SessionEntries;
  readonly #with: (changes: InternalOptions) => KeyValueSessionStore;
  /** The store's key for an id. */
  readonly #keyFor: (id: string) => string;
  readonly #lifetimes: Lifetimes;
  readonly #cache: LRUCache<string, Entry>;
  readonly #queue = new KeyedQueue();
  /** How far the store's clock is ahead of ours, in milliseconds; null until a write shows it. */
  #clockAhead: number | null = null;
  #lastTime = -Infinity;

  /**
   * Keeps sessions in `store`, which the caller closes.
   *
   * @throws {TypeError} If a lifetime is invalid
   */
  constructor(
    store: SessionEntries,
    options: KeyValueSessionOptions = {},
    { prefix = "", lifetimeOf, cacheBytes = 32 * 1024 * 1024 }: InternalOptions = {},
  ) {
    checkMethods(store, ["get", "set", "delete"], "a store, as await openStore(url) gives it");
    checkOptions("new KeyValueSessionStore()", options, {
      ...LIFETIME_OPTIONS,
      hashIds: "boolean",
    });
    this.#store = store;
    this.#with = (changes) =>
      new KeyValueSessionStore(store, options, { prefix, lifetimeOf, cacheBytes, ...changes });
    this.#keyFor = (id) => prefix + (options.hashIds ? bytesToHex(sha256(utf8ToBytes(id))) : id);
    this.#cache = new LRUCache({
      maxSize: cacheBytes,
      sizeCalculation: ({ key, value }) => ENTRY_BYTES + key.length + value.length,
    });
    this.#lifetimes = new Lifetimes(options, lifetimeOf);
    this.lifetime = this.#lifetimes.longest;
    this.now = this.#lifetimes.clock;
  }

  named(name: string): KeyValueSessionStore {
    return this.#with({ prefix: `${name}:` });
  }

  withLifetime(lifetimeOf: LifetimeOf): KeyValueSessionStore {
    return this.#with({ lifetimeOf });
  }

  async load(id: string, isLate = false): Promise<StoredSession | null> {
    const key = this.#keyOf(id);
    if (key === null) return null;
    const entry = await this.#store.get(key);
    if (entry === null) {
      await checkMoved(this.#store, key);
      return null;
    }
    const record = this.#living(entry);
    if (record === null) return null;
    this.#cache.set(key, entry);
    if (isLate) return this.#asStored(id, entry, record);
    return await this.#use(id, entry, record, this.#ttlFor(record));
  }

  async create(data: object): Promise<StoredSession> {
    const id = crypto.randomUUID();
    const record = { data, created: this.#lifetimes.now(), isDated: true };
    try {
      return await this.#write(id, this.#keyFor(id), record, null);
    } catch (cause) {
      // Nobody else has this id. The error holds it, and the data.
      if (!(cause instanceof RevisionConflict)) throw cause;
      throw new StoreUnavailable("A new session was written twice", { outcome: "unknown" });
    }
  }

  async update(id: string, change: DataChange, isLate = false): Promise<StoredSession | null> {
    const key = this.#keyOf(id);
    if (key === null) return null;
    // In turn within this process: in parallel they would only conflict with each other.
    return await this.#queue.run(key, async () => {
      const cached = this.#cache.get(key) ?? null;
      let entry = cached ?? await this.#store.get(key);
      const end = performance.now() + MAX_TRYING; // a read may have taken longer
      for (let conflicts = 0; performance.now() < end; conflicts++) {
        try {
          const updated = await this.#tryUpdate(id, key, entry, change, entry === cached, isLate);
          // While others write, the next update reads first. Otherwise this process, which knows the
          // newest entry, would often write again before the others try again.
          if (conflicts > 0) this.#cache.delete(key);
          return updated;
        } catch (error) {
          if (!(error instanceof RevisionConflict)) throw error;
          // Retry at once with the newer entry: with growing back-off, a writer could starve.
          entry = error.current;
        }
      }
      throw new StoreUnavailable("The session has too many writers", { outcome: "unchanged" });
    });
  }

  async rotate(id: string): Promise<StoredSession | null> {
    const from = this.#keyOf(id);
    if (from === null) return null;
    return await this.#queue.run(from, async () => {
      const entry = await this.#store.get(from);
      if (entry === null || this.#living(entry) === null) return null;
      const cookie = crypto.randomUUID();
      const to = this.#keyFor(cookie);
      const read = ({ value }: Entry) => readRecord(value, this.#lifetimes.now());
      const moved = await moveEntry(this.#store, {
        entry,
        to,
        copy: (entry) => this.#write(cookie, to, { ...read(entry), movingTo: undefined }),
        mark: async (entry) => {
          try {
            const marked = { ...read(entry), movingTo: to };
            const ttl = this.#lateTtlFor(marked, entry);
            return await this.#set(from, marked, entry.revision, ttl);
          } catch (error) {
            // The largest session moves without the note. Cut off, the copy then ends by itself.
            if (error instanceof ValueTooLarge) return entry;
            throw error;
          }
        },
      });
      this.#cache.delete(from);
      return moved;
    });
  }

  /** Other requests cannot bring it back: their update finds no session, and creates a new one. */
  async destroy(id: string): Promise<void> {
    const key = this.#keyOf(id);
    if (key === null) return;
    this.#cache.delete(key);
    const removed = await this.#store.delete(key);
    if (removed === null) return await checkMoved(this.#store, key);
    const { movingTo } = readRecord(removed.value, this.#lifetimes.now());
    if (movingTo === undefined) return;
    // A rotation is under way, or was cut off: it must not bring the session back.
    await this.#store.delete(movingTo).catch((cause) => {
      throw new StoreUnavailable(cause.message, { cause, outcome: "unknown" });
    });
  }

  /** @throws {RevisionConflict} If the entry is outdated */
  async #tryUpdate(
    id: string,
    key: string,
    entry: Entry | null,
    change: DataChange,
    isCached: boolean,
    isLate: boolean,
  ): Promise<StoredSession | null> {
    if (entry === null) {
      await checkMoved(this.#store, key);
      return null;
    }
    const record = this.#living(entry);
    if (record === null) return null;
    let data: object | null;
    try {
      data = await change(record.data);
    } catch (error) {
      // The cached entry may be stale; check before reporting the error.
      if (isCached) await this.#checkCurrent(entry);
      throw error;
    }
    const changed = data === null ? record : { ...record, data };
    const ttl = isLate ? this.#lateTtlFor(changed, entry) : this.#ttlFor(changed);
    if (data !== null) return await this.#write(id, key, changed, entry.revision, ttl);
    if (isCached) await this.#checkCurrent(entry);
    return await this.#use(id, entry, record, ttl);
  }

  /** @throws {RevisionConflict} If the store has another entry by now */
  async #checkCurrent({ key, revision }: Entry): Promise<void> {
    const current = await this.#store.get(key);
    if (current?.revision !== revision) throw new RevisionConflict(key, current);
  }

  /** Returns the session that an entry holds, or null if its time is over. */
  #living({ value }: Entry): SessionRecord | null {
    const record = readRecord(value, this.#lifetimes.now());
    return this.#lifetimes.secondsLeft(record) > 0 ? record : null;
  }

  async #use(
    id: string,
    entry: Entry,
    record: SessionRecord,
    ttl: number,
  ): Promise<StoredSession> {
    // A late call renews for less: the entry is due a tenth of the lifetime below that.
    const missing = this.#ttlFor(record) - ttl;
    if (this.#lifetimes.needsRenewal(record, (this.#ttlOf(entry) ?? 0) + missing)) {
      try {
        return await this.#write(id, entry.key, record, entry.revision, ttl);
      } catch (error) {
        // Another request was faster, or the store is full: the session ends when it would have.
        const isHarmless = error instanceof RevisionConflict || error instanceof StoreFull;
        if (!isHarmless) throw error;
      }
    }
    return this.#asStored(id, entry, record);
  }

  #asStored(id: string, entry: Entry, record: SessionRecord): StoredSession {
    const ttl = this.#ttlOf(entry) ?? this.#ttlFor(record);
    return { cookie: id, data: record.data, ttl, renewed: false };
  }

  async #write(
    id: string,
    key: string,
    record: SessionRecord,
    ifRevision?: string | null,
    ttl = this.#ttlFor(record),
  ): Promise<StoredSession> {
    await this.#set(key, record, ifRevision, ttl);
    return { cookie: id, data: record.data, ttl, renewed: true };
  }

  async #set(
    key: string,
    record: SessionRecord,
    ifRevision: string | null | undefined,
    ttl: number,
  ): Promise<Entry> {
    const text = json(writeRecord(record, this.#lifetimes.absolute !== Infinity));
    try {
      const entry = await this.#store.set(key, text, { ttl, ifRevision });
      this.#cache.set(key, entry);
      const { expires } = entry;
      if (expires !== null) this.#clockAhead = expires - ttl * 1000 - this.#now() * 1000;
      return entry;
    } catch (error) {
      this.#cache.delete(key);
      throw error;
    }
  }

  /** Seconds for which a session is stored: at least one, even if its time has just ended. */
  #ttlFor(record: SessionRecord): number {
    return Math.max(1, this.#lifetimes.secondsLeft(record));
  }

  /**
   * The same for a write that sends no cookie: as long as the entry lives already, or so short that
   * the next page renews it, and sends the cookie. Otherwise the cookie would end before the session.
   */
  #lateTtlFor(record: SessionRecord, entry: Entry): number {
    const idle = this.#lifetimes.idle(record);
    const left = this.#ttlFor(record);
    const before = this.#ttlOf(entry) ?? (left < idle ? left : 0);
    return Math.min(left, Math.max(1, before, Math.floor(left - idle / 10) - 1));
  }

  /**
   * Seconds until an entry expires, or null if unknown: `expires` is a time of the store's clock, and
   * only a write shows how far that clock is from ours.
   */
  #ttlOf({ expires }: Entry): number | null {
    const now = this.#now();
    if (expires === null || this.#clockAhead === null) return null;
    return Math.floor((expires - this.#clockAhead) / 1000) - now;
  }

  /** Whole seconds since 1970. Once our clock was set back, we no longer know how far the other is ahead. */
  #now(): number {
    const now = this.#lifetimes.now();
    if (now < this.#lastTime) this.#clockAhead = null;
    return this.#lastTime = now;
  }

  /** Returns the store's key for a cookie, or null: what is not an id costs no call. */
  #keyOf(cookie: string): string | null {
    return isUuid(cookie) ? this.#keyFor(cookie) : null;
  }
}
