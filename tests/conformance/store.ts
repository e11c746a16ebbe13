/**
 * The tests that every store must pass. `storeConformance()` registers them for one engine, as
 * `tests/sqlite_test.ts` does.
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../../kv.ts";
import { httpStore } from "../../stores/http/store.ts";
import { json, parseJson } from "../../stores/json/text.ts";
import {
  type Change,
  ChangesLost,
  InvalidArgument,
  MAX_DEPTH,
  MAX_KEY_BYTES,
  MAX_PAGE,
  MAX_VALUE_BYTES,
  RevisionConflict,
  type Store,
  StoreUnavailable,
  ValueTooLarge,
} from "../../stores/store.ts";
import { testClock } from "../helpers/clock.ts";
import { testWith } from "../helpers/programs.ts";
import { compareWithMap } from "./store_model.ts";

/** Opens a store for one test, with a clock that the test moves. */
export function openWithClock(openWith: (now: () => number) => Store): Promise<TestStore> {
  const { now, pass } = testClock();
  const store = openWith(now);
  return Promise.resolve({
    store,
    pass: async (seconds: number) => pass(seconds),
    [Symbol.asyncDispose]: () => store.close(),
  });
}

/** A store for one test, and its clock. */
export interface TestStore extends AsyncDisposable {
  readonly store: Store;
  /** Lets time pass; by waiting, if the engine has its own clock. */
  pass(seconds: number): Promise<void>;
}

export interface ConformanceOptions {
  open(): Promise<TestStore>;
  /** Whether `list` returns keys in order. */
  ordered: boolean;
  /** The longest key, in bytes; less than usual if a prefix counts towards it. */
  longestKey?: number;
  /** Programs that `open` needs; if one is missing, the tests are reported as ignored. */
  needs?: string[];
}

/** A client of a service over another store, by a real socket. Closing it closes all three. */
export function servedStore(below: Store): Store {
  const service = kv(below);
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, service.fetch);
  const store = httpStore(`http://127.0.0.1:${server.addr.port}`, { deadline: 600_000 });
  const close = async () => {
    await store.close();
    await server.shutdown();
    // Deno ends the streams of clients that have left a little later.
    const metrics = async () => await (await service.request("/?metrics")).text();
    while (!/^kv_watchers 0$/m.test(await metrics())) await delay(1);
    await below.close();
    // Such a stream may still begin to pause, for a millisecond.
    await delay(5);
  };
  return { ...store, close };
}

/** Keys that engines, URLs and JavaScript objects are known to mangle. */
export const AWKWARD_KEYS = [
  "a/b",
  "a%2Fb",
  "a?b=c",
  "a#b",
  "a b",
  "a+b",
  " ",
  "a\0b",
  "\0",
  "\n",
  "...",
  ".a",
  "*",
  "[a-z]",
  "\\",
  '"',
  "'",
  "__proto__",
  "constructor",
  "toString",
  "0",
  "-1",
  "%",
  "é",
  "e\u0301",
  "\u{1f600}",
  "\uffff",
  "\u{10ffff}",
  "{tag}",
  "x".repeat(MAX_KEY_BYTES),
  "é".repeat(MAX_KEY_BYTES / 2),
];

const text = (value: string) => json(parseJson(value));

export function storeConformance(name: string, options: ConformanceOptions): void {
  const { open, ordered, longestKey = MAX_KEY_BYTES, needs = [] } = options;
  const test = (promise: string, check: (test: TestStore) => Promise<void>) =>
    testWith(needs, `${name}: ${promise}`, async () => {
      await using opened = await open();
      await check(opened);
    });

  test("get returns null for a missing key", async ({ store }) => {
    assertEquals(await store.get("missing"), null);
  });

  test("set returns the entry, and get returns the same", async ({ store }) => {
    const written = await store.set("a", json({ count: 1 }));
    assertEquals(written.created, true);
    assertEquals(written.expires, null);
    const { created: _, ...entry } = written;
    assertEquals(await store.get("a"), entry);
  });

  test("set says whether the key was new", async ({ store }) => {
    assertEquals((await store.set("a", json(1))).created, true);
    assertEquals((await store.set("a", json(2))).created, false);
    assertEquals((await store.get("a"))?.value, "2");
  });

  test("values come back equal, with every digit", async ({ store }) => {
    const values = ["null", "true", '""', "0", "-0", "1.10", "1e400", "12345678901234567890", "[]"]
      .concat(['{"a":[1.0,{"b":null}]}', '{"__proto__":1}', '"\\u0000\\ud800"', '"é\u{1f600}"']);
    for (const value of values) {
      await store.set("a", text(value));
      assertEquals((await store.get("a"))?.value, value);
    }
  });

  test("a value may have 1 MiB, and not a byte more", async ({ store }) => {
    const largest = json("x".repeat(MAX_VALUE_BYTES - 2));
    await store.set("a", largest);
    assertEquals((await store.get("a"))?.value, largest);
    assertThrows(() => json("x".repeat(MAX_VALUE_BYTES - 1)), ValueTooLarge);
    assertThrows(() => json("é".repeat(MAX_VALUE_BYTES / 2)), ValueTooLarge);
  });

  test("a value may have 500 levels, and not one more", async ({ store }) => {
    const nested = (depth: number) => `${'{"[":['.repeat(depth / 2)}1.10${"]}".repeat(depth / 2)}`;
    const deepest = text(nested(MAX_DEPTH));
    await store.set("a", deepest);
    assertEquals((await store.get("a"))?.value, deepest);
    assertMatch(
      String(assertThrows(() => text(`[${nested(MAX_DEPTH)}]`))),
      /nested deeper than 500 levels/,
    );
    const brackets = json(['"[\\"'.repeat(MAX_DEPTH)]);
    await store.set("a", brackets);
    assertEquals((await store.get("a"))?.value, brackets);
  });

  test("keys of every kind stay apart", async ({ store }) => {
    const keys = AWKWARD_KEYS.filter((key) => new TextEncoder().encode(key).length <= longestKey);
    await store.setAll(new Map(keys.map((key, i) => [key, json(i)])));
    for (const [i, key] of keys.entries()) {
      const entry = await store.get(key);
      assertEquals(entry?.key, key);
      assertEquals(entry?.value, json(i), JSON.stringify(key));
      assert((await store.list(key)).keys.includes(key), `list(${JSON.stringify(key)})`);
    }
    assertEquals((await store.list("")).keys.length, keys.length);
    for (const key of keys) assertEquals((await store.delete(key))?.key, key);
    assertEquals((await store.list("")).keys, []);
  });

  test("every call rejects an invalid key", async ({ store }) => {
    for (const key of ["", ".", "..", "\ud800", "a\udc00", "x".repeat(MAX_KEY_BYTES + 1)]) {
      await assertRejects(() => store.get(key), InvalidArgument);
      await assertRejects(() => store.set(key, json(1)), InvalidArgument);
      await assertRejects(() => store.delete(key), InvalidArgument);
      const values = new Map([["good", json(1)], [key, json(1)]]);
      await assertRejects(() => store.setAll(values), InvalidArgument);
      assertEquals(await store.get("good"), null);
    }
  });

  test("an invalid ttl, limit or prefix is rejected", async ({ store }) => {
    for (const ttl of [0, -1, 0.5, NaN, Infinity, 2 ** 31]) {
      await assertRejects(() => store.set("a", json(1), { ttl }), InvalidArgument);
      await assertRejects(() => store.setAll(new Map([["a", json(1)]]), { ttl }), InvalidArgument);
    }
    for (const limit of [0, -1, 1.5, MAX_PAGE + 1]) {
      await assertRejects(() => store.list("", { limit }), InvalidArgument);
    }
    const tooLong = ["a".repeat(MAX_KEY_BYTES + 1), "é".repeat(MAX_KEY_BYTES / 2) + "a"];
    for (const prefix of ["\ud83d", "a\ude00", ...tooLong, "a".repeat(100_000)]) {
      await assertRejects(() => store.list(prefix), InvalidArgument);
      await assertRejects(() => store.watch(prefix), InvalidArgument);
    }
    assertEquals(await store.list("a".repeat(longestKey)), { keys: [], next: null });
    assertEquals(await store.get("a"), null);
  });

  test("delete returns the removed entry, or null if there was none", async (t) => {
    const { revision } = await t.store.set("a", json(1));
    assertEquals((await t.store.delete("a"))?.revision, revision);
    assertEquals(await t.store.get("a"), null);
    assertEquals(await t.store.delete("a"), null);
  });

  test("setAll writes all entries, over existing ones", async ({ store }) => {
    const before = await store.set("a", json(1), { ttl: 100 });
    await store.setAll(new Map([["a", json(2)], ["b", json(3)]]));
    const a = await store.get("a");
    assertEquals(a?.value, "2");
    assertEquals(a?.expires, null);
    assertNotEquals(a?.revision, before.revision);
    assertEquals((await store.get("b"))?.value, "3");
    await store.setAll(new Map());
  });

  test("ifRevision writes only over that revision", async ({ store }) => {
    const first = await store.set("a", json(1));
    const second = await store.set("a", json(2), { ifRevision: first.revision });
    const stale = () => store.set("a", json(3), { ifRevision: first.revision });
    const { key, current } = await assertRejects(stale, RevisionConflict);
    assertEquals([key, current?.value, current?.revision], ["a", "2", second.revision]);
    await assertRejects(() => store.delete("a", { ifRevision: first.revision }), RevisionConflict);
    assertEquals((await store.get("a"))?.value, "2");
    assertEquals((await store.delete("a", { ifRevision: second.revision }))?.value, "2");
    const gone = () => store.set("a", json(3), { ifRevision: second.revision });
    assertEquals((await assertRejects(gone, RevisionConflict)).current, null);
    assertEquals(await store.get("a"), null);
  });

  test("ifRevision null writes only a new key", async ({ store, pass }) => {
    await store.set("a", json(1), { ifRevision: null });
    await assertRejects(() => store.set("a", json(2), { ifRevision: null }), RevisionConflict);
    await assertRejects(() => store.delete("a", { ifRevision: null }), RevisionConflict);
    assertEquals(await store.delete("b", { ifRevision: null }), null);
    await store.set("a", json(2), { ttl: 1 });
    await pass(1.1);
    await store.set("a", json(3), { ifRevision: null });
    assertEquals((await store.get("a"))?.value, "3");
  });

  test("no revision is used twice, not even after a delete or an expiry", async ({ store, pass }) => {
    const seen = new Set<string>();
    for (let i = 0; i < 5; i++) {
      seen.add((await store.set("a", json(1), { ttl: 1 })).revision);
      if (i % 2) await store.delete("a");
      else if (i < 3) await pass(1.1);
    }
    assertEquals(seen.size, 5);
  });

  test("an entry exists until its ttl has passed", async ({ store, pass }) => {
    const { revision, expires } = await store.set("a", json(1), { ttl: 6 });
    await store.set("b", json(1), { ttl: 6 });
    await store.set("b", json(2));
    assertEquals(typeof expires, "number");
    await pass(1);
    assertEquals((await store.get("a"))?.expires, expires);
    await pass(5.1);
    assertEquals(await store.get("a"), null);
    assertEquals((await store.list("")).keys, ["b"], "a later set without a ttl keeps for ever");
    assertEquals(await store.delete("a"), null);
    await assertRejects(() => store.set("a", json(2), { ifRevision: revision }), RevisionConflict);
    assertEquals((await store.set("a", json(2))).created, true);
  });

  test("list returns the keys under a prefix, page by page", async ({ store }) => {
    const keys = Array.from({ length: 25 }, (_, i) => `p${String(i).padStart(2, "0")}`);
    const others = ["o", "p", "q", "q00"];
    await store.setAll(new Map([...others, ...keys].map((key) => [key, json(1)])));
    assertEquals((await store.list("p0")).keys.sort(), keys.slice(0, 10));
    const pages = await allPages(store, "p", 10);
    assertEquals(pages.flat().sort(), ["p", ...keys]);
    assert(pages.every((page) => page.length <= 10));
    assertEquals(await store.list("nothing"), { keys: [], next: null });
  });

  test("list returns every key that exists all the time, while others are written", async (t) => {
    const { store } = t;
    const stay = Array.from({ length: 60 }, (_, i) => `stay${i}`);
    await store.setAll(new Map(stay.map((key) => [key, json(1)])));
    let after: string | undefined;
    const seen: string[] = [];
    for (let page = 0; page < 1000; page++) {
      const { keys, next } = await store.list("", { after, limit: 7 });
      seen.push(...keys.filter((key) => key.startsWith("stay")));
      if (next === null) break;
      after = next;
      await store.set(`a${page}`, json(1));
      await store.set(`z${page % 5}`, json(1));
      await store.delete(`a${page - 1}`);
      await store.set(`stay${page % 60}`, json(2));
    }
    assertEquals(seen.sort(), stay.sort());
  });

  if (ordered) {
    test("list is in code point order", async ({ store }) => {
      const keys = ["a", "b", "ba", "\ue000", "\uffff", "\u{10000}", "\u{1f600}"];
      await store.setAll(new Map(keys.toReversed().map((key) => [key, json(1)])));
      assertEquals((await store.list("")).keys, keys);
      assertEquals((await allPages(store, "", 2)).flat(), keys);
    });
  }

  test("count, if the store has it, is the number of entries", async ({ store }) => {
    if (!store.count) return;
    assertEquals(await store.count(), 0);
    await store.setAll(new Map(["a", "b", "c"].map((key) => [key, json(1)])));
    await store.set("a", json(2));
    await store.delete("b");
    assertEquals(await store.count(), 2);
  });

  test("64 concurrent writers lose no update", async ({ store }) => {
    const revisions = new Set<string>();
    await Promise.all(Array.from({ length: 64 }, async () => {
      for (;;) {
        const current = await store.get("count");
        const next = json(current === null ? 1 : Number(current.value) + 1);
        try {
          const { revision } = await store.set("count", next, {
            ifRevision: current?.revision ?? null,
          });
          assert(!revisions.has(revision));
          revisions.add(revision);
          return;
        } catch (error) {
          assert(error instanceof RevisionConflict, String(error));
        }
      }
    }));
    assertEquals((await store.get("count"))?.value, "64");
  });

  test("writes to one key take effect in the order of the calls", async ({ store }) => {
    const writes: Promise<unknown>[] = [];
    for (let i = 0; i < 50; i++) {
      writes.push(store.set("a", json(i)));
      if (i % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(writes);
    assertEquals((await store.get("a"))?.value, "49");
  });

  // One hash tag: a Redis Cluster keeps changes in order only for keys on one server.
  test("watch reports every change under its prefix, in order", async ({ store }) => {
    const before = await store.watch("{w}a");
    await store.set("{w}a0", json(0));
    await take(before.changes, 1); // a Cluster may report it to a watch that begins after it
    const { changes } = await store.watch("{w}a");
    await store.set("{w}a1", json(1));
    await store.set("{w}b", json(2));
    const values = ["{w}a2", "{w}c", "{w}a\0/?"].map((key, i) => [key, json(i)] as const);
    await store.setAll(new Map(values));
    await store.delete("{w}a0");
    await store.delete("{w}a0");
    await store.set("{w}a1", json(6), { ttl: 100 });
    const seen = await take(changes, 5);
    assertEquals(seen.slice(0, 1).concat(seen.slice(3)).map(({ key }) => key), [
      "{w}a1",
      "{w}a0",
      "{w}a1",
    ]);
    assertEquals(seen.slice(1, 3).map(({ key }) => key).sort(), ["{w}a\0/?", "{w}a2"]);
    assertEquals(seen[3]?.entry, null);
    assertEquals(seen[4]?.entry, await store.get("{w}a1"));
  });

  test("watch resumes after a change that was received", async ({ store }) => {
    const first = await store.watch("");
    const start = first.position();
    for (const key of ["a", "b", "c"]) await store.set(`{w}${key}`, json(1));
    const [a] = await take(first.changes, 1);
    const again = await store.watch("", { since: a?.id });
    assertEquals((await take(again.changes, 2)).map(({ key }) => key), ["{w}b", "{w}c"]);
    const fromTheStart = await store.watch("{w}b", { since: start });
    assertEquals((await take(fromTheStart.changes, 1)).map(({ key }) => key), ["{w}b"]);
  });

  test("watch rejects an unknown since", async ({ store }) => {
    const position = (await store.watch("")).position();
    const others = [position.replace(/\d+$/, "999999"), `0${position}`, `${position} `];
    for (const unknown of ["", "x", "0", "\u{1f600}", "a\nb", ...others]) {
      await assertRejects(
        () => store.watch("", { since: unknown }),
        ChangesLost,
        undefined,
        unknown,
      );
    }
  });

  test("a watch ends with its store", async ({ store }) => {
    const { changes } = await store.watch("");
    const reader = changes.getReader();
    const next = reader.read();
    await store.close();
    assertEquals((await next).done, true);
  });

  test("a watch that ends with its store does not report entries as removed", async ({ store }) => {
    const reader = (await store.watch("")).changes.getReader();
    await store.set("a", json(1));
    await store.close();
    // It may have ended, or report what was on its way.
    assertNotEquals((await reader.read()).value?.entry, null);
    await reader.cancel();
  });

  test("a watch that begins while its store closes ends with it", async ({ store }) => {
    const [watching] = await Promise.allSettled([store.watch(""), store.close()]);
    if (watching.status === "rejected") {
      assertInstanceOf(watching.reason, StoreUnavailable);
      assertEquals(watching.reason.message, "The store is closed");
    } else assertEquals((await watching.value.changes.getReader().read()).done, true);
  });

  test("a closed store rejects every call, and can be closed twice", async ({ store }) => {
    await store.set("a", json(1));
    await store.check();
    await store.close();
    await store.close();
    const calls = [
      () => store.get("a"),
      () => store.set("a", json(2)),
      () => store.setAll(new Map([["a", json(2)]])),
      () => store.delete("a"),
      () => store.list(""),
      () => store.watch(""),
      () => store.check(),
      ...store.count ? [() => store.count?.() ?? Promise.resolve()] : [],
    ];
    for (const call of calls) {
      const { outcome } = await assertRejects(call, StoreUnavailable);
      assertEquals(outcome, "unchanged", String(call));
    }
  });

  test("behaves as a Map does, for any sequence of calls", async ({ store }) => {
    await compareWithMap(store);
  });
}

/** Returns the next changes of a watch and ends it; gives up after a minute. */
async function take(changes: ReadableStream<Change>, count: number): Promise<Change[]> {
  const seen: Change[] = [];
  const reader = changes.getReader();
  const timer = setTimeout(() => reader.cancel(), 60_000);
  while (seen.length < count) {
    const { value } = await reader.read();
    assert(value, `${seen.length} changes came, expected ${count}`);
    seen.push(value);
  }
  clearTimeout(timer);
  await reader.cancel();
  return seen;
}

/** Returns the pages of a listing. */
export async function allPages(
  store: Store,
  prefix: string,
  limit?: number,
): Promise<string[][]> {
  const pages: string[][] = [];
  let after: string | undefined;
  do {
    const { keys, next } = await store.list(prefix, { after, limit });
    pages.push(keys);
    after = next ?? undefined;
  } while (after !== undefined);
  return pages;
}
