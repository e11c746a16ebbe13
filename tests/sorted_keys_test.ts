import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import { SortedKeys } from "../stores/sorted_keys.ts";

Deno.test("SortedKeys yields the keys of a map in order, for any additions and deletions", () => {
  const key = fc.constantFrom("a", "ab", "b", "\ue000", "\uffff", "\u{10000}", "\u{1f600}");
  const step = fc.tuple(fc.constantFrom("add", "delete", "list"), key);
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const map = new Set<string>();
    const keys = new SortedKeys((key) => map.has(key));
    for (const [name, key] of steps) {
      if (name === "add" && !map.has(key)) {
        map.add(key);
        keys.add(key);
      } else if (name === "delete" && map.delete(key)) {
        keys.delete();
      } else if (name === "list") {
        const expected = [...map].filter((it) => compare(it, key) >= 0).sort(compare);
        assertEquals([...keys.from(key)], expected);
      }
    }
  }));
});

Deno.test("SortedKeys does not sort all keys again for a new one", () => {
  const map = new Set<string>(Array.from({ length: 200_000 }, () => crypto.randomUUID()));
  const keys = new SortedKeys((key) => map.has(key));
  const first = timeOf(() => {
    for (const key of map) keys.add(key);
    keys.from("").next();
  });
  const again = timeOf(() => {
    keys.add("a");
    keys.from("").next();
  });
  assert(again < first / 5, `${again} ms after ${first} ms`);
});

/** The order of UTF-8 bytes. */
function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function timeOf(run: () => void): number {
  const start = performance.now();
  run();
  return performance.now() - start;
}
