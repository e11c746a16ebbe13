#!/usr/bin/env -S deno run --quiet --allow-net --allow-read --allow-write --allow-env
/**
 * Prints every entry of a store, one `{"key": value}` a line.
 *
 * ```sh
 * deno run dump.ts http://localhost:5100      # asks for permission to use the network
 * ./dump.ts http://localhost:5100
 * deno task dump --format table kv.db
 * ./dump.ts --format backup http://localhost:5100 > kv.backup     # keeps lifetimes
 * ./dump.ts --restore kv.backup http://localhost:5100
 * ./dump.ts --to redis://localhost kv.db                          # copies
 * ```
 *
 * @module
 */
import { setColorEnabled } from "@std/fmt/colors";
import { copy, CopyStopped, UnfitTarget } from "./dump/copy.ts";
import { printer } from "./dump/formats.ts";
import { changesOf } from "./dump/outages.ts";
import { type Options, readOptions, USAGE, UsageError } from "./dump/options.ts";
import { printable } from "./server/log.ts";
import { tokenProblem } from "./stores/checks.ts";
import { entries, restore, RestoreStopped } from "./stores/dumps.ts";
import { openStore, withoutPassword } from "./stores/open.ts";
import {
  ChangesLost,
  InvalidArgument,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "./stores/store.ts";

/** When progress is first shown, and how often it changes, in milliseconds. */
const PROGRESS_AFTER = 1000;
const PROGRESS_EVERY = 200;

class UnreadableFile extends Error {
  constructor(path: string, cause: unknown) {
    const why = (cause as Error).message.replace(/: open '.*'$/s, "");
    super(`Cannot read "${withoutPassword(path)}": ${why}`, { cause });
  }
}

async function dump({ url, prefix, format, watch }: Options): Promise<void> {
  const store = await openSource(url);
  const isTerminal = Deno.stdout.isTerminal();
  if (!isTerminal) setColorEnabled(false);
  const output = Deno.stdout.writable.getWriter();
  const encoder = new TextEncoder();
  const write = (text: string) => output.write(encoder.encode(text));
  // A terminal that does not know its width says 0.
  const columns = isTerminal ? Deno.consoleSize().columns || 80 : null;
  const { begin, print, end } = printer(format, columns);
  try {
    // Before the entries are read, so that no change is missed.
    const changes = watch ? await changesOf(store, prefix, { tell }) : null;
    let count = 0;
    await write(begin);
    for await (const entry of entries(store, prefix)) {
      await write(print(entry.key, entry));
      count++;
      if (!isTerminal) progress.show(count);
    }
    await write(end);
    progress.end();
    if (count === 0) {
      console.error(prefix ? `No key begins with ${JSON.stringify(prefix)}` : "The store is empty");
    }
    for await (const { key, entry } of changes ?? []) await write(print(key, entry));
  } finally {
    await store.close();
  }
}

/** Opens a store to read. Stores leave the key out of an error, since servers log it; here it helps. */
async function openSource(url: string): Promise<Store> {
  const store = await openStore(url, { token: readToken(url), mustExist: true });
  const get = (key: string) =>
    store.get(key).catch((error: Error) => {
      error.message = error.message.replace("read an entry", () => `read "${key}"`);
      throw error;
    });
  return { ...store, get };
}

async function restoreFile({ url, ttl }: Options, path: string): Promise<void> {
  // Before the store, which opening may create.
  const file = path === "-" ? Deno.stdin : await openFile(path);
  const store = await openStore(url, { token: readToken(url) });
  try {
    const onProgress = (count: number) => progress.show(count);
    const done = await restore(store, contentsOf(file, path), { ttl, onProgress });
    progress.end();
    console.error(`Restored ${entriesOf(done.restored)}${leftOut(done.expired)}`);
  } finally {
    await store.close();
  }
}

/** @throws {UnreadableFile} */
async function openFile(path: string): Promise<Deno.FsFile> {
  const file = await Deno.open(path).catch((cause) => {
    throw new UnreadableFile(path, cause);
  });
  if (!(await file.stat()).isDirectory) return file;
  file.close();
  throw new UnreadableFile(path, new Error("Is a directory"));
}

async function copyTo({ url, prefix, watch }: Options, target: string): Promise<void> {
  const from = await openSource(url);
  let to: Store | undefined;
  try {
    const token = readToken(target, "KV_TO_TOKEN") ?? readToken(target);
    to = await openStore(target, { token, tokenName: "KV_TO_TOKEN" });
    await copy(from, to, {
      prefix,
      watch,
      tell,
      onProgress: (copied) => progress.show(copied),
      onCopied(copied, expired) {
        progress.end();
        const next = watch ? "; following the changes until Ctrl-C" : "";
        console.error(`Copied ${entriesOf(copied)}${leftOut(expired)}${next}`);
      },
    });
  } finally {
    await Promise.all([from.close(), to?.close()]);
  }
}

function tell(message: string): void {
  progress.end();
  console.error(printable(message));
}

function entriesOf(count: number): string {
  return `${count} ${count === 1 ? "entry" : "entries"}`;
}

function leftOut(expired: number): string {
  return expired === 0 ? "" : `, left out ${expired} that had expired`;
}

/** @throws {UnreadableFile} */
async function* contentsOf(
  file: Pick<Deno.FsFile, "readable">,
  path: string,
): AsyncGenerator<Uint8Array> {
  try {
    yield* file.readable;
  } catch (cause) {
    throw new UnreadableFile(path, cause);
  }
}

/** A line on a terminal's standard error that shows the progress of a long call. */
class Progress {
  #next = performance.now() + PROGRESS_AFTER;
  #isPrinted = false;

  show(entries: number): void {
    if (performance.now() < this.#next || !Deno.stderr.isTerminal()) return;
    this.#next = performance.now() + PROGRESS_EVERY;
    this.#isPrinted = true;
    Deno.stderr.writeSync(new TextEncoder().encode(`\rentries: ${entries.toLocaleString("en")}`));
  }

  /** Removes the line. */
  end(): void {
    if (this.#isPrinted) Deno.stderr.writeSync(new TextEncoder().encode("\r\x1b[K"));
    this.#isPrinted = false;
  }
}

const progress = new Progress();

/** The token for a service, if the environment may be read: nobody is prompted for that. */
function readToken(url: string, variable = "KV_TOKEN"): string | undefined {
  if (!/^https?:/i.test(url)) return undefined;
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  const text = state === "granted" ? Deno.env.get(variable) : undefined;
  // As for the servers, an empty variable is not set.
  if (text === undefined || text === "") return undefined;
  // As for the servers, it may be a list, of which clients send the first.
  const first = /^\s*\[\s*"([^"]*)"/.exec(text)?.[1] ?? text.replace(/,.*/s, "").trim();
  const problem = tokenProblem(first);
  if (problem === null) return first;
  throw new UsageError(`Cannot send the token of ${variable}: ${problem}`);
}

/** The exit code for an error, or null for an internal one. */
function exitCodeOf(error: unknown): number | null {
  if (error instanceof RestoreStopped || error instanceof CopyStopped) {
    return exitCodeOf(error.cause) === null ? null : 1;
  }
  if (error instanceof UsageError || error instanceof InvalidArgument) return 2;
  const isKnown = error instanceof StoreUnavailable || error instanceof StoreFull ||
    error instanceof ChangesLost || error instanceof UnreadableFile ||
    error instanceof UnfitTarget ||
    error instanceof Deno.errors.NotCapable || (error as { code?: string }).code === "ENOSPC";
  return isKnown ? 1 : null;
}

/** What to add to the message of an error. */
function adviceFor(error: unknown): string {
  if (error instanceof UsageError) return "; dump.ts --help explains";
  if (error instanceof CopyStopped) return ` (copied before it: ${error.copied})`;
  return error instanceof RestoreStopped ? ` (restored before it: ${error.restored})` : "";
}

if (import.meta.main) {
  try {
    const options = readOptions(Deno.args);
    if (options === "help") console.log(USAGE);
    else if (options.restore !== undefined) await restoreFile(options, options.restore);
    else if (options.to !== undefined) await copyTo(options, options.to);
    else await dump(options);
  } catch (error) {
    progress.end();
    // The reader has closed the pipe, as `head` does.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    const code = exitCodeOf(error);
    if (code === null) throw error;
    console.error(printable((error as Error).message + adviceFor(error)));
    Deno.exit(code);
  }
}
