/**
 * Writes a dump back into a store.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text-line-stream";
import { checkKey } from "../stores/checks.ts";
import { json, type JsonText, parseJson } from "../stores/json_text.ts";
import { InvalidArgument, type Store } from "../stores/store.ts";

/** How many entries, and about how many characters of JSON, are written at once. */
const BATCH_ENTRIES = 1000;
const BATCH_LENGTH = 1024 * 1024;

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
  const lines = dump.pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))
    .pipeThrough(new TextLineStream());
  for await (const line of lines) {
    number++;
    if (line.trim() === "") continue;
    const entry = readEntry(line);
    if (typeof entry === "string") {
      await write();
      throw new BadLine(
        `Cannot restore line ${number}: ${entry} (restored before it: ${restored})`,
      );
    }
    const [key, value] = entry;
    // A key's second line is another write.
    if (batch.has(key)) await write();
    batch.set(key, value);
    length += line.length;
    if (batch.size === BATCH_ENTRIES || length > BATCH_LENGTH) await write();
  }
  await write();
  return restored;
}

/** The entry of a line, or what is wrong with it. */
function readEntry(line: string): [string, JsonText] | string {
  const wanted = 'expected one entry, {"key": value}';
  try {
    const object = parseJson(line);
    if (typeof object !== "object" || object === null || Array.isArray(object)) return wanted;
    const [entry, ...others] = Object.entries(object);
    if (entry === undefined || others.length > 0) return wanted;
    checkKey(entry[0]);
    return [entry[0], json(entry[1])];
  } catch (error) {
    if (error instanceof SyntaxError) return wanted;
    if (error instanceof InvalidArgument) return error.message;
    throw error;
  }
}
