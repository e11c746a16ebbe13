/** What the service holds for slow clients, and the limit of it. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { HTTPException } from "hono/http-exception";
import { kv } from "../kv.ts";
import { Memory } from "../kv/memory.ts";
import { STALL_TIMEOUT } from "../kv/pieces.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { JSON_TYPE, post, put, readProblem } from "./helpers/kv_app.ts";

const MIB = 1024 * 1024;
const NDJSON = { Accept: "application/x-ndjson" };

Deno.test("Memory counts up to its limit, and throws a 503 beyond", () => {
  const memory = new Memory(10);
  memory.take(10);
  assertEquals(assertThrows(() => memory.take(1), HTTPException).status, 503);
  memory.give(4);
  memory.take(4);
  assertEquals(memory.held, 10);
});

/** A service that holds at most 3 MiB, over three values of 1 MiB. */
async function setUp() {
  const store = memoryStore();
  const value = json("x".repeat(MIB - 2));
  for (const key of ["a", "b", "c"]) await store.set(key, value);
  const app = kv(store, { maxHeldBytes: 3 * MIB + 1000 });
  const held = async () => {
    const metrics = await (await app.request("/?metrics")).text();
    return Number(/^kv_held_bytes (\d+)$/m.exec(metrics)?.[1]);
  };
  return { store, app, held, [Symbol.asyncDispose]: () => store.close() };
}

Deno.test("kv() answers 503 with Retry-After while too much is held for others", async () => {
  await using t = await setUp();
  const dumps = await Promise.all([1, 2].map(() => t.app.request("/", { headers: NDJSON })));
  for (const dump of dumps) assertEquals(dump.status, 200);
  assert(await t.held() > 2 * MIB);
  const gets = JSON.stringify([{ op: "get", key: "a" }, { op: "get", key: "b" }]);
  const requests: [string, RequestInit][] = [
    ["/a", put(`"${"x".repeat(MIB)}${" ".repeat(MIB)}"`)],
    ["/", post(`{"a": ${" ".repeat(2 * MIB)} 1}`)],
    ["/", post("{}", { "Content-Type": "application/x-ndjson" })],
  ];
  for (const [path, init] of requests) {
    const response = await t.app.request(path, init);
    assertEquals(response.status, 503);
    assertEquals(response.headers.get("Retry-After"), "1");
    assertMatch((await readProblem(response)).detail, /^Too much is held for slow clients/);
  }
  // What is small is served.
  assertEquals((await t.app.request("/a", put("1"))).status, 200);
  for (const dump of dumps) await dump.body?.cancel();
  assertEquals(await t.held(), 0);
  const array = await t.app.request("/", post(gets));
  assertEquals(array.status, 200);
  await array.body?.cancel();
  assertEquals(await t.held(), 0);
});

Deno.test("kv() counts what a request and its response hold until the response is read", async () => {
  await using t = await setUp();
  const sent = Promise.withResolvers<void>();
  const send = (path: string, init: RequestInit = {}) => {
    const request = new Request(`http://localhost${path}`, init);
    // Deno.serve gives this to its handler.
    return t.app.fetch(request, { completed: sent.promise });
  };
  const value = await send("/a");
  assertEquals([value.status, await t.held() > MIB], [200, true]);
  const deletes = JSON.stringify([{ op: "delete", key: "b" }]);
  const headers = { ...JSON_TYPE, "Content-Length": String(deletes.length) };
  const removed = await send("/", post(deletes, headers));
  assertEquals(removed.status, 200);
  assert(await t.held() > 3 * MIB, "the removed value and the response's text");
  assertEquals((await send("/a")).status, 503);
  await value.body?.cancel();
  await removed.text();
  sent.resolve();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(await t.held(), 0);
});

Deno.test("kv() holds one part of a response at a time, whatever its length", async () => {
  await using t = await setUp();
  const gets = JSON.stringify(Array.from({ length: 30 }, () => ({ op: "get", key: "a" })));
  const responses = [
    await t.app.request("/", { headers: NDJSON }),
    await t.app.request("/", post(gets)),
  ];
  let [most, largest] = [0, 0];
  for (const response of responses) {
    let length = 0;
    for await (const chunk of response.body ?? []) {
      length += chunk.length;
      largest = Math.max(largest, chunk.length);
      if (length % 50 === 0) most = Math.max(most, await t.held());
    }
    assert(length > 3 * MIB);
  }
  assert(most < 3 * MIB);
  assertEquals(largest, 16 * 1024, "Deno holds a few pieces beside");
  assertEquals(await t.held(), 0);
});

Deno.test("kv() holds nothing for a client that left while its dump was read", async () => {
  await using t = await setUp();
  const slow: Store = {
    ...t.store,
    get: async (key) => {
      await new Promise((resolve) => setTimeout(resolve, 30));
      return await t.store.get(key);
    },
  };
  const app = kv(slow);
  const reader = (await app.request("/", { headers: NDJSON })).body?.getReader();
  // The pieces of the first entry, of which the last is short; then the second one is being fetched.
  while (((await reader?.read())?.value?.length ?? 0) > 1000);
  const reading = reader?.read();
  await new Promise((resolve) => setTimeout(resolve, 10));
  await reader?.cancel();
  await reading;
  await new Promise((resolve) => setTimeout(resolve, 100));
  const metrics = await (await app.request("/?metrics")).text();
  assertMatch(metrics, /^kv_held_bytes 0$/m);
});

Deno.test("kv() gives up a response that nobody reads for a minute", async () => {
  await using t = await setUp();
  const timers = globalThis as { setTimeout: unknown };
  const { setTimeout } = globalThis;
  const started: number[] = [];
  timers.setTimeout = (run: () => void, after = 0) => {
    started.push(after);
    return setTimeout(run, after / 600);
  };
  try {
    // Over HTTP/2 a client may not even let a response begin.
    for (const [path, reads] of [["/", 1], ["/", 0], ["/a", 1], ["/a", 0]] as const) {
      started.length = 0;
      const response = await t.app.request(path, { headers: NDJSON });
      const reader = response.body?.getReader();
      if (reads === 1) await reader?.read();
      assert(started.includes(STALL_TIMEOUT));
      assert(await t.held() > MIB);
      await new Promise((resolve) => setTimeout(resolve, 300));
      assertEquals(await t.held(), 0);
      const error = await reader?.closed.catch((error) => error);
      assertMatch(String(error), /The client reads nothing/);
    }
  } finally {
    timers.setTimeout = setTimeout;
  }
});
