/** A store beside a Map: any sequence of calls has the same answers. */
import { assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { json, type JsonText } from "../../stores/json/text.ts";
import { RevisionConflict, type Store } from "../../stores/store.ts";

/** Runs random calls on a store and on a Map. If an answer differs, fast-check prints the calls. */
export async function compareWithMap(store: Store): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 20 }), async (operations) => {
      for (const key of (await store.list("")).keys) await store.delete(key);
      await runBoth(store, operations);
    }),
    { numRuns: 60, interruptAfterTimeLimit: 60_000 },
  );
}

const key = fc.constantFrom("a", "ab", "b", "\u{1f600}", "__proto__");
const value = fc.jsonValue().map((it) => json(it));
/** The condition of a write: the current revision, an older one, no entry, or no condition. */
const condition = fc.constantFrom("current", "stale", "nothing", "any");
const operation = fc.oneof(
  fc.record({ op: fc.constant("set" as const), key, value, condition }),
  fc.record({ op: fc.constant("delete" as const), key, condition }),
  fc.record({ op: fc.constant("get" as const), key }),
  fc.record({ op: fc.constant("setAll" as const), values: fc.array(fc.tuple(key, value)) }),
  fc.record({ op: fc.constant("list" as const), prefix: fc.constantFrom("", "a", "b", "zz") }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

/** Runs the operations on the store and on a Map, and compares every answer. */
async function runBoth(store: Store, operations: Operation[]): Promise<void> {
  const model = new Map<string, { value: JsonText; revision: string }>();
  const stale = "stale-revision";
  for (const step of operations) {
    if (step.op === "get") {
      const entry = await store.get(step.key);
      assertEquals(
        entry && { value: entry.value, revision: entry.revision },
        model.get(step.key) ?? null,
      );
    } else if (step.op === "list") {
      const { keys } = await store.list(step.prefix);
      const expected = [...model.keys()].filter((key) => key.startsWith(step.prefix));
      assertEquals(keys.sort(), expected.sort());
    } else if (step.op === "setAll") {
      const values = new Map(step.values);
      await store.setAll(values);
      for (const [key, value] of values) {
        model.set(key, { value, revision: (await store.get(key))?.revision ?? "" });
      }
    } else {
      const current = model.get(step.key);
      const options = {
        any: {},
        nothing: { ifRevision: null },
        stale: { ifRevision: stale },
        current: { ifRevision: current?.revision ?? null },
      }[step.condition];
      const holds = !("ifRevision" in options) ||
        options.ifRevision === (current?.revision ?? null);
      const write = () =>
        step.op === "set"
          ? store.set(step.key, step.value, options)
          : store.delete(step.key, options);
      if (!holds) {
        const conflict = await assertRejects(write, RevisionConflict);
        assertEquals(conflict.current?.revision, current?.revision);
      } else if (step.op === "set") {
        const { revision, created } = await store.set(step.key, step.value, options);
        assertEquals(created, current === undefined);
        model.set(step.key, { value: step.value, revision });
      } else {
        assertEquals((await write())?.value, current?.value);
        model.delete(step.key);
      }
    }
  }
}
