/** The order of the memory store's entries, beside a Map that is sorted for each question. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import { json } from "../stores/json/text.ts";
import { SortedEntries } from "../stores/sorted_entries.ts";
import type { Entry } from "../stores/store.ts";

/** Keys that share beginnings, and some that UTF-16 would put in another order. */
const KEYS = ["a", "ab", "b", "\ue000", "\uffff", "\u{10000}", "\u{1f600}"]
  .concat(Array.from({ length: 33 }, (_, i) => `k${i}`));

const step = fc.record({
  op: fc.constantFrom("set", "set", "delete", "get", "from"),
  key: fc.constantFrom(...KEYS),
  count: fc.nat({ max: 12 }),
});

Deno.test("SortedEntries is a sorted Map, for any calls and any length of its chunks", () => {
  const happened = { split: 0, joined: 0, emptied: 0, overChunks: 0 };
  const run = fc.record({
    longest: fc.integer({ min: 2, max: 9 }),
    steps: fc.array(step, { maxLength: 150, size: "max" }),
    removals: fc.shuffledSubarray(KEYS, { minLength: KEYS.length }),
  });
  fc.assert(
    fc.property(run, ({ longest, steps, removals }) => {
      const last = removals.map((key) => ({ op: "delete" as const, key, count: 0 }));
      const map = new Map<string, Entry>();
      const entries = new SortedEntries(longest);
      for (const [i, { op, key, count }] of steps.concat(last).entries()) {
        const before = entries.chunks.length;
        if (op === "set") {
          const entry = { key, value: json(i), revision: `${i}`, expires: null };
          map.set(key, entry);
          entries.set(entry);
          if (entries.chunks.length > before) happened.split++;
        } else if (op === "delete") {
          if (map.delete(key) && map.size === 0) happened.emptied++;
          entries.delete(key);
          if (entries.chunks.length < before) happened.joined++;
        } else if (op === "get") {
          assertEquals(entries.get(key), map.get(key) ?? null);
        } else {
          const sorted = [...map.values()].sort((a, b) => compare(a.key, b.key));
          const expected = sorted.filter((it) => compare(it.key, key) >= 0).slice(0, count);
          assertEquals(entries.from(key, count), expected);
          if (expected.length > longest) happened.overChunks++;
        }
        assertEquals(entries.size, map.size);
        assertCompact(entries);
      }
    }),
    { numRuns: 300 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 200, `${what}: ${times}`);
});

Deno.test("SortedEntries keeps nothing of keys that come and go, in any order", () => {
  const orders = {
    ascending: (i: number) => String(i).padStart(9, "0"),
    descending: (i: number) => String(1e9 - i),
    scattered: (i: number) => String((i * 7919) % 1e9).padStart(9, "0"),
  };
  for (const [name, keyOf] of Object.entries(orders)) {
    const entries = new SortedEntries();
    for (let i = 0; i < 60_000; i++) {
      entries.set({ key: keyOf(i), value: json(i), revision: "1", expires: null });
      // Every hundredth stays.
      if (i >= 500 && i % 100 !== 0) entries.delete(keyOf(i - 500));
    }
    assert(entries.size < 2000, `${name}: ${entries.size}`);
    assertCompact(entries);
  }
});

/** A call works on one chunk, and there are few of them. */
function assertCompact(entries: SortedEntries): void {
  const { chunks, longest } = entries;
  assertEquals(chunks.reduce((sum, length) => sum + length, 0), entries.size);
  for (const [i, length] of chunks.entries()) {
    assert(length <= longest, `a chunk has ${length} of at most ${longest}`);
    const next = chunks[i + 1];
    assert(next === undefined || length + next > longest / 2, `short: ${length} and ${next}`);
  }
}

/** The order of UTF-8 bytes. */
function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
