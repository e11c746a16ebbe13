#!/usr/bin/env -S deno run --quiet --allow-net --allow-read --allow-write --allow-env
/**
 * Prints every entry of a store, one `{"key": value}` a line.
 *
 * ```sh
 * deno run dump.ts http://localhost:5100      # asks for permission to use the network
 * ./dump.ts http://localhost:5100
 * deno task dump --format table kv.db
 * ./dump.ts --restore backup.ndjson http://localhost:5100
 * ```
 *
 * A dump has no ttls: restored entries stay forever.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { setColorEnabled } from "@std/fmt/colors";
import { type Format, FORMATS, printer } from "./dump/formats.ts";
import { printable } from "./server/log.ts";
import { entries, restore, RestoreStopped } from "./stores/lines.ts";
import { openStore, watchesOthers } from "./stores/open.ts";
import { ChangesLost, InvalidArgument, StoreFull, StoreUnavailable } from "./stores/store.ts";

export { entries } from "./stores/lines.ts";

const USAGE = `Usage: dump.ts [options] URL

Prints every entry of the store at URL, one {"key": value} a line. A URL is
http://localhost:5100, a file such as kv.db, redis://localhost:6379, and so on.

  --prefix TEXT    only the keys that begin with TEXT
  --format FORMAT  lines, table, or json (one object); the default is lines
  --watch          goes on with changes as they happen, until Ctrl-C
  --restore FILE   writes the entries of FILE, printed as lines, into the store
  --help           prints this text

For a service that requires a token, set KV_TOKEN.
Exit codes: 0 done, 1 the store or file failed, 2 the command is wrong.`;

/** How long it takes until progress is shown, and how often that changes, in milliseconds. */
const PROGRESS_AFTER = 1000;
const PROGRESS_EVERY = 200;

/** What the command line asks for. */
interface Options {
  url: string;
  prefix: string;
  format: Format;
  watch: boolean;
  /** The file to restore. */
  restore: string | undefined;
}

/** The command line is wrong. */
class UsageError extends Error {
  override readonly name = "UsageError";
}

/** A file cannot be read. */
class UnreadableFile extends Error {
  override readonly name = "UnreadableFile";

  constructor(path: string, cause: unknown) {
    const why = (cause as Error).message.replace(/: open '.*'$/s, "");
    super(`Cannot read "${path}": ${why}`, { cause });
  }
}

/** @throws {UsageError} If the arguments are wrong */
function readOptions(args: string[]): Options | "help" {
  const { _: [url, ...others], ...options } = parseArgs(args, {
    string: ["_", "prefix", "format", "restore"],
    boolean: ["watch", "help"],
    alias: { help: "h" },
    unknown(arg) {
      if (arg.startsWith("-")) throw new UsageError(`Unknown option "${arg}"`);
    },
  });
  if (options.help) return "help";
  if (url === undefined) {
    throw new UsageError("Expected the URL of a store, as in: dump.ts http://localhost:5100");
  }
  if (others.length > 0) throw new UsageError(`Expected one URL, not also "${others[0]}"`);
  const format = FORMATS.find((it) => it === (options.format ?? "lines"));
  if (!format) {
    throw new UsageError(`--format is "${options.format}": expected ${FORMATS.join(" or ")}`);
  }
  if (options.watch && format === "json") {
    throw new UsageError("--watch has no end: expected --format lines or table");
  }
  if (options.watch && !watchesOthers(url)) {
    throw new UsageError(
      "--watch needs a service or Redis: a file does not report other programs' changes",
    );
  }
  if (options.restore === "") throw new UsageError("--restore needs a file");
  const { prefix = "", watch, restore } = options;
  return { url, prefix, format, watch, restore };
}

async function dump({ url, prefix, format, watch }: Options): Promise<void> {
  const store = await openStore(url, { token: readToken(), mustExist: true });
  const isTerminal = Deno.stdout.isTerminal();
  const progress = new Progress(!isTerminal);
  const output = Deno.stdout.writable.getWriter();
  const encoder = new TextEncoder();
  const write = (text: string) => output.write(encoder.encode(text));
  const { begin, print, end } = printer(format, isTerminal ? Deno.consoleSize().columns : null);
  if (!isTerminal) setColorEnabled(false);
  try {
    // Before the entries are read, so that no change is missed.
    const watched = watch ? await store.watch(prefix) : null;
    let count = 0;
    await write(begin());
    for await (const entry of entries(store, prefix)) {
      await write(print(entry.key, entry));
      progress.show(++count);
    }
    await write(end());
    progress.end();
    if (count === 0) {
      console.error(prefix ? `No key begins with ${JSON.stringify(prefix)}` : "The store is empty");
    }
    for await (const { key, entry } of watched?.changes ?? []) await write(print(key, entry));
  } finally {
    progress.end();
    await store.close();
  }
}

async function restoreFile(url: string, path: string): Promise<void> {
  // Before the store, which opening may create.
  const file = await Deno.open(path).catch((cause) => {
    throw new UnreadableFile(path, cause);
  });
  const store = await openStore(url, { token: readToken() });
  const progress = new Progress(true);
  try {
    const restored = await restore(store, contentsOf(file, path), {
      onProgress: (count) => progress.show(count),
    });
    progress.end();
    console.error(`Restored ${restored} ${restored === 1 ? "entry" : "entries"}`);
  } finally {
    progress.end();
    await store.close();
  }
}

/** @throws {UnreadableFile} */
async function* contentsOf(file: Deno.FsFile, path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* file.readable;
  } catch (cause) {
    throw new UnreadableFile(path, cause);
  }
}

/** A line on a terminal's standard error that tells how far a long call is. */
class Progress {
  readonly #isShown: boolean;
  #next = performance.now() + PROGRESS_AFTER;
  #isPrinted = false;

  constructor(isWanted: boolean) {
    this.#isShown = isWanted && Deno.stderr.isTerminal();
  }

  show(entries: number): void {
    if (!this.#isShown || performance.now() < this.#next) return;
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

/** The token in the environment, if it may be read: nobody is prompted for that. */
function readToken(): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: "KV_TOKEN" });
  const text = state === "granted" ? Deno.env.get("KV_TOKEN") : undefined;
  // As for the servers, it may be a list, of which clients send the first.
  return /^\s*\[\s*"([^"]*)"/.exec(text ?? "")?.[1] ?? text;
}

/** The exit code for an error, or null for a defect. */
function exitCodeOf(error: unknown): number | null {
  if (error instanceof RestoreStopped) return exitCodeOf(error.cause) === null ? null : 1;
  if (error instanceof UsageError || error instanceof InvalidArgument) return 2;
  const isKnown = error instanceof StoreUnavailable || error instanceof StoreFull ||
    error instanceof ChangesLost || error instanceof UnreadableFile ||
    error instanceof Deno.errors.NotCapable || (error as { code?: string }).code === "ENOSPC";
  return isKnown ? 1 : null;
}

/** What to add to the message of an error. */
function adviceFor(error: unknown): string {
  if (error instanceof UsageError) return "; dump.ts --help explains";
  return error instanceof RestoreStopped ? ` (restored before it: ${error.restored})` : "";
}

if (import.meta.main) {
  try {
    const options = readOptions(Deno.args);
    if (options === "help") console.log(USAGE);
    else if (options.restore === undefined) await dump(options);
    else await restoreFile(options.url, options.restore);
  } catch (error) {
    // The reader has had enough, as `head` does.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    const code = exitCodeOf(error);
    if (code === null) throw error;
    console.error(printable((error as Error).message + adviceFor(error)));
    Deno.exit(code);
  }
}
