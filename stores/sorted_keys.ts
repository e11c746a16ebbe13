/**
 * The keys of the memory store in order. New keys are merged into the sorted ones when they are
 * listed, so that a listing of a million keys after a write takes milliseconds and not a sort.
 *
 * @module
 */

/** How many new keys may wait: sorting them must not delay other calls for long. */
const MAX_ADDED = 20_000;

/** The keys of a map in the order of their UTF-8 bytes. */
export class SortedKeys {
  /** Some may have been deleted since. */
  #sorted: string[] = [];
  /** Some may have been deleted since, or be among the sorted as well. */
  #added = new Set<string>();
  #deleted = 0;
  readonly #has: (key: string) => boolean;

  /** @param has Whether a key is in the map */
  constructor(has: (key: string) => boolean) {
    this.#has = has;
  }

  /** Notes that a key was added to the map. */
  add(key: string): void {
    this.#added.add(key);
    if (this.#added.size === MAX_ADDED) this.#merge();
  }

  /** Notes that a key was deleted from the map. */
  delete(): void {
    this.#deleted++;
  }

  /** Yields the keys from `start` on, in order. */
  *from(start: string): Generator<string> {
    if (this.#added.size > 0) this.#merge();
    if (this.#deleted > this.#sorted.length / 2) this.#compact();
    const sorted = this.#sorted;
    for (let i = firstFrom(sorted, start); i < sorted.length; i++) {
      const key = sorted[i] as string;
      if (this.#has(key)) yield key;
    }
  }

  #merge(): void {
    const sorted = this.#sorted;
    const merged: string[] = [];
    let copied = 0;
    for (const key of [...this.#added].filter(this.#has).sort(byCodePoint)) {
      const at = firstFrom(sorted, key);
      while (copied < at) merged.push(sorted[copied++] as string);
      // It is there already if it was deleted and added again.
      if (sorted[at] !== key) merged.push(key);
    }
    while (copied < sorted.length) merged.push(sorted[copied++] as string);
    this.#sorted = merged;
    this.#added = new Set();
  }

  #compact(): void {
    this.#sorted = this.#sorted.filter(this.#has);
    this.#deleted = 0;
  }
}

/** Returns the index of the first key that is not before `start`, by binary search. */
function firstFrom(sortedKeys: string[], start: string): number {
  let low = 0;
  let high = sortedKeys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (byCodePoint(sortedKeys[middle] as string, start) < 0) low = middle + 1;
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
