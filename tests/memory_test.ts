import { assert, assertEquals } from "@std/assert";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { allPages, openWithClock, storeConformance } from "./conformance/store.ts";
import { compareWithMap } from "./conformance/store_model.ts";
import { testClock } from "./helpers/clock.ts";
import { scoped } from "./helpers/scoped.ts";

storeConformance("memoryStore", {
  ordered: true,
  open: () => openWithClock((now) => memoryStore({ now })),
});

Deno.test("memoryStore() lists every key, however many came since the last listing", async () => {
  await using store = scoped(memoryStore());
  const keys = Array.from({ length: 40_001 }, (_, i) => String(i).padStart(5, "0"));
  for (const key of keys) await store.set(key, json(1));
  assertEquals((await allPages(store, "")).flat(), keys);
});

Deno.test("memoryStore() never shows an entry that had expired, whatever the clock does", async () => {
  const { now, pass } = testClock();
  await using store = scoped(memoryStore({ now }));
  await store.set("a", json(1), { ttl: 60 });
  pass(61);
  assertEquals(await store.get("a"), null);
  pass(-30);
  assertEquals(await store.get("a"), null);
  assertEquals((await allPages(store, "")).flat(), []);
  assertEquals((await store.set("a", json(2), { ttl: 60, ifRevision: null })).created, true);
});

Deno.test("memoryStore() answers others while it lists and sweeps what has expired", async () => {
  const { now, pass } = testClock();
  await using store = scoped(memoryStore({ now, step: 100, sweepInterval: 0 }));
  await store.setAll(new Map(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, json(i)])), {
    ttl: 60,
  });
  await store.set("last", json(1));
  pass(61);
  let isListed = false;
  const listing = store.list("").then(({ keys }) => {
    isListed = true;
    return keys;
  });
  const counts: number[] = [];
  while (!isListed || counts.at(-1) !== 1) {
    assertEquals((await store.get("last"))?.value, "1");
    counts.push(await store.count?.() ?? 0);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assertEquals(await listing, ["last"]);
  const numbers = new Set(counts).size;
  assert(numbers > 10, `${numbers} numbers of entries were seen: a sweep removes a few at a time`);
});

Deno.test("memoryStore() is a Map with lifetimes, for any calls and jumps of the clock", async () => {
  const sums: Record<string, number> = {};
  for (const step of [1, 2, 3]) {
    const clock = testClock();
    // The sweep runs between the pages of a listing that needs more than one step.
    const store = memoryStore({ now: clock.now, step, sweepInterval: 0 });
    const reached = await compareWithMap(store, clock);
    await store.close();
    for (const [what, times] of Object.entries(reached)) sums[what] = (sums[what] ?? 0) + times;
  }
  for (const [what, times] of Object.entries(sums)) assert(times > 100, `${what}: ${times}`);
});
