/**
 * Reads every entry of a store, and restores dumps (newline-delimited JSON). Both hold a few entries
 * at a time.
 */
import { checkTtl } from "./checks.ts";
import { BadLine, type Line, linesOf, readLine } from "./lines.ts";
import { type Entry, InvalidArgument, MAX_VALUE_BYTES, type Store } from "./store.ts";

/** How much is held at a time. */
export const LIMITS = {
  /** The longest line that is read, in bytes: a key and a value, and room for escapes. */
  lineBytes: 2 * MAX_VALUE_BYTES,
  /** How many lines, and about how many bytes, are written at once. */
  batchLines: 1000,
  batchBytes: 2 * 1024 * 1024,
  /** How many entries are fetched at once, and about how many characters of values. */
  fetched: 16,
  fetchedLength: 64 * 1024,
};

/**
 * Yields every entry of a store, or those under a prefix. One that is written, removed or expires
 * meanwhile may be among them or not.
 *
 * @example
 * ```ts
 * import { entries } from "./dumps.ts";
 * import { json } from "./json/text.ts";
 * import { line } from "./lines.ts";
 * import { openStore } from "./open.ts";
 *
 * const store = await openStore(":memory:");
 * await store.set("twitter", json("@csuf"));
 * for await (const entry of entries(store)) console.log(line(entry)); // {"twitter": "@csuf"}
 * await store.close();
 * ```
 */
export async function* entries(store: Store, prefix = "", limits = LIMITS): AsyncGenerator<Entry> {
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
      // Do not hold large entries for a slow reader: fetch them again later.
      fetched.length = used;
      keys.splice(0, used);
      for (const entry of fetched) if (entry !== null) yield entry;
    }
    after = next ?? undefined;
  } while (after !== undefined);
}

export interface RestoreOptions {
  /** The ttl of lines without a lifetime, in seconds; by default they never expire. */
  ttl?: number | undefined;
  /** Called after each write, with the number of lines that have been restored. */
  onProgress?: (restored: number) => void;
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
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
    readonly restored: number,
  ) {
    const { message } = cause as Error;
    super(line === undefined ? message : `Cannot restore line ${line}: ${message}`);
  }
}

/**
 * Writes the entry of each line, in the order of the lines; blank ones are skipped. A line is either
 * `{"key": value}`, or has a lifetime too: `{"key": "a", "value": 1, "expires": null}`.
 *
 * @param dump Bytes in UTF-8, cut anywhere
 * @returns How many lines were written, and how many left out since their entries have expired
 * @throws {RestoreStopped} At the first line that is not an entry, or if reading or writing fails
 * @throws {InvalidArgument} If the ttl is not one
 */
export async function restore(
  store: Store,
  dump: AsyncIterable<Uint8Array>,
  { ttl, onProgress = () => {}, now = Date.now, limits = LIMITS }: RestoreOptions = {},
): Promise<{ restored: number; expired: number }> {
  checkTtl(ttl);
  let batch: Line[] = [];
  let bytes = 0;
  let restored = 0;
  let expired = 0;
  const write = async () => {
    const writing = batch;
    [batch, bytes] = [[], 0];
    if (writing.length === 0) return;
    try {
      await writeAll(store, writing);
      restored += writing.length;
    } catch (error) {
      if (!(error instanceof InvalidArgument)) throw error;
      // A key is too long for the prefix that the store puts before it: find its line. Lines after it
      // may have been written, if they have another ttl.
      for (const line of writing) {
        await writeLine(store, line);
        restored++;
      }
    }
    onProgress(restored);
  };
  try {
    try {
      for await (const [number, text] of linesOf(dump, limits.lineBytes)) {
        const line = readLine(number, text, ttl, now);
        if (line.ttl === 0) {
          expired++;
          continue;
        }
        batch.push(line);
        bytes += text.length;
        if (batch.length === limits.batchLines || bytes >= limits.batchBytes) await write();
      }
    } finally {
      await write(); // also after a bad line
    }
  } catch (error) {
    const { cause, line } = error instanceof BadLine ? error : { cause: error, line: undefined };
    throw new RestoreStopped(cause, line, restored);
  }
  return { restored, expired };
}

/** Writes the last line of each key, those with one ttl together. */
async function writeAll(store: Store, lines: Line[]): Promise<void> {
  const last = new Map(lines.map((line) => [line.key, line]));
  const groups = Map.groupBy(last.values(), ({ ttl }) => ttl);
  await Promise.all(Array.from(groups, ([ttl, group]) => {
    const [first, second] = group;
    // One by one, since calls of one turn share a request and a `setAll` does not.
    return first && !second
      ? store.set(first.key, first.value, { ttl })
      : store.setAll(new Map(group.map(({ key, value }) => [key, value])), { ttl });
  }));
}

/** @throws {BadLine} If the store does not take the line */
async function writeLine(store: Store, { number, key, value, ttl }: Line): Promise<void> {
  await store.set(key, value, { ttl }).catch((error) => {
    throw error instanceof InvalidArgument ? new BadLine(number, error) : error;
  });
}
