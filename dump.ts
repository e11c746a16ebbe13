#!/usr/bin/env -S deno run --quiet --allow-net --allow-read --allow-write --allow-env
/**
 * Prints every entry of a store, one `{"key": value}` a line.
 *
 * ```sh
 * deno run dump.ts http://localhost:5100      # asks for the network at a terminal
 * ./dump.ts http://localhost:5100
 * deno task dump kv.db
 * ```
 *
 * The address is any store's URL (stores/store.ts); for a service that asks for a token, set
 * `KV_TOKEN`. The exit code is 0, 1 if the store cannot be read, or 2 if the call was wrong.
 *
 * @module
 */
import {
  type Entry,
  InvalidArgument,
  openStore,
  type Store,
  StoreUnavailable,
} from "./stores/store.ts";

/** How many entries are fetched at once: as many are in memory, however many there are. */
const FETCHED_AT_ONCE = 100;

/**
 * Every entry of a store. One that is written, removed or expires meanwhile may be in it or not.
 *
 * @example
 * ```ts
 * import { entries } from "./dump.ts";
 * import { json, openStore } from "./stores/store.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("twitter", json("@csuf"));
 * for await (const { key, value } of entries(store)) console.log(key, value); // twitter "@csuf"
 * await store.close();
 * ```
 */
export async function* entries(store: Store): AsyncGenerator<Entry> {
  let after: string | undefined;
  do {
    const { keys, next } = await store.list("", { after, limit: FETCHED_AT_ONCE });
    for (const entry of await Promise.all(keys.map((key) => store.get(key)))) {
      if (entry !== null) yield entry;
    }
    after = next ?? undefined;
  } while (after !== undefined);
}

async function dump(url: string): Promise<void> {
  const store = await openStore(url, { token: readToken(), mustExist: true });
  const encoder = new TextEncoder();
  const output = Deno.stdout.writable.getWriter();
  try {
    for await (const { key, value } of entries(store)) {
      await output.write(encoder.encode(`{${JSON.stringify(key)}: ${value}}\n`));
    }
  } finally {
    await store.close();
  }
}

/** The token in the environment; nobody is asked for leave to look whether there is one. */
function readToken(): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "KV_TOKEN" });
  return state === "granted" ? Deno.env.get("KV_TOKEN") : undefined;
}

if (import.meta.main) {
  const [url, ...rest] = Deno.args;
  if (url === undefined || rest.length > 0) {
    console.error("Usage: dump.ts URL, as in: dump.ts http://localhost:5100");
    Deno.exit(2);
  }
  try {
    await dump(url);
  } catch (error) {
    // The reader has had enough, as `head` does.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    const known = error instanceof InvalidArgument || error instanceof StoreUnavailable ||
      error instanceof Deno.errors.NotCapable;
    if (!known) throw error;
    console.error(error.message);
    Deno.exit(error instanceof InvalidArgument ? 2 : 1);
  }
}
