/**
 * Writes a dump back into a store.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text-line-stream";
import { checkKey } from "../stores/checks.ts";
import { JsonReader } from "../stores/json/reader.ts";
import { InvalidArgument, type JsonText, type Store } from "../stores/store.ts";

/** How many entries, and about how many characters of JSON, are written at once. */
const BATCH_ENTRIES = 1000;
const BATCH_LENGTH = 1024 * 1024;
const encoder = new TextEncoder();

/** A line of the dump is not an entry. The lines before it have been restored. */
export class BadLine extends Error {
  override readonly name = "BadLine";
}

/**
 * Writes the entry of each line, `{"key": value}`; blank lines are skipped.
 *
 * @param onProgress Called with the number of entries written so far
 * @returns How many lines were restored
 * @throws {BadLine} At the first line that is not an entry
 */
export async function restore(
  store: Store,
  dump: ReadableStream<Uint8Array<ArrayBuffer>>,
  onProgress: (restored: number) => void = () => {},
): Promise<number> {
  let restored = 0;
  let number = 0;
  let batch = new Map<string, JsonText>();
  let length = 0;
  const write = async () => {
    if (batch.size > 0) await store.setAll(batch);
    restored += batch.size;
    batch = new Map();
    length = 0;
    onProgress(restored);
  };
  const stopped = async (what: string) => {
    await write();
    return new BadLine(`${what} (restored before it: ${restored})`);
  };
  try {
    for await (const line of linesOf(dump)) {
      number++;
      if (line.trim() === "") continue;
      const entry = readEntry(line);
      if (typeof entry === "string") throw await stopped(`Cannot restore line ${number}: ${entry}`);
      const [key, value] = entry;
      // A key's second line is another write.
      if (batch.has(key)) await write();
      batch.set(key, value);
      length += line.length;
      if (batch.size === BATCH_ENTRIES || length > BATCH_LENGTH) await write();
    }
  } catch (error) {
    if (!(error instanceof NotText)) throw error;
    throw await stopped(`Cannot restore what follows line ${number}: ${error.message}`);
  }
  await write();
  return restored;
}

/** A part of the dump is not UTF-8. */
class NotText extends Error {}

/** @throws {NotText} */
async function* linesOf(dump: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  try {
    yield* dump.pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))
      .pipeThrough(new TextLineStream());
  } catch (cause) {
    throw cause instanceof TypeError ? new NotText("it is not UTF-8", { cause }) : cause;
  }
}

/** The entry of a line, or what is wrong with it. */
function readEntry(line: string): [string, JsonText] | string {
  const wanted = 'expected one entry, {"key": value}';
  try {
    const entries: [string, JsonText][] = [];
    const reader = new JsonReader(encoder.encode(line));
    if (reader.peek() !== "{") return wanted;
    reader.object((key) => {
      checkKey(key);
      entries.push([key, reader.value()]);
    });
    reader.end();
    const [entry, ...others] = entries;
    return entry === undefined || others.length > 0 ? wanted : entry;
  } catch (error) {
    if (error instanceof SyntaxError) return wanted;
    if (error instanceof InvalidArgument) return error.message;
    throw error;
  }
}
