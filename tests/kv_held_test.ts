/** What the service holds for slow clients, and the limit of it. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { STALL_TIMEOUT } from "../kv/answers.ts";
import { Budget, Held, SMALL_BYTES, TooMuchHeld } from "../kv/held.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { operate, post, put, readProblem } from "./helpers/kv_app.ts";
import { eventually } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";
import { replaced } from "./helpers/replaced.ts";

const MIB = 1024 * 1024;
const NDJSON = { Accept: "application/x-ndjson" };

Deno.test("Held counts in the budget of all, up to its limit", () => {
  const budget = new Budget(100_000);
  const [one, other] = [new Held(budget), new Held(budget)];
  one.keep(60_000);
  assertThrows(() => other.keep(40_001), TooMuchHeld);
  other.keep(40_000);
  assertEquals(budget.held, 100_000);
  // What is dropped makes room for what is sent, and for nobody else.
  one.drop(60_000);
  assertThrows(() => other.keep(1), TooMuchHeld);
  one.send("x".repeat(50_000) + "é".repeat(5_000));
  assertEquals(budget.held, 40_000, "up to 64 KiB is not counted");
  one.send("x".repeat(60_000));
  one.send("small");
  assertEquals(budget.held, 40_000);
  other.end();
  assertEquals(budget.held, 0);
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

Deno.test("kv() keeps half of the room from clients that may only read", async () => {
  await using t = await setUp();
  const tokens = { tokens: ["all"], readTokens: ["read"] };
  const app = kv(t.store, { maxHeldBytes: 6 * MIB, ...tokens });
  const as = (token: string) => ({ ...NDJSON, Authorization: `Bearer ${token}` });
  const unread: Response[] = [];
  for (;;) {
    const response = await app.request("/", { headers: as("read") });
    if (response.status === 503) break;
    assert(unread.push(response) < 10);
  }
  const body = `"${"x".repeat(MIB - 2)}"`;
  const headers = { Authorization: "Bearer all", "Content-Type": "application/json" };
  const written = await app.request("/a", { method: "PUT", body, headers });
  assertEquals(written.status, 200);
  await written.body?.cancel();
  for (const { body } of unread) await body?.cancel();
});

Deno.test("kv() needs room for the value of a PUT once, which it also answers", async () => {
  await using t = await setUp();
  const unread = await Promise.all(["/a", "/b"].map((path) => t.app.request(path)));
  const value = json("y".repeat(MIB - 2));
  const long = "k".repeat(500);
  const refused = await t.app.request(`/${long}${long}`, put(value));
  assertEquals(refused.status, 503, "there is no room for the key in its answer");
  await refused.body?.cancel();
  assertEquals(await t.store.get(`${long}${long}`), null);
  const response = await t.app.request("/c", put(value));
  assertEquals(response.status, 200);
  for (const { body } of [...unread, response]) await body?.cancel();
  assertEquals(await t.held(), 0);
});

/** Reads nothing of three values of 1 MiB, so that 999 bytes are left. */
async function fill({ app, held }: Awaited<ReturnType<typeof setUp>>) {
  const unread = await Promise.all(["/a", "/b", "/c"].map((path) => app.request(path)));
  assert(await held() > 3 * MIB);
  return async () => {
    for (const { body } of unread) await body?.cancel();
  };
}

Deno.test("kv() writes nothing that it has no room to answer, and says so", async () => {
  await using t = await setUp();
  const release = await fill(t);
  const large = `"${"x".repeat(SMALL_BYTES)}"`;
  const requests: [string, RequestInit][] = [
    ["/a", { method: "DELETE" }],
    ["/a", { method: "DELETE", headers: { "If-Match": "*" } }],
    ["/a?ttl=60", { method: "PATCH" }],
    ["/a", put(large)],
    ["/", post(`{"d":${large}}`)],
    ["/", { method: "POST", body: new URLSearchParams({ d: "\x01".repeat(20_000) }) }],
  ];
  const entries = () => Promise.all(["a", "b", "c", "d"].map((key) => t.store.get(key)));
  const before = await entries();
  for (const [path, init] of requests) {
    const response = await t.app.request(path, init);
    assertEquals([response.status, response.headers.get("Retry-After")], [503, "1"]);
    assertEquals((await readProblem(response)).outcome, "unchanged", path);
  }
  const answers = await operate(t.app, [
    { op: "delete", key: "a" },
    { op: "put", key: "b", value: 1, ifRevision: null },
    { op: "get", key: "c" },
    { op: "delete", key: "missing", ifRevision: "x" },
  ]);
  for (const { status, outcome } of answers) assertEquals([status, outcome], [503, "unchanged"]);
  const stale = await t.app.request("/a", put("1", { "If-Match": '"stale"' }));
  assertEquals(stale.status, 412);
  assertEquals((await readProblem(stale)).current, undefined, "a shorter answer");
  assertEquals(await entries(), before);

  // What is small is done.
  await t.store.set("small", json(1));
  for (const [path, init] of [["/d", put("1")], ["/small", { method: "DELETE" }]] as const) {
    assert((await t.app.request(path, init)).ok);
  }
  assertEquals((await operate(t.app, [{ op: "put", key: "d", value: 2 }]))[0]?.status, 200);
  await release();
  assertEquals(await t.held(), 0);
  for (const [path, init] of requests) {
    await t.store.set("a", json("x".repeat(SMALL_BYTES)));
    const response = await t.app.request(path, init);
    assert(response.ok, path);
    await response.body?.cancel();
  }
  assertEquals(await t.held(), 0);
});

Deno.test("kv() returns the value of each delete of an array, or does not do it", async () => {
  await using store = scoped(memoryStore());
  const value = json("x".repeat(MIB - 2));
  const keys = Array.from({ length: 256 }, (_, i) => `k${i}`);
  await store.setAll(new Map(keys.map((key) => [key, value])));
  for (const maxHeldBytes of [20 * MIB, undefined]) {
    const app = kv(store, maxHeldBytes === undefined ? {} : { maxHeldBytes });
    const left = (await store.list("")).keys;
    const array = JSON.stringify(left.map((key) => ({ op: "delete", key })));
    const answers = await Promise.all([1, 2].map(async () => {
      const response = await app.request("/", post(array));
      assertEquals(response.status, 200);
      return await response.json() as { status: number; outcome?: string; value?: string | null }[];
    }));
    const still = new Set((await store.list("")).keys);
    assert(still.size < left.length);
    for (const [i, key] of left.entries()) {
      const both = answers.map((answer) => answer[i]);
      const removed = both.filter((answer) => answer?.value?.length === MIB - 2);
      assertEquals(removed.length, still.has(key) ? 0 : 1, key);
      for (const answer of both) assert(answer?.status === 200 || answer?.outcome === "unchanged");
    }
  }
});

Deno.test("kv() counts the current entry that comes with a 412", async () => {
  await using t = await setUp();
  const stale = { headers: { "If-Match": '"stale"' } };
  const answers = [];
  for (let i = 0; i < 5; i++) answers.push(await t.app.request("/a", stale));
  assert(await t.held() > 3 * MIB && await t.held() < 3 * MIB + 1000);
  const problems = await Promise.all(answers.map(readProblem));
  assertEquals(
    problems.map(({ current }) => typeof current?.["a"]),
    ["string", "string", "string", "undefined", "undefined"],
  );
  assertEquals(await t.held(), 0);
});

Deno.test("kv() counts what a response holds until it is read", async () => {
  await using t = await setUp();
  const value = await t.app.request("/a");
  assertEquals([value.status, await t.held() > MIB], [200, true]);
  const removed = await t.app.request("/", post(JSON.stringify([{ op: "delete", key: "b" }])));
  assertEquals(removed.status, 200);
  assert(await t.held() > 2 * MIB, "the removed value too");
  await value.body?.cancel();
  assert(await t.held() < 2 * MIB);
  await removed.text();
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
  const { setTimeout } = globalThis;
  const started: number[] = [];
  using _setTimeout = replaced(globalThis, {
    setTimeout: (run: () => void, after = 0) => {
      started.push(after);
      return setTimeout(run, after / 600);
    },
  });
  // Over HTTP/2 a client may not even let a response begin.
  for (const [path, reads] of [["/", 1], ["/", 0], ["/a", 1], ["/a", 0]] as const) {
    started.length = 0;
    const response = await t.app.request(path, { headers: NDJSON });
    const reader = response.body?.getReader();
    if (reads === 1) await reader?.read();
    assert(started.includes(STALL_TIMEOUT));
    assert(await t.held() > MIB);
    await eventually("room again", async () => await t.held() === 0);
    const error = await reader?.closed.catch((error) => error);
    assertMatch(String(error), /The client reads nothing/);
  }
});

Deno.test("kv() holds nothing for a client that leaves while its next results are fetched", async () => {
  await using t = await setUp();
  let gets = 0;
  const asked = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const slow: Store = {
    ...t.store,
    async get(key) {
      // The first ones are fetched before the response begins.
      if (++gets > 16) {
        asked.resolve();
        await opened.promise;
      }
      return await t.store.get(key);
    },
  };
  const app = kv(slow);
  const gauge = async () => await (await app.request("/?metrics")).text();
  const operations = Array.from({ length: 40 }, () => ({ op: "get", key: "a" }));
  const { body } = await app.request("/", post(JSON.stringify(operations)));
  const reader = body?.getReader();
  const reading = (async () => {
    while (!(await reader?.read())?.done);
  })();
  await asked.promise;
  assertMatch(await gauge(), /^kv_held_bytes [1-9]/m);
  await reader?.cancel();
  opened.resolve();
  await reading;
  await delay(20); // until the entry is there
  await eventually("room again", async () => /^kv_held_bytes 0$/m.test(await gauge()), 10);
});
