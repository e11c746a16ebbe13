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
 * `http POST localhost:5100 Content-Type:application/x-ndjson < file` restores what was printed.
 * A dump has no ttls: what is restored stays for ever, or as long as `?ttl=` says.
 *
 * The address is any store's URL (stores/store.ts); for a service that asks for a token, set
 * `KV_TOKEN`. The exit code is 0, 1 if the store cannot be read, or 2 if the call was wrong.
 *
 * @module
 */
import { entries, line } from "./stores/entries.ts";
import { openStore } from "./stores/open.ts";
import { InvalidArgument, StoreUnavailable } from "./stores/store.ts";

export { entries } from "./stores/entries.ts";

async function dump(url: string): Promise<void> {
  const store = await openStore(url, { token: readToken(), mustExist: true });
  const encoder = new TextEncoder();
  const output = Deno.stdout.writable.getWriter();
  try {
    for await (const entry of entries(store)) {
      await output.write(encoder.encode(`${line(entry)}\n`));
    }
  } finally {
    await store.close();
  }
}

/** The token in the environment, if it may be read: nobody is prompted for that. */
function readToken(): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "KV_TOKEN" });
  const text = state === "granted" ? Deno.env.get("KV_TOKEN") : undefined;
  // As for the servers, it may be a list, of which clients send the first.
  return /^\s*\[\s*"([^"]*)"/.exec(text ?? "")?.[1] ?? text;
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
      error instanceof Deno.errors.NotCapable || (error as { code?: string }).code === "ENOSPC";
    if (!known) throw error;
    console.error((error as Error).message);
    Deno.exit(error instanceof InvalidArgument ? 2 : 1);
  }
}
