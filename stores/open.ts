/** Opens the store that a URL names. */
import { prefixed } from "./prefix.ts";
import { parseQuery } from "./query.ts";
import { parseRedisUrl } from "./redis/url.ts";
import { InvalidArgument, type Store } from "./store.ts";

/** What {@linkcode openStore} takes beside the URL. */
export interface OpenOptions {
  /** The bearer token that a key-value service asks for. */
  token?: string | undefined;
  /** The variable that holds the token, for errors: by default `KV_TOKEN`. */
  tokenName?: string;
  /** For a store that is only read: its file has to exist, and may be read-only. */
  mustExist?: boolean;
}

/** A kind of store, as {@linkcode openStore} knows it. Its code is loaded when it is first opened. */
interface EngineEntry {
  /** @throws {TypeError} With what a URL should be instead */
  check(url: string): void;
  open(url: string, options: OpenOptions): Promise<Store>;
  /** Whether it is on a server: `watch` reports what other programs write, and its login may change. */
  isRemote: boolean;
}

const MEMORY: EngineEntry = {
  check() {},
  open: async () => (await import("./memory.ts")).memoryStore(),
  isRemote: false,
};
const SQLITE: EngineEntry = {
  check(url) {
    const path = pathOf(url);
    if (path === "") throw new TypeError("expected the path of a file");
    // Programs differ on whether sqlite:///kv.db is in the root directory.
    if (url !== path && /^(\/\/|file:)/.test(path)) {
      throw new TypeError("expected a path right after sqlite:, as in sqlite:/var/lib/kv.db");
    }
  },
  open: async (url, options) =>
    (await import("./sqlite/store.ts")).sqliteStore(pathOf(url), options),
  isRemote: false,
};
const HTTP: EngineEntry = {
  check(url) {
    const parsed = URL.parse(url);
    if (parsed === null) throw new TypeError("expected a host after the scheme");
    if (parsed.username || parsed.password) {
      throw new TypeError("expected no user or password: set KV_TOKEN instead");
    }
    if (url.includes("#")) throw new TypeError("expected nothing after the path except ?prefix=");
  },
  open: async (url, options) => (await import("./http/store.ts")).httpStore(url, options),
  isRemote: true,
};
const REDIS: EngineEntry = {
  check: parseRedisUrl,
  open: async (url) => (await import("./redis/store.ts")).redisStore(url),
  isRemote: true,
};

const ENGINES = new Map([
  [":memory:", MEMORY],
  ["sqlite:", SQLITE],
  ["redis:", REDIS],
  ["rediss:", REDIS],
  ["redis+sentinel:", REDIS],
  ["rediss+sentinel:", REDIS],
  ["redis+unix:", REDIS],
  ["redis+cluster:", REDIS],
  ["rediss+cluster:", REDIS],
  ["http:", HTTP],
  ["https:", HTTP],
]);

/**
 * Opens the store that a URL names.
 *
 * | URL | Store |
 * |---|---|
 * | `:memory:` | this process's memory |
 * | `kv.db`, `sqlite:path` | a SQLite file, created if it does not exist |
 * | `redis://…`, `rediss://…` | one Redis or Valkey, `rediss` by TLS; `redis/url.ts` has the forms |
 * | `redis+unix:///…` | a Redis on this machine, by the path of its socket |
 * | `redis+sentinel://…`, `redis+cluster://…` | the master that Sentinels name, or a Cluster |
 * | `http://…`, `https://…` | a key-value service, `kv.ts` |
 *
 * `?prefix=` (percent-encoded) after any of them goes before every key.
 *
 * @throws {InvalidArgument} With the URL, its password left out, and what is wrong with it
 * @throws {StoreUnavailable} If a file cannot be opened
 *
 * @example
 * ```ts
 * import { json } from "./json/text.ts";
 * import { openStore } from "./open.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("greeting", json("hello"), { ttl: 60 });
 * console.log((await store.get("greeting"))?.value); // "hello", with its quotes: JSON text
 * await store.close();
 * ```
 */
export async function openStore(url: string, options: OpenOptions = {}): Promise<Store> {
  const engine = engineOf(url);
  const problem = storeUrlProblem(url);
  if (engine === undefined || problem !== null) {
    throw new InvalidArgument("url", `Cannot open the store "${withoutPassword(url)}": ${problem}`);
  }
  const { address, prefix } = splitPrefix(url, engine);
  const store = await engine.open(address, options);
  return prefix === "" ? store : prefixed(store, prefix);
}

/** Returns what is wrong with a store's URL, or null. */
export function storeUrlProblem(url: string): string | null {
  const engine = engineOf(url);
  if (engine === undefined) {
    const [first, ...others] = [...ENGINES.keys()].filter((it) => !it.startsWith("rediss+"));
    const last = others.pop();
    return `expected ${first}, a file, ${others.join(", ")} or ${last}`;
  }
  try {
    engine.check(splitPrefix(url, engine).address);
    return null;
  } catch (error) {
    return (error as TypeError).message;
  }
}

/** Whether the store that a URL names is on a server. */
export function isRemote(url: string): boolean {
  return engineOf(url)?.isRemote ?? false;
}

/** Returns a store's URL as it may be shown: `redis://ann:***@host`. Other text is returned as it is. */
export function withoutPassword(url: string): string {
  // Up to the last @, since a password that is the problem may not be percent-encoded.
  return url.replace(/^([^:]*:\/*[^:@]*:).*@/s, "$1***@").replace(/(password=)[^&]*/gi, "$1***");
}

/** A URL without a scheme is a file. A scheme has two letters or more: `C:` is a drive of Windows. */
function engineOf(url: string): EngineEntry | undefined {
  if (/^:memory:(\?|$)/.test(url)) return MEMORY;
  const scheme = /^[a-z][a-z0-9+.-]+:/i.exec(url)?.[0];
  return scheme === undefined ? SQLITE : ENGINES.get(scheme);
}

function pathOf(url: string): string {
  return url.replace(/^sqlite:/, "");
}

/** Takes `?prefix=` off the URL, unless the engine reads it itself. */
function splitPrefix(url: string, engine: EngineEntry): { address: string; prefix: string } {
  if (engine === REDIS) return { address: url, prefix: "" };
  const [, address = url, query = ""] = /^([^?]*)\?(.*)$/s.exec(url) ?? [];
  return { address, prefix: parseQuery(query, ["prefix"]).prefix ?? "" };
}
