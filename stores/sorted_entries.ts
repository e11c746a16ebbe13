/**
 * The entries of the memory store, and their keys in order: in short sorted arrays, so that a new one
 * moves only a few others.
 */
import type { Entry } from "./store.ts";

/** Entries by key, in the order of the UTF-8 bytes of the keys. */
export class SortedEntries {
  readonly #entries = new Map<string, Entry>();
  /** The keys, in order. None is empty, except the only one of an empty store. */
  readonly #chunks: string[][] = [[]];

  /** @param longest The most keys in a chunk, at least 2 */
  constructor(readonly longest = 128) {}

  get size(): number {
    return this.#entries.size;
  }

  /** How many keys each chunk has, for tests and measurements. */
  get chunks(): number[] {
    return this.#chunks.map((chunk) => chunk.length);
  }

  get(key: string): Entry | null {
    return this.#entries.get(key) ?? null;
  }

  set(entry: Entry): void {
    const { size } = this;
    this.#entries.set(entry.key, entry);
    if (this.size === size) return;
    const { chunk, index, at } = this.#find(entry.key);
    chunk.splice(index, 0, entry.key);
    if (chunk.length > this.longest) {
      this.#chunks.splice(at + 1, 0, chunk.splice(chunk.length >>> 1));
    }
  }

  delete(key: string): void {
    if (!this.#entries.delete(key)) return;
    const { chunk, index, at } = this.#find(key);
    chunk.splice(index, 1);
    this.#join(at);
    this.#join(at - 1);
  }

  /** Returns the first entries whose keys are `start` or after it, at most `count`. */
  from(start: string, count: number): Entry[] {
    const keys: string[] = [];
    let { at, index } = this.#find(start);
    for (; at < this.#chunks.length && keys.length < count; at++, index = 0) {
      keys.push(...(this.#chunks[at] as string[]).slice(index, index + count - keys.length));
    }
    return keys.map((key) => this.#entries.get(key) as Entry);
  }

  /** Returns where a key is, or where it would be inserted. */
  #find(key: string): { at: number; chunk: string[]; index: number } {
    const chunks = this.#chunks;
    const last = chunks.length - 1;
    const at = Math.min(last, firstNotBefore(chunks, key, (chunk) => chunk.at(-1) ?? ""));
    const chunk = chunks[at] as string[];
    return { at, chunk, index: firstNotBefore(chunk, key, (key) => key) };
  }

  /** Joins a chunk with the next one, if one is empty or both are short. */
  #join(at: number): void {
    const [chunk, next] = [this.#chunks[at], this.#chunks[at + 1]];
    if (chunk === undefined || next === undefined) return;
    const isShort = chunk.length + next.length <= this.longest / 2;
    if (isShort || chunk.length === 0 || next.length === 0) {
      this.#chunks.splice(at, 2, [...chunk, ...next]);
    }
  }
}

/** Returns the index of the first item whose key is not before `key`, by binary search. */
function firstNotBefore<T>(items: T[], key: string, keyOf: (item: T) => string): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (byCodePoint(keyOf(items[middle] as T), key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Compares by UTF-8 bytes. JavaScript's `<` sorts surrogate pairs, U+10000 and up, too low. */
export function byCodePoint(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

function rank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}
