/** stores/http/batches.ts: how calls are gathered into requests. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { json, parseJson } from "../stores/json/text.ts";
import { MAX_VALUE_BYTES } from "../stores/store.ts";
import { MAX_BODY_BYTES, MAX_OPERATIONS } from "../stores/wire.ts";
import { answeredBy, gated, hang, HANG_DEADLINE, isUnavailable } from "./helpers/http_store.ts";

Deno.test("httpStore() sends the calls of one turn as one request", async () => {
  const { store, below, bodies, open } = gated();
  open();
  const [set, got, removed, ...others] = await Promise.all([
    store.set("a", json(parseJson("1.10")), { ttl: 60 }),
    store.get("a"),
    store.delete("b"),
    ...Array.from({ length: 50 }, (_, i) => store.set(`k${i}`, json(i), { ifRevision: null })),
  ]);
  assertEquals(bodies.length, 1);
  assertMatch(bodies[0] ?? "", /^\[\{"op":"put","key":"a","ttl":60,"value":1\.10\},/);
  assertEquals(set.created, true);
  const { created: _, ...entry } = set;
  assertEquals(got, entry);
  assertEquals(removed, null);
  assertEquals(others.map(({ value }) => value), others.map((_, i) => String(i)));
  await store.close();
  await below.close();
});

Deno.test("httpStore() gathers the calls made while a request is under way", async () => {
  const { store, below, bodies, open } = gated();
  const calls = [store.set("a", json(0))];
  while (bodies.length === 0) await delay(1);
  for (let i = 1; i < 10; i++) {
    calls.push(store.set("a", json(i)));
    await delay(1);
  }
  assertEquals(bodies.length, 1);
  open();
  await Promise.all(calls);
  assertEquals(bodies.map((body) => JSON.parse(body).length), [1, 9]);
  assertEquals((await below.get("a"))?.value, "9");
  await store.close();
  await below.close();
});

Deno.test("httpStore() keeps the order of all calls to a key", async () => {
  const { store, below, bodies, open } = gated();
  const calls = [
    store.set("a", json(1)),
    store.setAll(new Map([["a", json(2)]]), { ttl: 60 }),
    store.get("a"),
    store.delete("a"),
    store.set("a", json(3)),
    store.setAll(new Map([["a", json(4)]])),
    store.setAll(new Map([["a", json(5)]])),
    store.get("a"),
  ];
  open();
  const [first, , second, removed, third, , , last] = await Promise.all(calls);
  assertEquals([first, second, removed, third, last].map((entry) => String(entry?.value)), [
    "1",
    "2",
    "2",
    "3",
    "5",
  ]);
  assertEquals(bodies.length, 6);
  await store.close();
  await below.close();
});

Deno.test("httpStore() puts no more operations into a request than the service takes", async () => {
  const { store, below, bodies, open } = gated();
  open();
  await Promise.all(Array.from({ length: 2500 }, (_, i) => store.set(`k${i}`, json(i))));
  const counts = bodies.map((body) => JSON.parse(body).length);
  assertEquals(counts.reduce((sum, count) => sum + count), 2500);
  assert(Math.max(...counts) <= MAX_OPERATIONS, String(counts));
  await store.close();
  await below.close();
});

Deno.test("httpStore() has up to four requests under way, and never two for one key", async () => {
  const { store, below, bodies, open } = gated();
  const calls: Promise<unknown>[] = [];
  const keysOf = (body: string | undefined) =>
    JSON.parse(body ?? "[]").map(({ key }: { key: string }) => key);
  for (const key of ["a", "b", "a", "c", "d", "e"]) {
    calls.push(store.set(key, json(calls.length)));
    await delay(5);
  }
  assertEquals(bodies.map(keysOf), [["a"], ["b"], ["c"], ["d"]]);
  open();
  await Promise.all(calls);
  assertEquals(bodies.slice(4).flatMap(keysOf).sort(), ["a", "e"]);
  assertEquals((await below.get("a"))?.value, "2");
  await store.close();
  await below.close();
});

Deno.test("httpStore() makes no request longer than the service takes", async () => {
  const answer = { status: 200, value: null, revision: "r", expires: null };
  const { store, bodies } = answeredBy((_url, { body }) => {
    const operations = String(body).split('{"op":"put"').length - 1;
    return Response.json(Array(operations).fill(answer));
  });
  const large = json("\uffff".repeat(MAX_VALUE_BYTES / 3 - 1));
  await Promise.all(Array.from({ length: 30 }, (_, i) => store.set(`k${i}`, large)));
  const lengths = bodies.map((body) => new TextEncoder().encode(body).length);
  assert(lengths.every((length) => length < MAX_BODY_BYTES), String(lengths));
  assert(lengths.length < 10, String(lengths));
  await store.close();
});

Deno.test("httpStore() does not send a call that has waited too long", async () => {
  const { store, urls } = answeredBy(hang, { deadline: HANG_DEADLINE });
  await Promise.all([
    isUnavailable(store.setAll(new Map([["a", json(1)]])), "unknown", /did not answer in time$/),
    isUnavailable(store.get("a"), "unchanged", /did not answer in time$/),
    isUnavailable(store.set("a", json(2)), "unchanged", /did not answer in time$/),
    isUnavailable(store.setAll(new Map()), "unchanged", /did not answer in time$/),
  ]);
  assertEquals(urls.length, 1);
  await store.close();
});
