/**
 * A store as newline-delimited JSON, one entry a line: dumps, and restoring them. Either side holds a
 * few entries at a time, however many there are.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { checkKey, checkTtl } from "./checks.ts";
import { JsonReader } from "./json/reader.ts";
import {
  type Entry,
  InvalidArgument,
  type JsonText,
  MAX_VALUE_BYTES,
  type Store,
  ValueTooLarge,
} from "./store.ts";

/** How much is held at a time. */
export const LIMITS = {
  /** The longest line that is read, in bytes: a key and a value, and room for escapes. */
  lineBytes: 2 * MAX_VALUE_BYTES,
  /** How many lines, and about how many bytes, are written at once. */
  batchLines: 1000,
  batchBytes: 2 * 1024 * 1024,
  /** How many entries are fetched at once, and about how many characters they may have together. */
  fetched: 16,
  fetchedLength: 64 * 1024,
};
const NEWLINE = 0x0a;

// ---- Dumping -------------------------------------------------------------------------------

/**
 * Yields every entry of a store, or those under a prefix. One that is written, removed or expires
 * meanwhile may be among them or not.
 *
 * @example
 * ```ts
 * import { json } from "./json/text.ts";
 * import { entries, line } from "./lines.ts";
 * import { openStore } from "./open.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("twitter", json("@csuf"));
 * for await (const entry of entries(store)) console.log(line(entry)); // {"twitter": "@csuf"}
 * await store.close();
 * ```
 */
export async function* entries(
  store: Store,
  prefix = "",
  limits = LIMITS,
): AsyncGenerator<Entry> {
  let atOnce = 1;
  let after: string | undefined;
  do {
    const { keys, next } = await store.list(prefix, { after });
    while (keys.length > 0) {
      const fetched = await Promise.all(keys.slice(0, atOnce).map((key) => store.get(key)));
      let used = 0;
      for (let length = 0; used < fetched.length && length < limits.fetchedLength; used++) {
        length += fetched[used]?.value.length ?? 0;
      }
      atOnce = used === fetched.length ? Math.min(2 * atOnce, limits.fetched) : used;
      // Who reads slowly must not hold large entries that are not read soon: they are fetched again.
      fetched.length = used;
      keys.splice(0, used);
      for (const entry of fetched) if (entry !== null) yield entry;
    }
    after = next ?? undefined;
  } while (after !== undefined);
}

/** Returns the line of an entry, without its newline: `{"key": value}`. */
export function line({ key, value }: Entry): string {
  return `{${JSON.stringify(key)}: ${value}}`;
}

// ---- Restoring -----------------------------------------------------------------------------

/** What {@linkcode restore} takes beside the lines. */
export interface RestoreOptions {
  /** How long the entries are kept, in seconds; by default they never expire. */
  ttl?: number | undefined;
  /** Called after each write, with the number of lines that have been restored. */
  onProgress?: (restored: number) => void;
  limits?: typeof LIMITS;
}

/** A restore that stopped early. The lines before it have been restored. */
export class RestoreStopped extends Error {
  static {
    this.prototype.name = "RestoreStopped";
  }

  /**
   * @param cause What is wrong with the line, or why reading or writing failed
   * @param line The number of the bad line, if a line is the cause
   * @param restored How many lines were written
   */
  constructor(
    override readonly cause: unknown,
    readonly line: number | undefined,
    readonly restored = 0,
  ) {
    const { message } = cause as Error;
    super(line === undefined ? message : `Cannot restore line ${line}: ${message}`);
  }
}

/**
 * Writes the entry of each line, `{"key": value}`, in the order of the lines; blank ones are skipped.
 *
 * @param dump Bytes in UTF-8, cut anywhere
 * @returns How many lines were restored
 * @throws {RestoreStopped} At the first line that is not an entry, or if reading or writing fails
 * @throws {InvalidArgument} If the ttl is not one
 */
export async function restore(
  store: Store,
  dump: AsyncIterable<Uint8Array>,
  { ttl, onProgress = () => {}, limits = LIMITS }: RestoreOptions = {},
): Promise<number> {
  checkTtl(ttl);
  let values = new Map<string, JsonText>();
  let lines = 0;
  let bytes = 0;
  let restored = 0;
  const write = async () => {
    const [writing, count] = [values, lines];
    [values, lines, bytes] = [new Map(), 0, 0];
    if (count === 0) return;
    await store.setAll(writing, { ttl });
    restored += count;
    onProgress(restored);
  };
  try {
    try {
      for await (const [number, line] of linesOf(dump, limits.lineBytes)) {
        const [key, value] = entryOf(number, line);
        values.set(key, value);
        lines++;
        bytes += line.length;
        if (lines === limits.batchLines || bytes >= limits.batchBytes) await write();
      }
    } finally {
      // The good lines before a bad one, too.
      await write();
    }
  } catch (error) {
    const { cause, line } = error instanceof RestoreStopped
      ? error
      : { cause: error, line: undefined };
    throw new RestoreStopped(cause, line, restored);
  }
  return restored;
}

/**
 * The lines that are not blank, with their numbers. A line is valid until the next one is asked for.
 *
 * @throws {RestoreStopped} If a line is too long
 */
async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
  longest: number,
): AsyncGenerator<[number, Buffer<ArrayBuffer>]> {
  let number = 1;
  let line: Buffer<ArrayBuffer> = Buffer.alloc(4096);
  let length = 0;
  // Copied, since a chunk is a view of a buffer of 64 KiB, however short it is.
  const append = (part: Uint8Array) => {
    const needed = length + part.length;
    if (needed > longest) {
      throw new RestoreStopped(new ValueTooLarge(`it is over ${longest} bytes`), number);
    }
    if (needed > line.length) {
      const longer = Buffer.alloc(Math.min(Math.max(needed, 2 * line.length), longest));
      line.copy(longer, 0, 0, length);
      line = longer;
    }
    line.set(part, length);
    length = needed;
  };
  const isBlank = () => {
    for (let i = 0; i < length; i++) if (!isWhiteSpace(line[i])) return false;
    return true;
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      append(chunk.subarray(start, end));
      if (!isBlank()) yield [number, line.subarray(0, length)];
      length = 0;
      start = end + 1;
      number++;
    }
    append(chunk.subarray(start));
  }
  if (!isBlank()) yield [number, line.subarray(0, length)];
}

/** Whether a byte is white space within a line: a space, a tab or a carriage return. */
function isWhiteSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d;
}

/** @throws {RestoreStopped} If the line is not an entry */
function entryOf(number: number, line: Uint8Array<ArrayBuffer>): [string, JsonText] {
  const entries: [string, JsonText][] = [];
  let problem = "";
  try {
    const reader = new JsonReader(line);
    if (reader.peek() !== "{") reader.value();
    else {
      reader.object((key) => {
        checkKey(key);
        entries.push([key, reader.value()]);
      });
    }
    reader.end();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw new RestoreStopped(error, number);
    problem = ` (${error.message})`;
  }
  const [entry, ...others] = entries;
  if (entry !== undefined && others.length === 0 && problem === "") return entry;
  const message = `expected one entry, {"key": value}${problem}`;
  throw new RestoreStopped(new InvalidArgument("value", message), number);
}
