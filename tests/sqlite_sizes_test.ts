/** SQLite files with large values, and with many entries that have expired: no call takes long. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { json } from "../stores/json/text.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { MAX_VALUE_BYTES, type Store } from "../stores/store.ts";
import { testClock } from "./helpers/clock.ts";
import { temporaryDirectory, testWith } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";
import { allPages } from "./conformance/store.ts";

const COUNT = 24;
const KEYS = Array.from({ length: COUNT }, (_, i) => `key${i}`);
const LARGE = json("x".repeat(MAX_VALUE_BYTES - 2));
const ENTRIES = new Map(KEYS.map((key) => [key, LARGE]));

/** Reads an entry in each turn of the event loop until `done`, and returns how many turns there were. */
async function turnsUntil(store: Store, done: () => boolean): Promise<number> {
  let turns = 0;
  for (; !done(); turns++) {
    await store.get("other");
    await new Promise((resolve) => setImmediate(resolve));
  }
  return turns;
}

const WRITES: [string, (store: Store, key: string) => Promise<unknown>][] = [
  ["removes", (store, key) => store.delete(key)],
  ["replaces", (store, key) => store.set(key, LARGE)],
  ["rejects changes of", (store, key) => store.set(key, json(1), { ifRevision: "0" })],
];
for (const [verb, write] of WRITES) {
  Deno.test(`sqliteStore() answers others while it ${verb} large values`, async () => {
    await using store = scoped(sqliteStore(":memory:"));
    await store.setAll(ENTRIES);
    let done = 0;
    const writes = KEYS.map((key) => write(store, key).catch(() => {}).then(() => done++));
    const turns = await turnsUntil(store, () => done === COUNT);
    assert(turns >= COUNT / 4, `${turns} turns of the event loop for ${COUNT} MiB`);
    await Promise.all(writes);
  });
}

Deno.test("sqliteStore() answers others while it sweeps large values", async () => {
  const clock = testClock();
  await using store = scoped(sqliteStore(":memory:", { now: clock.now, sweepInterval: 1 }));
  await store.setAll(ENTRIES, { ttl: 1 });
  clock.pass(2);
  const counts = new Set<number>();
  for (let count = COUNT; count > 0;) {
    count = await store.count?.() ?? 0;
    counts.add(count);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert(counts.size >= COUNT / 4, `there were ${[...counts]} entries`);
});

testWith(
  ["/proc/self/io"],
  "sqliteStore() lists the keys of large values without reading these",
  async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "kv.db");
    const full = sqliteStore(path);
    await full.setAll(ENTRIES);
    await full.close();
    const bytesRead = () =>
      Number(/rchar: (\d+)/.exec(Deno.readTextFileSync("/proc/self/io"))?.[1]);
    await using store = scoped(sqliteStore(path));
    const before = bytesRead();
    assertEquals((await store.list("")).keys.length, COUNT);
    const read = bytesRead() - before;
    assert(read < MAX_VALUE_BYTES, `${read} bytes were read`);
  },
);

Deno.test("sqliteStore() skips a few thousand expired entries in a page of a listing, not all", async () => {
  const clock = testClock();
  await using store = scoped(sqliteStore(":memory:", { now: clock.now, sweepInterval: 1_000_000 }));
  const expiring = Array.from({ length: 5000 }, (_, i) => [`k${10_000 + i}`, json(i)] as const);
  await store.setAll(new Map(expiring), { ttl: 1 });
  await store.setAll(new Map([["a", json(1)], ["l", json(1)], ["z", json(1)]]));
  clock.pass(2);
  assertEquals(await allPages(store, "", 2), [["a"], [], ["l", "z"]]);
});

Deno.test("sqliteStore() never shows an entry that had expired, whatever the clock does", async () => {
  const { now, pass } = testClock();
  await using store = scoped(sqliteStore(":memory:", { now, sweepInterval: 1_000_000 }));
  await store.set("a", json(1), { ttl: 60 });
  pass(61);
  assertEquals(await store.get("a"), null);
  pass(-30);
  assertEquals(await store.get("a"), null);
  assertEquals((await store.list("")).keys, []);
  assert((await store.set("a", json(2), { ttl: 60, ifRevision: null })).created);
  pass(59);
  assertEquals((await store.get("a"))?.value, "2");
  pass(1);
  assertEquals(await store.get("a"), null, "a new entry expires in its time");
});

Deno.test("sqliteStore() answers reads that come together with a check and with writes", async () => {
  await using store = scoped(sqliteStore(":memory:"));
  await store.set("a", json(1));
  for (let i = 0; i < 20; i++) {
    const read = async (microtasks: number) => {
      for (let n = 0; n < microtasks; n++) await null;
      return await store.get("a");
    };
    const [entries] = await Promise.all([
      Promise.all(Array.from({ length: 12 }, (_, n) => read(n))),
      store.check(),
      store.set("b", json(i)),
      store.check(),
    ]);
    assert(entries.every((entry) => entry?.value === "1"));
  }
});
