/**
 * What every store promises, whatever keeps the data: memory, a SQLite file, Redis or another
 * machine's key-value service. `openStore(url)` opens the one that a URL names.
 *
 * The contract is written on {@linkcode Store}; every engine in this folder passes the same tests,
 * `tests/conformance/`.
 *
 * @module
 */
/** The longest key, in bytes of UTF-8. */
export const MAX_KEY_BYTES = 1024;
/** The largest value, in bytes of JSON text. */
export const MAX_VALUE_BYTES = 1024 * 1024;
/** The most arrays and objects within one another in a value: more, and not every reader can. */
export const MAX_DEPTH = 500;
/** The longest life of an entry, in seconds: about 68 years. */
export const MAX_TTL = 2 ** 31 - 1;
/** The most keys in one page of a listing, and the number where none is asked for. */
export const MAX_PAGE = 1000;
/**
 * How long a call may take, in milliseconds, on stores that are reached over a network. A machine
 * that is busy with other things may stall for seconds; a service that is gone is told at once.
 */
export const DEADLINE = 10_000;

/**
 * JSON text that was checked: well-formed, in one line, at most {@linkcode MAX_VALUE_BYTES} long and
 * {@linkcode MAX_DEPTH} deep. Stores keep text and not JavaScript values, so that every number comes
 * back with all its digits. Made by `json()`; `checked` exists in the type only.
 */
export type JsonText = string & { readonly checked: true };

/** What is kept under one key. */
export interface Entry {
  /** The entry's name: 1 to {@linkcode MAX_KEY_BYTES} bytes of UTF-8. */
  readonly key: string;
  /** What was stored under it. */
  readonly value: JsonText;
  /** Names the write that made this entry: no other write to this key ever has the same. */
  readonly revision: string;
  /** When the entry ends, in milliseconds since 1970, or null: never. */
  readonly expires: number | null;
}

/** An entry as it was just written. */
export interface Written extends Entry {
  /** Whether there was nothing under this key before. */
  readonly created: boolean;
}

/** One page of a listing. */
export interface Page {
  /** In the order of their code points. */
  readonly keys: string[];
  /** What to give as `after` for the next page, or null: this was the last one. */
  readonly next: string | null;
}

/** How long an entry lives. */
export interface TtlOption {
  /** Seconds, a whole number from 1 to {@linkcode MAX_TTL}; without it the entry stays for ever. */
  ttl?: number | undefined;
}

/** On what condition a write is done. */
export interface RevisionOption {
  /** Write only over this revision; null: only where there is nothing; absent: whatever is there. */
  ifRevision?: string | null | undefined;
}

/**
 * Entries under keys.
 *
 * - A key is any well-formed string of 1 to 1,024 bytes of UTF-8 but `.` and `..`, which a URL
 *   cannot carry. Keys are compared by code point.
 * - A missing entry is `null`, never an error. An error means that the call was wrong
 *   ({@linkcode InvalidArgument}), that the condition did not hold ({@linkcode RevisionConflict}),
 *   or that the store could not do it ({@linkcode StoreUnavailable}, {@linkcode StoreFull}).
 * - The check of `ifRevision` and the write are one atomic step, for every client of the store.
 * - Writes of one caller to one key take effect in the order of the calls.
 * - An entry whose ttl has passed is gone for every reader at that moment.
 * - A promise that resolves means done: on SQLite synced to disk, on Redis acknowledged.
 * - Every call ends within the store's deadline.
 */
export interface Store {
  /** The entry under `key`, or null. */
  get(key: string): Promise<Entry | null>;
  /** Writes one entry, over whatever value and ttl it had. */
  set(key: string, value: JsonText, options?: TtlOption & RevisionOption): Promise<Written>;
  /** Writes all of these entries, or none. */
  setAll(values: ReadonlyMap<string, JsonText>, options?: TtlOption): Promise<void>;
  /** Removes the entry and returns it; null where there was none, which is no error. */
  delete(key: string, options?: RevisionOption): Promise<Entry | null>;
  /**
   * The keys that begin with `prefix`, a page at a time. A key that is there during the whole
   * listing appears in it once. Memory and SQLite list in the order of the keys.
   */
  list(prefix: string, options?: ListOptions): Promise<Page>;
  /**
   * Tells of the entries under `prefix` as they change, from now on or since a change that was seen:
   * every change whose write is called after the promise resolved is in it. Memory and SQLite tell of
   * what was written through this very store, Redis and a service of what anybody wrote.
   *
   * @throws {ChangesLost} If `since` is no longer known, which may end the stream later on, too
   */
  watch(prefix: string, options?: WatchOptions): Promise<Watch>;
  /**
   * How many entries there are, with some that have just expired: on stores that can tell without
   * listing them. Redis cannot, where others have keys in it, nor can a service.
   */
  count?(): Promise<number>;
  /** Ends watches and pending writes, then lets go of files and connections. A second call does nothing. */
  close(): Promise<void>;
}

/** Which page of a listing. */
export interface ListOptions {
  /** The `next` of the page before; absent: the first page. */
  after?: string | undefined;
  /** The most keys wanted, from 1 to {@linkcode MAX_PAGE}, which is also the default. */
  limit?: number | undefined;
}

/** From where on to watch. */
export interface WatchOptions {
  /** The `id` of the last change that was seen, or the `since` of a watch; absent: from now on. */
  since?: string | undefined;
}

/** Changes as they happen. Cancelling the stream ends the watch. */
export interface Watch {
  /** Where the watch begins: to resume it before its first change. */
  readonly since: string;
  /** The changes; cancel it to end the watch. */
  readonly changes: ReadableStream<Change>;
}

/**
 * An entry that changed. It is read when the change is delivered, so that of several changes of one
 * key in short time each may show the last. An entry that expires is not told of: its `expires` did.
 */
export interface Change {
  /** Names this change, to resume from. */
  readonly id: string;
  /** The key whose entry changed. */
  readonly key: string;
  /** What is under the key now, or null for nothing. */
  readonly entry: Entry | null;
}

/** A call that can never succeed as it is: a bad key, value, ttl, prefix, cursor or limit. */
export class InvalidArgument extends TypeError {
  static {
    this.prototype.name = "InvalidArgument";
  }

  /** Takes the name of the argument, and what is wrong with it. */
  constructor(
    /** Which argument is wrong. */
    readonly argument: "url" | "key" | "value" | "ttl" | "prefix" | "after" | "limit",
    message: string,
  ) {
    super(message);
  }
}

/** A value over {@linkcode MAX_VALUE_BYTES}. */
export class ValueTooLarge extends InvalidArgument {
  /** The argument is `value`. */
  constructor() {
    super("value", `Cannot store the value: it is over ${MAX_VALUE_BYTES} bytes of JSON text`);
  }
}

/** The condition of `ifRevision` did not hold, and nothing was written. */
export class RevisionConflict extends Error {
  static {
    this.prototype.name = "RevisionConflict";
  }

  /** Takes the key, and the entry that it has instead, or null. */
  constructor(readonly key: string, readonly current: Entry | null) {
    super(
      `The condition for "${key}" does not hold: ` +
        (current ? `its revision is now "${current.revision}"` : "it is not there"),
    );
  }
}

/** A watch cannot tell of every change since the one it was asked for: list the entries again. */
export class ChangesLost extends Error {
  static {
    this.prototype.name = "ChangesLost";
  }

  /** Takes the change that was asked for. */
  constructor(readonly since: string) {
    super(`Cannot watch since "${since}": the changes since then are no longer known`);
  }
}

/** The store did not do the call: it cannot be reached, is closed, or took too long. */
export class StoreUnavailable extends Error {
  static {
    this.prototype.name = "StoreUnavailable";
  }
  /** What became of a write: "unchanged", or "unknown" where it may have been done. */
  readonly outcome: "unchanged" | "unknown";

  /** Takes what happened, and what became of a write. */
  constructor(message: string, options: ErrorOptions & { outcome: "unchanged" | "unknown" }) {
    super(message, options);
    this.outcome = options.outcome;
  }
}

/** There is no room for this write, and nothing was written. */
export class StoreFull extends Error {
  static {
    this.prototype.name = "StoreFull";
  }
}
