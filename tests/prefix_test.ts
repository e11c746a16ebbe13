import { assertEquals, assertRejects } from "@std/assert";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { prefixed } from "../stores/prefix.ts";
import { RevisionConflict, type Store, StoreUnavailable } from "../stores/store.ts";
import { openWithClock, storeConformance } from "./conformance/store.ts";
import { CALLS } from "./helpers/http_store.ts";
import { scoped } from "./helpers/scoped.ts";

storeConformance("prefixed()", {
  ordered: true,
  longestKey: 1000,
  open: () => openWithClock((now) => prefixed(memoryStore({ now }), "é:")),
});

Deno.test("prefixed() ends the watch of its store with its own", async () => {
  await using memory = scoped(memoryStore());
  const ended = Promise.withResolvers<void>();
  const store: Store = {
    ...memory,
    async watch(...args) {
      const { position } = await memory.watch(...args);
      return { position, changes: new ReadableStream({ cancel: () => ended.resolve() }) };
    },
  };
  const { changes } = await prefixed(store, "a:").watch("");
  await changes.cancel();
  await ended.promise;
});

Deno.test("prefixed() fails where its store does", async () => {
  const memory = memoryStore();
  const store = prefixed(memory, "a:");
  await memory.close();
  for (const [, call] of CALLS) await assertRejects(() => call(store), StoreUnavailable, "closed");
});

Deno.test("prefixed() leaves out entries whose keys have no name in it", async () => {
  const memory = memoryStore();
  const store = prefixed(memory, "a:");
  const reader = (await store.watch("")).changes.getReader();
  await memory.setAll(new Map(["a:", "a:.", "a:..", "a:k"].map((key) => [key, json(1)])));
  assertEquals((await store.list("")).keys, ["k"]);
  assertEquals((await reader.read()).value?.key, "k");
  await reader.cancel();
  await store.close();
});

Deno.test("prefixed() keeps the entries of two prefixes apart", async () => {
  const store = memoryStore();
  const a = prefixed(store, "a:");
  const b = prefixed(store, "b:");
  const { changes } = await a.watch("");
  await b.set("k", json(1));
  await a.set("k", json(2));
  await a.setAll(new Map([["l", json(3)]]));
  assertEquals((await store.list("")).keys, ["a:k", "a:l", "b:k"]);
  assertEquals((await a.list("")).keys, ["k", "l"]);
  assertEquals((await b.list("")).keys, ["k"]);
  assertEquals((await b.get("k"))?.value, "1");
  const reader = changes.getReader();
  assertEquals((await reader.read()).value?.entry?.key, "k");
  assertEquals((await reader.read()).value?.key, "l");
  await reader.cancel();
  const conflict = await assertRejects(
    () => a.set("k", json(4), { ifRevision: null }),
    RevisionConflict,
  );
  assertEquals([conflict.key, conflict.current?.key], ["k", "k"]);
  assertEquals((await b.delete("k"))?.key, "k");
  await a.close();
});
