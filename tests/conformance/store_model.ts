/** A store beside a Map: any sequence of calls has the same answers. */
import { assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { setTimeout as delay } from "node:timers/promises";
import { entries } from "../../stores/dumps.ts";
import { json } from "../../stores/json/text.ts";
import { type JsonText, RevisionConflict, type Store } from "../../stores/store.ts";
import { forwardOnly } from "../../stores/timers.ts";

/** A clock that the calls may move, also back. */
export interface ModelClock {
  now(): number;
  pass(seconds: number): void;
}

/** How often the calls reached what a short example does not. */
export interface Reached {
  conflicts: number;
  /** Pages after the first of a listing. */
  pages: number;
  /** Entries that a listing had to leave out, since they had expired. */
  expired: number;
  /** Times at which the clock went back behind the expiry of an entry. */
  backwards: number;
}

/**
 * Runs random calls on a store and on a Map. If an answer differs, fast-check prints the calls.
 *
 * @param clock The store's clock, if it is a test's: entries then have lifetimes
 * @param goesBack Whether the store goes back with its clock, once it has removed what had expired
 */
export async function compareWithMap(
  store: Store,
  clock?: ModelClock,
  goesBack = false,
): Promise<Reached> {
  const reached = { conflicts: 0, pages: 0, expired: 0, backwards: 0 };
  const now = () => clock?.now() ?? 0;
  const time = goesBack ? now : forwardOnly(now);
  // Both clocks see the same times, from the first one on.
  time();
  await store.setAll(new Map(), { ttl: 1 });
  const call = clock === undefined ? timeless : fc.oneof(timeless, timed);
  await fc.assert(
    fc.asyncProperty(fc.array(call, { maxLength: clock ? 60 : 20, size: "max" }), async (calls) => {
      for await (const { key } of entries(store)) await store.delete(key);
      await runBoth(store, calls, { time, clock, goesBack, reached });
    }),
    { numRuns: goesBack ? 400 : clock ? 200 : 60, interruptAfterTimeLimit: 60_000 },
  );
  return reached;
}

const key = fc.constantFrom("a", "aa", "ab", "b", "ba", "\uffff", "\u{1f600}", "__proto__");
const value = fc.jsonValue({ maxDepth: 1 }).map((it) => json(it));
/** The condition of a write: the current revision, an older one, no entry, or no condition. */
const condition = fc.constantFrom("current", "stale", "nothing", "any");
const timeless = fc.oneof(
  fc.record({ op: fc.constant("set" as const), key, value, condition }),
  fc.record({ op: fc.constant("delete" as const), key, condition }),
  fc.record({ op: fc.constant("get" as const), key }),
  fc.record({ op: fc.constant("setAll" as const), values: fc.array(fc.tuple(key, value)) }),
  fc.record({
    op: fc.constant("list" as const),
    prefix: fc.constantFrom("", "a", "b", "zz"),
    limit: fc.integer({ min: 1, max: 4 }),
  }),
);
const ttl = fc.integer({ min: 1, max: 9 });
const timed = fc.oneof(
  fc.record({ op: fc.constant("set" as const), key, value, condition, ttl }),
  fc.record({ op: fc.constant("setAll" as const), values: fc.array(fc.tuple(key, value)), ttl }),
  fc.record({ op: fc.constant("pass" as const), seconds: fc.integer({ min: -9, max: 18 }) }),
);
type Call =
  | (typeof timeless extends fc.Arbitrary<infer T> ? T : never)
  | (typeof timed extends fc.Arbitrary<infer T> ? T : never);

/** Runs the calls on the store and on a Map, and compares every answer. */
async function runBoth(
  store: Store,
  calls: Call[],
  { time, clock, goesBack, reached }: {
    time(): number;
    clock: ModelClock | undefined;
    goesBack: boolean;
    reached: Reached;
  },
): Promise<void> {
  const model = new Map<string, { value: JsonText; revision: string; expires: number | null }>();
  const expiry = (ttl: number | undefined) => ttl === undefined ? null : time() + ttl * 1000;
  const isAlive = (key: string) => (model.get(key)?.expires ?? Infinity) > time();
  const found = (key: string) => isAlive(key) ? model.get(key) : undefined;

  for (const call of calls) {
    if (call.op === "pass") {
      const before = time();
      clock?.pass(call.seconds);
      const [now, latest] = [clock?.now() ?? 0, Math.max(before, time())];
      for (const [key, { expires }] of model) {
        if (expires === null || expires <= now || expires > latest) continue;
        reached.backwards++;
        if (goesBack) model.delete(key);
      }
      await store.setAll(new Map(), { ttl: 1 }); // the store sees the time
      if (goesBack) await goneBack(store, now);
    } else if (call.op === "get") {
      const { key: _, ...entry } = await store.get(call.key) ?? { key: null };
      assertEquals(entry, found(call.key) ?? {});
    } else if (call.op === "list") {
      const keys: string[] = [];
      let after: string | undefined;
      for (;;) {
        const page = await store.list(call.prefix, { after, limit: call.limit });
        keys.push(...page.keys);
        if (page.next === null) break;
        after = page.next;
        reached.pages++;
      }
      const expected = [...model.keys()].filter((key) => key.startsWith(call.prefix));
      assertEquals(keys.sort(), expected.filter(isAlive).sort());
      reached.expired += expected.length - keys.length;
    } else if (call.op === "setAll") {
      const ttl = "ttl" in call ? call.ttl : undefined;
      const values = new Map(call.values);
      await store.setAll(values, { ttl });
      for (const [key, value] of values) {
        const revision = (await store.get(key))?.revision ?? "";
        model.set(key, { value, revision, expires: expiry(ttl) });
      }
    } else {
      const current = found(call.key);
      const conditions = {
        any: {},
        nothing: { ifRevision: null },
        stale: { ifRevision: "stale-revision" },
        current: { ifRevision: current?.revision ?? null },
      };
      const options = conditions[call.condition];
      const holds = !("ifRevision" in options) ||
        options.ifRevision === (current?.revision ?? null);
      const ttl = "ttl" in call ? call.ttl : undefined;
      const write = () =>
        call.op === "set"
          ? store.set(call.key, call.value, { ...options, ttl })
          : store.delete(call.key, options);
      if (!holds) {
        const conflict = await assertRejects(write, RevisionConflict);
        assertEquals(conflict.current?.revision, current?.revision);
        reached.conflicts++;
      } else if (call.op === "set") {
        const { revision, created } = await store.set(call.key, call.value, { ...options, ttl });
        assertEquals(created, current === undefined);
        model.set(call.key, { value: call.value, revision, expires: expiry(ttl) });
      } else {
        assertEquals((await write())?.value, current?.value);
        model.delete(call.key);
      }
    }
  }
}

/** Waits until a store has gone back with its clock. */
async function goneBack(store: Store, now: number): Promise<void> {
  const write = () => store.set("time", json(1), { ttl: 1 });
  while ((await write()).expires !== now + 1000) await delay(1);
  await store.delete("time");
}
