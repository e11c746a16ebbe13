/** An entry as a line of newline-delimited JSON: writing lines, and reading them from bytes. */
import { Buffer } from "node:buffer";
import { checkKey, checkTtl } from "./checks.ts";
import { JsonReader } from "./json/reader.ts";
import { type Entry, InvalidArgument, type JsonText, MAX_TTL, ValueTooLarge } from "./store.ts";

const NEWLINE = 0x0a;
/** How far the clock that set an entry's time may be ahead, in seconds. */
const CLOCK_AHEAD = 3600;
/** How much of a wrong lifetime an error message shows, in characters. */
const MAX_SHOWN = 40;
/** How many members a line has at most: a key, a value, and when the entry expires. */
const MAX_MEMBERS = 3;
const WANTED =
  'expected one entry a line, {"key": value} or {"key": "a", "value": 1, "expires": null}';

/** Returns the line of an entry, without its newline: `{"key": value}`. */
export function line({ key, value }: Entry): string {
  return `{${JSON.stringify(key)}: ${value}}`;
}

/**
 * Returns the line of an entry with its lifetime: `{"key": "a", "value": 1, "expires": null}`, or the
 * time in milliseconds since 1970.
 */
export function backupLine({ key, value, expires }: Entry): string {
  return `{"key": ${JSON.stringify(key)}, "value": ${value}, "expires": ${expires}}`;
}

/** How long an entry is still kept, in whole seconds, or undefined: for ever. 0 if it has expired. */
export function ttlOf(expires: number | null, now: number): number | undefined {
  if (expires === null) return undefined;
  const left = Math.max(0, Math.ceil((expires - now) / 1000));
  return left <= MAX_TTL + CLOCK_AHEAD ? Math.min(left, MAX_TTL) : left;
}

/** What a line says. */
export interface Line {
  /** Which line of the dump it is, from 1. */
  number: number;
  key: string;
  value: JsonText;
  /** Seconds; 0 if it has expired. */
  ttl: number | undefined;
}

/** A line is not an entry: its number, and what is wrong with it. */
export class BadLine extends Error {
  constructor(readonly line: number, override readonly cause: unknown) {
    super();
  }
}

/**
 * Yields the lines that are not blank, with their numbers. Reading the next line overwrites the last.
 *
 * @throws {BadLine} If a line is too long
 */
export async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
  longest: number,
): AsyncGenerator<[number, Buffer<ArrayBuffer>]> {
  let number = 1;
  let line: Buffer<ArrayBuffer> = Buffer.alloc(4096);
  let length = 0;
  // Copies the part: even a short chunk is a view of a buffer of 64 KiB.
  const append = (part: Uint8Array) => {
    const needed = length + part.length;
    if (needed > longest) {
      throw new BadLine(number, new ValueTooLarge(`it is over ${longest} bytes`));
    }
    if (needed > line.length) {
      line = Buffer.concat([line], Math.min(Math.max(needed, 2 * line.length), longest));
    }
    line.set(part, length);
    length = needed;
  };
  // Spaces, tabs and carriage returns.
  const isBlank = () =>
    line.subarray(0, length).every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
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

/**
 * Returns what a line says.
 *
 * @param ttl Of a line without a lifetime, in seconds
 * @param now Returns the time, in milliseconds since 1970
 * @throws {BadLine} If the line is not an entry
 */
export function readLine(
  number: number,
  text: Uint8Array<ArrayBuffer>,
  ttl: number | undefined,
  now: () => number,
): Line {
  try {
    const members = membersOf(text);
    const [first, second] = members;
    const line = first && !second
      ? { number, key: first[0], value: first[1], ttl }
      : { number, ...backedUp(members, now) };
    checkKey(line.key);
    return line;
  } catch (error) {
    throw new BadLine(number, error);
  }
}

function backedUp(members: [string, JsonText][], now: () => number): Omit<Line, "number"> {
  const { key = "", value, expires } = Object.fromEntries(members);
  const isEntry = members.length === MAX_MEMBERS && key.startsWith('"');
  if (!isEntry || value === undefined || expires === undefined) {
    throw new InvalidArgument("value", WANTED);
  }
  if (!/^(null|\d{1,16})$/.test(expires)) {
    const shown = expires.slice(0, MAX_SHOWN);
    throw new InvalidArgument(
      "value",
      `"expires" is ${shown}: expected milliseconds since 1970, or null`,
    );
  }
  const ttl = ttlOf(JSON.parse(expires), now());
  if (ttl !== 0) checkTtl(ttl);
  return { key: JSON.parse(key), value, ttl };
}

function membersOf(text: Uint8Array<ArrayBuffer>): [string, JsonText][] {
  const members: [string, JsonText][] = [];
  try {
    const reader = new JsonReader(text);
    if (reader.peek() !== "{") reader.value();
    else {
      reader.object((name) => {
        // The rest of the line may be long.
        if (members.length === MAX_MEMBERS) throw new InvalidArgument("value", WANTED);
        members.push([name, reader.value()]);
      });
    }
    reader.end();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new InvalidArgument("value", `${WANTED} (${error.message})`);
  }
  return members;
}
