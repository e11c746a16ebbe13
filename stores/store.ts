/**
 * What every store promises, whatever keeps the data: memory, a SQLite file, Redis or another
 * machine's key-value service. `openStore(url)` opens the one that a URL names.
 *
 * The contract is written on {@linkcode Store}; every engine in this folder passes the same tests,
 * `tests/conformance/`.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { isRedisUrl, redisUrlProblem } from "./redis_url.ts";

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

declare const checked: unique symbol;

/**
 * JSON text that was checked: well-formed, in one line, at most {@linkcode MAX_VALUE_BYTES} long.
 * Stores keep text and not JavaScript values, so that every number comes back with all its digits.
 * Made by {@linkcode json}.
 */
export type JsonText = string & { readonly [checked]: true };

/** What is kept under one key. */
export interface Entry {
  readonly key: string;
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
  readonly changes: ReadableStream<Change>;
}

/**
 * An entry that changed. It is read when the change is delivered, so that of several changes of one
 * key in short time each may show the last. An entry that expires is not told of: its `expires` did.
 */
export interface Change {
  /** Names this change, to resume from. */
  readonly id: string;
  readonly key: string;
  /** What is under the key now, or null for nothing. */
  readonly entry: Entry | null;
}

/** A call that can never succeed as it is: a bad key, value, ttl, prefix, cursor or limit. */
export class InvalidArgument extends TypeError {
  override readonly name = "InvalidArgument";

  constructor(
    readonly argument: "url" | "key" | "value" | "ttl" | "prefix" | "after" | "limit",
    message: string,
  ) {
    super(message);
  }
}

/** A value over {@linkcode MAX_VALUE_BYTES}. */
export class ValueTooLarge extends InvalidArgument {
  constructor() {
    super("value", `Cannot store the value: it is over ${MAX_VALUE_BYTES} bytes of JSON text`);
  }
}

/** The condition of `ifRevision` did not hold, and nothing was written. */
export class RevisionConflict extends Error {
  override readonly name = "RevisionConflict";

  /** @param current What is there instead, or null for nothing */
  constructor(readonly key: string, readonly current: Entry | null) {
    super(
      `The condition for "${key}" does not hold: ` +
        (current ? `its revision is now "${current.revision}"` : "it is not there"),
    );
  }
}

/** A watch cannot tell of every change since the one it was asked for: list the entries again. */
export class ChangesLost extends Error {
  override readonly name = "ChangesLost";

  constructor(readonly since: string) {
    super(`Cannot watch since "${since}": the changes since then are no longer known`);
  }
}

/** The store did not do the call: it cannot be reached, is closed, or took too long. */
export class StoreUnavailable extends Error {
  override readonly name = "StoreUnavailable";
  /** What became of a write: "unchanged", or "unknown" where it may have been done. */
  readonly outcome: "unchanged" | "unknown";

  constructor(message: string, options: ErrorOptions & { outcome: "unchanged" | "unknown" }) {
    super(message, options);
    this.outcome = options.outcome;
  }
}

/** There is no room for this write, and nothing was written. */
export class StoreFull extends Error {
  override readonly name = "StoreFull";
}

/** What {@linkcode openStore} takes beside the URL. */
export interface OpenOptions {
  /** The bearer token that a key-value service asks for. */
  token?: string | undefined;
  /** Whether a file that is not there is an error; by default it is made. */
  mustExist?: boolean;
}

/**
 * Opens the store that a URL names.
 *
 * | URL | Store |
 * |---|---|
 * | `:memory:` | this process's memory |
 * | `kv.db`, `sqlite:path` | a SQLite file, made where there is none |
 * | `redis://…`, `rediss://…` | one Redis or Valkey, `rediss` by TLS; the forms are in `redis_url.ts` |
 * | `redis+sentinel://…`, `redis+cluster://…` | the master that Sentinels name, or a Cluster |
 * | `http://…`, `https://…` | a key-value service, `kv.ts` |
 *
 * @throws {InvalidArgument | StoreUnavailable} A sentence that names the URL, its password left out,
 * and what is wrong
 *
 * @example
 * ```ts
 * import { json, openStore } from "./store.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("greeting", json("hello"), { ttl: 60 });
 * console.log((await store.get("greeting"))?.value); // "hello", with its quotes: JSON text
 * await store.close();
 * ```
 */
export async function openStore(url: string, options: OpenOptions = {}): Promise<Store> {
  const problem = storeUrlProblem(url);
  if (problem) {
    const shown = withoutPassword(url);
    throw new InvalidArgument("url", `Cannot open the store "${shown}": ${problem}`);
  }
  if (url === ":memory:") return (await import("./memory.ts")).memoryStore();
  if (isRedisUrl(url)) return (await import("./redis.ts")).redisStore(url);
  if (/^https?:/.test(url)) return (await import("./http.ts")).httpStore(url, options);
  return (await import("./sqlite.ts")).sqliteStore(url.replace(/^sqlite:/, ""), options);
}

/** What is wrong with a store's URL, or null. */
export function storeUrlProblem(url: string): string | null {
  if (url === ":memory:") return null;
  if (isRedisUrl(url)) return redisUrlProblem(url);
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(url)?.[1];
  if (scheme === undefined || scheme === "sqlite") {
    return url.replace(/^sqlite:/, "") === "" ? "expected the path of a file" : null;
  }
  if (scheme !== "http" && scheme !== "https") {
    return "expected :memory:, a file, sqlite:, redis:, rediss:, redis+sentinel:, redis+cluster:, " +
      "http: or https:";
  }
  if (!URL.canParse(url)) return "expected a host after the scheme";
  const { username, password, search, hash } = new URL(url);
  if (username || password) return "expected no user or password: KV_TOKEN lets a client in";
  return search || hash ? "expected nothing behind the path" : null;
}

/** A store's URL as it may be shown: `redis://ann:***@host`. What is no URL is shown as it is. */
export function withoutPassword(url: string): string {
  // Up to the last @, since a password that is the problem may not be percent-encoded.
  return url.replace(/^([^:]*:\/*[^:@]*:).*@/s, "$1***@");
}

/**
 * JSON text of a value. A number that {@linkcode parseJson} kept as it was written stays so.
 *
 * @throws {InvalidArgument} If the value has no JSON text (undefined, a function, a bigint, a cycle),
 * or is nested deeper than {@linkcode MAX_DEPTH}
 * @throws {ValueTooLarge} If the text is over {@linkcode MAX_VALUE_BYTES}
 *
 * @example
 * ```ts
 * import { json, parseJson } from "./store.ts";
 *
 * console.log(json(parseJson('{"price": 1.10}'))); // {"price":1.10}
 * ```
 */
export function json(value: unknown): JsonText {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new InvalidArgument("value", `Cannot store the value: ${(cause as Error).message}`);
  }
  if (text === undefined) {
    throw new InvalidArgument("value", `Cannot store ${typeof value}: expected a JSON value`);
  }
  if (byteLength(text, MAX_VALUE_BYTES) > MAX_VALUE_BYTES) throw new ValueTooLarge();
  if (text.length > 2 * MAX_DEPTH && depthOf(text) > MAX_DEPTH) {
    throw new InvalidArgument(
      "value",
      `Cannot store the value: it is nested deeper than ${MAX_DEPTH} levels`,
    );
  }
  return text as JsonText;
}

/** How many arrays and objects are within one another in JSON text. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let isQuoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (isQuoted && char === "\\") i++;
    else if (char === '"') isQuoted = !isQuoted;
    else if (isQuoted) continue;
    else if (char === "[" || char === "{") deepest = Math.max(deepest, ++depth);
    else if (char === "]" || char === "}") depth--;
  }
  return deepest;
}

/**
 * Parses JSON text and keeps every digit: a number that JavaScript would print otherwise than it
 * was written (`1.10`, `12345678901234567890`) comes as a `JSON.rawJSON` object, which
 * `JSON.stringify` prints as it was.
 *
 * @throws {SyntaxError} If the text is no JSON
 * @throws {RangeError} If such a number stands under thousands of nested brackets
 */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  // Parsing with source text is several times slower, and nearly every text needs no such number.
  return JSON.stringify(value) === text ? value : SourceJson.parse(text, keepDigits);
}

function keepDigits(_key: string, value: unknown, context: { source?: string }): unknown {
  return typeof value === "number" && context.source !== undefined &&
      JSON.stringify(value) !== context.source
    ? SourceJson.rawJSON(context.source)
    : value;
}

/** Whether {@linkcode parseJson} kept this as it was written: a number, and no object. */
export function isRawNumber(value: unknown): boolean {
  return SourceJson.isRawJSON(value);
}

/** ECMAScript's "JSON.parse source text access", which V8 has and TypeScript's library lacks. */
const SourceJson = JSON as unknown as {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): object;
  isRawJSON(value: unknown): boolean;
};

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

/** Bytes of UTF-8, counted only where the number of UTF-16 units leaves a doubt about the limit. */
function byteLength(text: string, limit: number): number {
  return text.length * 3 <= limit ? text.length : Buffer.byteLength(text);
}
