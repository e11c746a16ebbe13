/**
 * The contract of a store, which is the same for every engine: memory, a SQLite file, Redis, or a
 * key-value service on another machine. `openStore(url)` opens the one that a URL names.
 *
 * The promises are written on {@linkcode Store}. Every engine passes `tests/conformance/store.ts`.
 */

/** The longest key, in bytes of UTF-8. */
export const MAX_KEY_BYTES = 1024;
/** The largest value, in bytes of JSON text. */
export const MAX_VALUE_BYTES = 1024 * 1024;
/** The deepest nesting of arrays and objects in a value: some JSON parsers fail beyond it. */
export const MAX_DEPTH = 500;
/** The longest ttl, in seconds: about 68 years. */
export const MAX_TTL = 2 ** 31 - 1;
/** The most keys in one page of a listing, and the default. */
export const MAX_PAGE = 1000;
/**
 * How long a call over a network may take, in milliseconds. It is long, since a busy machine may
 * stall for seconds; a call to a server that is known to be down fails at once.
 */
export const DEADLINE = 10_000;

/**
 * JSON text that was checked: well-formed, in one line, at most {@linkcode MAX_VALUE_BYTES} long and
 * {@linkcode MAX_DEPTH} deep. Stores keep text and not JavaScript values, so that every number comes
 * back with all its digits. Made by `json()`; `checked` exists in the type only.
 */
export type JsonText = string & { readonly checked: true };

/** A key and what is stored under it. */
export interface Entry {
  /** The entry's name: 1 to {@linkcode MAX_KEY_BYTES} bytes of UTF-8. */
  readonly key: string;
  /** What was stored under it. */
  readonly value: JsonText;
  /** Identifies the write that made this entry: no other write to this key ever has the same. */
  readonly revision: string;
  /** When the entry expires, in milliseconds since 1970; null: never. */
  readonly expires: number | null;
}

/** An entry that was just written. */
export interface Written extends Entry {
  /** Whether there was no entry under this key before. */
  readonly created: boolean;
}

/** One page of a listing. */
export interface Page {
  /** In code point order, except on Redis. */
  readonly keys: string[];
  /** The `after` of the next page; null if this is the last. */
  readonly next: string | null;
}

/** How long an entry is kept. */
export interface TtlOption {
  /** Seconds, a whole number from 1 to {@linkcode MAX_TTL}; by default the entry never expires. */
  ttl?: number | undefined;
}

/** The condition of a write. */
export interface RevisionOption {
  /** Write only over this revision; null: only if there is no entry; absent: in any case. */
  ifRevision?: string | null | undefined;
}

/**
 * Entries under keys.
 *
 * - A key is any well-formed string of 1 to 1,024 bytes of UTF-8, except `.` and `..`, which a URL
 *   cannot contain. Keys are compared by code point.
 * - A missing entry is `null`, never an error. An error means that the call was wrong
 *   ({@linkcode InvalidArgument}), that the condition did not hold ({@linkcode RevisionConflict}),
 *   or that the store could not do it ({@linkcode StoreUnavailable}, {@linkcode StoreFull}).
 * - The check of `ifRevision` and the write are one atomic step, for every client of the store.
 * - Writes of one caller to one key take effect in the order of the calls.
 * - An entry whose ttl has passed is gone for every reader at that moment.
 * - A promise that resolves means done: on SQLite synced to disk, on Redis acknowledged.
 * - Every call over a network ends within the store's deadline. SQLite waits for other processes no
 *   longer than for 3 seconds, but for its disk as long as that takes.
 */
export interface Store {
  /** Returns the entry under `key`, or null. */
  get(key: string): Promise<Entry | null>;
  /** Writes one entry. An entry that is there loses its value and its ttl. */
  set(key: string, value: JsonText, options?: TtlOption & RevisionOption): Promise<Written>;
  /** Writes all of these entries, or none of them; in a Redis Cluster, of each hash slot. */
  setAll(values: ReadonlyMap<string, JsonText>, options?: TtlOption): Promise<void>;
  /** Removes the entry and returns it, or null if there was none. */
  delete(key: string, options?: RevisionOption): Promise<Entry | null>;
  /**
   * Lists the keys that begin with `prefix`, a page at a time. A key that exists during the whole
   * listing appears in it once. Redis lists in no particular order. A prefix is at most as long as a
   * key, here and in `watch`.
   */
  list(prefix: string, options?: ListOptions): Promise<Page>;
  /**
   * Reports the entries under `prefix` as they change, from now on or since an earlier change. Every
   * write that is called after the promise resolved is reported. Memory and SQLite report what was
   * written through this object; Redis and a service report what anyone wrote.
   *
   * @throws {ChangesLost} If `since` is no longer known; the stream may also end with this error
   */
  watch(prefix: string, options?: WatchOptions): Promise<Watch>;
  /**
   * Counts the entries, including some that have just expired. Missing on stores that would have to
   * list them: Redis, a service, and any store with a prefix.
   */
  count?(): Promise<number>;
  /**
   * Rejects if a read or a write would: also if the store is full, a master of a Redis Cluster is, or
   * the writes of a SQLite file have failed.
   */
  check(): Promise<void>;
  /** Ends watches, waits for pending writes, and closes files and connections. A second call does nothing. */
  close(): Promise<void>;
}

/** Which page of a listing. */
export interface ListOptions {
  /** The `next` of the previous page; absent: the first page. */
  after?: string | undefined;
  /** The most keys to return, from 1 to {@linkcode MAX_PAGE}, which is also the default. */
  limit?: number | undefined;
}

/** Where a watch begins. */
export interface WatchOptions {
  /** The `id` of the last change received, or the `position()` of a watch; absent: from now on. */
  since?: string | undefined;
}

/** Changes as they happen. Cancelling the stream ends the watch. */
export interface Watch {
  /**
   * Returns where the watch is, to resume it. A change counts as read once the next one is asked for,
   * so that none is missed while it is worked on; its `id` is the position right after it. Changes
   * of keys under other prefixes count, too; over a service a few seconds later.
   */
  position(): string;
  /** The changes; cancel it to end the watch. */
  readonly changes: ReadableStream<Change>;
}

/**
 * An entry that changed. It is read when the change is delivered, so several changes of one key in
 * quick succession may all show the last; SQLite reports a key once for each transaction. Expiry is
 * not reported: the entry's `expires` tells it.
 */
export interface Change {
  /** Names this change, to resume from. */
  readonly id: string;
  /** The key whose entry changed. */
  readonly key: string;
  /** The entry that the key has now, or null. */
  readonly entry: Entry | null;
}

/** The call can never succeed as it is: a bad key, value, ttl, prefix, cursor or limit. */
export class InvalidArgument extends TypeError {
  /** Takes the name of the argument, and what is wrong with it. */
  constructor(
    /** Which argument is wrong. */
    readonly argument: "url" | "key" | "value" | "ttl" | "prefix" | "after" | "limit",
    message: string,
  ) {
    super(message);
  }
}

/** The value is over {@linkcode MAX_VALUE_BYTES}. */
export class ValueTooLarge extends InvalidArgument {
  /** The argument is `value`. */
  constructor(
    message = `Cannot store the value: it is over ${MAX_VALUE_BYTES} bytes of JSON text`,
  ) {
    super("value", message);
  }
}

/** The condition of `ifRevision` did not hold, and nothing was written. */
export class RevisionConflict extends Error {
  /** Takes the key, and the entry that it has instead, or null. */
  constructor(readonly key: string, readonly current: Entry | null) {
    super(
      `The condition for "${key}" does not hold: ` +
        (current ? `its revision is now "${current.revision}"` : "it is not there"),
    );
  }
}

/** The watch cannot report every change since the given one: list the entries again. */
export class ChangesLost extends Error {
  /** Takes the change that was asked for. */
  constructor(readonly since: string) {
    super(`Cannot watch since "${since}": the changes since then are no longer known`);
  }
}

/** The call failed or its outcome is unknown: the store is unreachable, closed, or too slow. */
export class StoreUnavailable extends Error {
  /** Of a write: "unchanged" if it was not done, "unknown" if it may have been. */
  readonly outcome: "unchanged" | "unknown";

  /** Takes the message, the cause, and the outcome of a write. */
  constructor(message: string, options: ErrorOptions & { outcome: "unchanged" | "unknown" }) {
    super(message, options);
    this.outcome = options.outcome;
  }
}

/** There is no room for this write, and nothing was written. */
export class StoreFull extends Error {}

// On the prototypes, so that stacks begin with them: a bundler may shorten the name of a class.
const NAMED = { InvalidArgument, RevisionConflict, ChangesLost, StoreUnavailable, StoreFull };
for (const [name, { prototype }] of Object.entries(NAMED)) prototype.name = name;
