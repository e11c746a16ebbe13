/**
 * Opens the store that a URL names.
 *
 * @module
 */
import { isRedisUrl, redisUrlProblem } from "./redis/url.ts";
import { InvalidArgument, type Store } from "./store.ts";

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
 * import { json } from "./json_text.ts";
 * import { openStore } from "./open.ts";
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
  if (isRedisUrl(url)) return (await import("./redis/store.ts")).redisStore(url);
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
