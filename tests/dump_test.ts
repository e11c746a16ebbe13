import { assertEquals } from "@std/assert";
import { entries } from "../dump.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json_text.ts";
import type { Store } from "../stores/store.ts";

Deno.test("entries() gives every entry once, over many pages", async () => {
  const store = memoryStore();
  const keys = Array.from({ length: 2500 }, (_, i) => `key${String(i).padStart(4, "0")}`);
  await store.setAll(new Map(keys.map((key, i) => [key, json(i)])));
  const seen: string[] = [];
  for await (const { key, value } of entries(store)) {
    assertEquals(value, String(keys.indexOf(key)));
    seen.push(key);
  }
  assertEquals(seen, keys);
  await store.close();
});

Deno.test("entries() passes over what is removed meanwhile", async () => {
  const memory = memoryStore();
  await memory.setAll(new Map([["a", json(1)], ["b", json(2)]]));
  const store: Store = {
    ...memory,
    async list(...args) {
      const page = await memory.list(...args);
      await memory.delete("a");
      return page;
    },
  };
  const seen: string[] = [];
  for await (const { key } of entries(store)) seen.push(key);
  assertEquals(seen, ["b"]);
  await memory.close();
});

Deno.test("entries() holds no more at a time than it is told", async () => {
  const memory = memoryStore();
  await memory.setAll(new Map(Array.from({ length: 1100 }, (_, i) => [`k${i}`, json(i)])));
  let held = 0;
  let most = 0;
  const get: Store["get"] = (key) => {
    most = Math.max(most, ++held);
    return memory.get(key);
  };
  for await (const _ of entries({ ...memory, get }, "", 16)) held--;
  assertEquals([held, most], [0, 16]);
  await memory.close();
});
