/** The checks of arguments, made once for every engine. */
import { byteLength } from "./json/text.ts";
import {
  type Entry,
  InvalidArgument,
  type JsonText,
  MAX_KEY_BYTES,
  MAX_PAGE,
  MAX_TTL,
  type Page,
  RevisionConflict,
  type RevisionOption,
  type Store,
  StoreUnavailable,
  type TtlOption,
  type Watch,
  type WatchOptions,
  type Written,
} from "./store.ts";

/**
 * What an engine implements: the calls of a {@linkcode Store}, with the same promises. Their
 * arguments were checked, none comes after `close`, and `close` comes once.
 */
export interface Engine {
  get(key: string): Promise<Entry | null>;
  set(key: string, value: JsonText, options: TtlOption & RevisionOption): Promise<Written>;
  setAll(values: ReadonlyMap<string, JsonText>, options: TtlOption): Promise<void>;
  delete(key: string, options: RevisionOption): Promise<Entry | null>;
  list(prefix: string, options: { after: string | undefined; limit: number }): Promise<Page>;
  watch(prefix: string, options: WatchOptions): Promise<Watch>;
  count?(): Promise<number>;
  /** By default, whether an entry can be read. */
  check?(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Returns the store of an engine: it checks the arguments of every call, and that it is open. A bad
 * argument rejects.
 */
export function checked(engine: Engine): Store {
  let closing: Promise<void> | undefined;

  function checkOpen(): void {
    if (closing) throw new StoreUnavailable("The store is closed", { outcome: "unchanged" });
  }

  const store: Store = {
    async get(key) {
      checkOpen();
      checkKey(key);
      return await engine.get(key);
    },
    async set(key, value, options = {}) {
      checkOpen();
      checkKey(key);
      checkTtl(options.ttl);
      return await engine.set(key, value, options);
    },
    async setAll(values, options = {}) {
      checkOpen();
      for (const key of values.keys()) checkKey(key);
      checkTtl(options.ttl);
      await engine.setAll(values, options);
    },
    async delete(key, options = {}) {
      checkOpen();
      checkKey(key);
      return await engine.delete(key, options);
    },
    async list(prefix, { after, limit = MAX_PAGE } = {}) {
      checkOpen();
      checkPrefix(prefix);
      checkLimit(limit);
      return await engine.list(prefix, { after, limit });
    },
    async watch(prefix, options = {}) {
      checkOpen();
      checkPrefix(prefix);
      return await engine.watch(prefix, options);
    },
    async check() {
      checkOpen();
      await (engine.check?.() ?? engine.get("health"));
    },
    close: () => closing ??= engine.close(),
  };
  const count = engine.count?.bind(engine);
  if (count) {
    store.count = async () => {
      checkOpen();
      return await count();
    };
  }
  return store;
}

/** @throws {InvalidArgument} If `key` is not a key */
export function checkKey(key: string): void {
  const problem = keyProblem(key);
  if (problem !== null) throw new InvalidArgument("key", problem);
}

/** Whether a value from outside is a key. */
export function isKey(key: unknown): key is string {
  return typeof key === "string" && keyProblem(key) === null;
}

function keyProblem(key: string): string | null {
  if (key === "" || key === "." || key === "..") {
    return `Cannot use the key "${key}": expected any other text`;
  }
  if (!key.isWellFormed()) return "Cannot use the key: it has half of a surrogate pair";
  return byteLength(key, MAX_KEY_BYTES) > MAX_KEY_BYTES
    ? `Cannot use the key: it is over ${MAX_KEY_BYTES} bytes`
    : null;
}

/** @throws {InvalidArgument} If `ttl` is not a whole number from 1 to {@linkcode MAX_TTL} */
export function checkTtl(ttl: number | undefined): void {
  if (ttl !== undefined && (!Number.isInteger(ttl) || ttl < 1 || ttl > MAX_TTL)) {
    const wanted = `expected a whole number from 1 to ${MAX_TTL}`;
    throw new InvalidArgument("ttl", `Cannot keep an entry for "${ttl}" seconds: ${wanted}`);
  }
}

function checkPrefix(prefix: string): void {
  if (!prefix.isWellFormed()) {
    throw new InvalidArgument("prefix", "Cannot use the prefix: it has half of a surrogate pair");
  }
  // No key begins with it, and a service could not take it in a URL of any length.
  if (byteLength(prefix, MAX_KEY_BYTES) > MAX_KEY_BYTES) {
    const message =
      `Cannot use the prefix: it is over ${MAX_KEY_BYTES} bytes, the most that a key may have`;
    throw new InvalidArgument("prefix", message);
  }
}

function checkLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
    const wanted = `expected a whole number from 1 to ${MAX_PAGE}`;
    throw new InvalidArgument("limit", `Cannot list "${limit}" keys: ${wanted}`);
  }
}

/** Returns what to expect in place of a token that no header can carry (RFC 6750), or null. */
export function tokenProblem(token: string): string | null {
  if (/^[\w.~+/-]+=*$/.test(token)) return null;
  return "expected letters, digits, or any of - . _ ~ + /, and = at its end";
}

/**
 * Checks the condition of a write, within the engine's atomic step.
 *
 * @throws {RevisionConflict} If `current` is not what `ifRevision` asks for
 */
export function checkRevision(
  key: string,
  current: Entry | null,
  ifRevision: string | null | undefined,
): void {
  if (ifRevision !== undefined && ifRevision !== (current?.revision ?? null)) {
    throw new RevisionConflict(key, current);
  }
}

/** When an entry with this ttl expires, in milliseconds since 1970, or null: never. */
export function expiry(ttl: number | undefined, now: number): number | null {
  return ttl === undefined ? null : now + ttl * 1000;
}
