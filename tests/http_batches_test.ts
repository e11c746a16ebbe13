/** stores/http/batches.ts: how calls are gathered into requests. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { Batches } from "../stores/http/batches.ts";
import { json, parseJson } from "../stores/json/text.ts";
import { MAX_VALUE_BYTES, RevisionConflict, StoreUnavailable } from "../stores/store.ts";
import { MAX_BODY_BYTES, MAX_OPERATIONS } from "../stores/wire.ts";
import {
  answeredBy,
  gated,
  hang,
  HANG_DEADLINE,
  isUnavailable,
  PATIENT,
} from "./helpers/http_store.ts";
import { eventually } from "./helpers/programs.ts";

Deno.test("httpStore() sends the writes of one turn as one request, and the reads as another", async () => {
  const { store, below, bodies, open } = gated();
  const before = await below.set("a", json(0));
  open();
  const [set, got, removed, ...others] = await Promise.all([
    store.set("b", json(parseJson("1.10")), { ttl: 60 }),
    store.get("a"),
    store.delete("c"),
    ...Array.from({ length: 50 }, (_, i) => store.set(`k${i}`, json(i), { ifRevision: null })),
    ...Array.from({ length: 50 }, () => store.get("a")),
  ]);
  assertEquals(bodies.length, 2);
  const writes = bodies.find((body) => body.includes("put")) ?? "";
  assertMatch(writes, /^\[\{"op":"put","key":"b","ttl":60,"value":1\.10\},/);
  assertEquals(bodies.map((body) => JSON.parse(body).length).sort(), [51, 52]);
  assertEquals([set.created, set.value], [true, "1.10"]);
  const { created: _, ...entry } = before;
  assertEquals([got, removed], [entry, null]);
  const expected = Array.from({ length: 100 }, (_, i) => i < 50 ? String(i) : "0");
  assertEquals(others.map((it) => String(it?.value)), expected);
  await store.close();
  await below.close();
});

Deno.test("Batches sends each call once and in order, for any calls and limits", async () => {
  const happened = { full: 0, "several of them": 0, "requests of their own": 0 };
  const runs = fc.record({
    requests: fc.integer({ min: 1, max: 3 }),
    operations: fc.integer({ min: 1, max: 4 }),
    steps: fc.array(fc.constantFrom("operate", "operate", "operate", "request", "answer"), {
      maxLength: 60,
      size: "max",
    }),
  });
  await fc.assert(
    fc.asyncProperty(runs, async ({ requests, operations, steps }) => {
      const sent: string[] = [];
      const underWay: (() => void)[] = [];
      const start = (calls: string[]) => {
        sent.push(...calls);
        assert(calls.length <= operations);
        if (calls.length === operations) happened.full++;
        return new Promise<void>((resolve) => underWay.push(resolve));
      };
      const batches = new Batches({
        requests,
        operations,
        timeout: PATIENT,
        late: () => new Error("late"),
        async send(batch) {
          await start(batch.map(({ text }) => text));
          for (const { resolve } of batch) resolve({ status: 200, entry: null });
          return [];
        },
      });
      const calls: Promise<unknown>[] = [];
      for (const [i, step] of steps.entries()) {
        if (step === "operate") calls.push(batches.operate({ op: "get", key: "a" }, `${i}`));
        else if (step === "request") calls.push(batches.request(() => start([`${i}`])));
        else {
          underWay.shift()?.();
          await new Promise((resolve) => setImmediate(resolve));
          assert(underWay.length <= requests);
          if (underWay.length > 1) happened["several of them"]++;
        }
      }
      happened["requests of their own"] += steps.filter((it) => it === "request").length;
      const idle = batches.idle();
      let isIdle = false;
      void idle.then(() => isIdle = true);
      while (!isIdle) {
        underWay.shift()?.();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(calls);
      assertEquals(sent, steps.flatMap((step, i) => step === "answer" ? [] : [`${i}`]));
    }),
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 20, `${what}: ${times}`);
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

Deno.test("httpStore() keeps the order of all writes", async () => {
  const { store, below, bodies, open } = gated();
  const calls = [
    store.set("a", json(1)),
    store.setAll(new Map([["a", json(2)]]), { ttl: 60 }),
    store.delete("a"),
    store.set("a", json(3)),
    store.setAll(new Map([["a", json(4)]])),
    store.setAll(new Map([["a", json(5)]])),
    store.delete("a"),
  ];
  open();
  const [first, , removed, second, , , last] = await Promise.all(calls);
  const values = [first, removed, second, last].map((entry) => String(entry?.value));
  assertEquals(values, ["1", "2", "3", "5"]);
  assertEquals(bodies.length, 6);
  await store.close();
  await below.close();
});

Deno.test("httpStore() answers reads while writes wait for their answer", async () => {
  const gate = Promise.withResolvers<void>();
  const { store, bodies } = answeredBy(async (_url, { body }) => {
    if (String(body).includes("put")) await gate.promise;
    return Response.json([{ status: 200, value: 1, revision: "r", expires: null }]);
  });
  const write = store.set("a", json(1));
  while (bodies.length === 0) await delay(1);
  assertEquals((await store.get("a"))?.value, "1");
  gate.resolve();
  await write;
  await store.close();
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

Deno.test("httpStore() has one request with writes under way, and up to four with reads", async () => {
  const { store, below, bodies, open } = gated();
  const calls: Promise<unknown>[] = [];
  for (const [i, key] of ["a", "b", "c", "d", "e", "f"].entries()) {
    calls.push(store.get(key), store.set(key, json(1)));
    // A write and a read, then three more reads.
    await eventually("a request", () => Promise.resolve(bodies.length >= Math.min(i + 2, 5)));
  }
  await delay(5); // in which no other is sent
  const sent = (op: string) =>
    bodies.filter((body) => body.includes(`"${op}"`)).map((body) =>
      JSON.parse(body).map(({ key }: { key: string }) => key).join("")
    );
  assertEquals([sent("put"), sent("get")], [["a"], ["a", "b", "c", "d"]]);
  open();
  await Promise.all(calls);
  assertEquals([sent("put"), sent("get")], [["a", "bcdef"], ["a", "b", "c", "d", "ef"]]);
  assertEquals((await below.list("")).keys.length, 6);
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
    isUnavailable(store.set("a", json(2)), "unchanged", /did not answer in time$/),
    isUnavailable(store.delete("a"), "unchanged", /did not answer in time$/),
    isUnavailable(store.setAll(new Map()), "unchanged", /did not answer in time$/),
  ]);
  assertEquals(urls.length, 1);
  await store.close();
});

Deno.test("httpStore() ends 130,000 calls to a hung service, a few at a time", async () => {
  const { store } = answeredBy(hang, { deadline: HANG_DEADLINE });
  const outcomes = { unchanged: 0, unknown: 0 };
  const ended = () => outcomes.unchanged + outcomes.unknown;
  const calls = Array.from(
    { length: 130_000 },
    (_, i) =>
      store.set(`k${i}`, json(i)).catch((error) => {
        assert(error instanceof StoreUnavailable);
        outcomes[error.outcome]++;
      }),
  );
  const counts = new Set<number>();
  const timer = setInterval(() => counts.add(ended()), 1);
  await Promise.all(calls);
  clearInterval(timer);
  assert(outcomes.unknown < 1000, `${outcomes.unknown} were sent`);
  assertEquals(ended(), 130_000);
  // Other work of the process went on meanwhile.
  assert(counts.size > 50, `in ${counts.size} steps`);
  await store.close();
});

Deno.test("httpStore() deletes and compares any number of large values in one turn", async () => {
  const { store, below, open } = gated();
  open();
  const keys = Array.from({ length: 60 }, (_, i) => `k${i}`);
  const large = json("x".repeat(600_000));
  for (const key of keys) await below.set(key, large);
  const refused = await Promise.allSettled(
    keys.map((key) => store.set(key, json(1), { ifRevision: null })),
  );
  for (const [i, it] of refused.entries()) {
    assert(it.status === "rejected" && it.reason instanceof RevisionConflict, keys[i]);
    assertEquals(it.reason.current?.key, keys[i]);
  }
  const removed = await Promise.all(keys.map((key) => store.delete(key)));
  assertEquals(removed.map((it) => it?.key), keys);
  assertEquals((await below.list("")).keys, []);
  await store.close();
  await below.close();
});

Deno.test("httpStore() sends an operation that was left out again, unless a later one is done", async () => {
  const left = { status: 429, detail: "too large", outcome: "unchanged" };
  const removed = { status: 200, value: 1, revision: "r", expires: null };
  const written = { status: 201, revision: "s", expires: null };
  const answers = [[left, written, left, left], [removed, left], [removed]];
  const { store, bodies } = answeredBy(() => Response.json(answers.shift()));
  const [lost, set, ...others] = await Promise.allSettled([
    store.delete("a"),
    store.set("a", json(1)),
    store.delete("b"),
    store.delete("c"),
  ]);
  assertEquals(set?.status, "fulfilled");
  assert(lost?.status === "rejected" && lost.reason.outcome === "unchanged");
  for (const it of others) assertEquals(it.status, "fulfilled");
  const keys = bodies.map((body) => JSON.parse(body).map((it: { key: string }) => it.key));
  assertEquals(keys, [["a", "a", "b", "c"], ["b", "c"], ["c"]]);
  await store.close();
});
