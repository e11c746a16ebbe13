/** Arrays of operations. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { json } from "../stores/json/text.ts";
import { MAX_KEY_BYTES, MAX_VALUE_BYTES } from "../stores/store.ts";
import { MAX_OPERATIONS } from "../stores/wire.ts";
import { NOW, operate, post, readProblem, test } from "./helpers/kv_app.ts";

test("answers each operation in its place, and never returns a value it was given", async ({ app, store }) => {
  const { revision } = await store.set("old", json("was"));
  const answers = await operate(app, [
    { op: "get", key: "old" },
    { op: "get", key: "missing" },
    { op: "put", key: "new", value: { a: [1] }, ttl: 60 },
    { op: "put", key: "old", value: null },
    { op: "delete", key: "missing" },
    { op: "delete", key: "new" },
  ]);
  const written = answers[2]?.revision;
  const over = (await store.get("old"))?.revision;
  const nothing = { status: 200, value: null, revision: null, expires: null };
  const expires = NOW + 60_000;
  assertEquals(answers, [
    { status: 200, value: "was", revision, expires: null },
    nothing,
    { status: 201, revision: written, expires },
    { status: 200, revision: over, expires: null },
    nothing,
    { status: 200, value: { a: [1] }, revision: written, expires },
  ]);
});

test("executes operations on one key in order", async ({ app, store }) => {
  const answers = await operate(app, [
    { op: "put", key: "a", value: 1 },
    { op: "get", key: "a" },
    { op: "put", key: "a", value: 2 },
    { op: "delete", key: "a" },
    { op: "get", key: "a" },
    { op: "put", key: "a", value: 3, ifRevision: null },
    { op: "put", key: "a", value: 4, ifRevision: null },
    { op: "put", key: "a", value: 5 },
  ]);
  assertEquals(answers.map(({ status, value }) => [status, value]), [
    [201, undefined],
    [200, 1],
    [200, undefined],
    [200, 2],
    [200, null],
    [201, undefined],
    [412, 3],
    [200, undefined],
  ]);
  assertEquals((await store.get("a"))?.value, "5");
});

test("executes an operation only if its condition holds", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  const current = { status: 412, value: 1, revision, expires: null };
  const missing = { status: 412, value: null, revision: null, expires: null };
  assertEquals(
    await operate(app, [
      { op: "put", key: "a", value: 2, ifRevision: "stale" },
      { op: "put", key: "a", value: 2, ifRevision: null },
      { op: "delete", key: "a", ifRevision: "stale" },
      { op: "put", key: "b", value: 2, ifRevision: "stale" },
      { op: "delete", key: "b", ifRevision: "stale" },
    ]),
    [current, current, current, missing, missing],
  );
  const [put, removed] = await operate(app, [
    { op: "put", key: "a", value: 2, ifRevision: revision },
    { op: "delete", key: "b", ifRevision: null },
  ]);
  assertEquals(put?.status, 200);
  assertEquals(removed?.status, 200);
  assertEquals((await store.list("")).keys, ["a"]);
});

test("accepts a whole ttl in any notation of a number", async ({ app, store }) => {
  const puts = ["60", "60.0", "6e1", "1.5"].map((ttl) =>
    `{"op":"put","key":"k${ttl}","value":1,"ttl":${ttl}}`
  );
  const answers = await (await app.request("/", post(`[${puts}]`))).json();
  assertEquals(answers.map(({ status }: { status: number }) => status), [201, 201, 201, 400]);
  for (const key of ["k60", "k60.0", "k6e1"]) {
    assertEquals((await store.get(key))?.expires, NOW + 60_000, key);
  }
});

test("answers 400 for an operation with a bad argument alone", async ({ app, store }) => {
  const bad = [
    { op: "get", key: "" },
    { op: "get", key: "x".repeat(MAX_KEY_BYTES + 1) },
    { op: "put", key: "..", value: 1 },
    { op: "put", key: "a", value: 1, ttl: 0 },
    { op: "delete", key: "\ud800" },
  ];
  for (const operation of bad) {
    const [first, answer, last] = await operate(app, [
      { op: "put", key: "good", value: 1 },
      operation,
      { op: "get", key: "good" },
    ]);
    assert(first?.status === 200 || first?.status === 201);
    assertEquals(Object.keys(answer ?? {}), ["status", "detail"], JSON.stringify(operation));
    assertEquals(answer?.status, 400);
    assertMatch(String(answer?.detail), /^Cannot /);
    assertEquals(last?.value, 1);
  }
  assertEquals((await store.list("")).keys, ["good"]);
});

test("rejects an array with anything but operations, and executes none of it", async (t) => {
  const large = "x".repeat(MAX_VALUE_BYTES);
  const bad: [unknown, number][] = [
    [null, 400],
    [1, 400],
    ["get", 400],
    [[], 400],
    [{}, 400],
    [{ op: "get" }, 400],
    [{ op: "patch", key: "a" }, 400],
    [{ op: "get", key: 1 }, 400],
    [{ op: "get", key: "a", ttl: 1 }, 400],
    [{ op: "put", key: "a" }, 400],
    [{ op: "put", key: "a", value: 1, ttl: "60" }, 400],
    [{ op: "put", key: "a", value: 1, ifRevision: 1 }, 400],
    [{ op: "put", key: "a", value: 1, other: 1 }, 400],
    [{ op: "put", key: "a", value: 1, ttl: 1, ifRevision: null, b: 1 }, 400],
    [{ op: "delete", key: "a", value: 1 }, 400],
    [JSON.parse('{"op":"get","key":"a","__proto__":"x"}'), 400],
    [{ op: "put", key: "a", value: large }, 413],
  ];
  for (const [element, status] of bad) {
    const array = [{ op: "put", key: "good", value: 1 }, element, 2];
    const response = await t.app.request("/", post(JSON.stringify(array)));
    assertEquals(response.status, status, JSON.stringify(element).slice(0, 100));
    assertMatch((await readProblem(response)).detail, /^Cannot read operation 2: /);
  }
  const repeated = await t.app.request("/", post(`[{"key":"a"${',"op":"get"'.repeat(5)}}]`));
  assertEquals((await readProblem(repeated)).detail, "Cannot read operation 1: too many members");
  const syntax = await t.app.request("/", post('[{"op":"put","key":"good","value":1}'));
  assertMatch((await readProblem(syntax)).detail, /^Cannot read the JSON: /);
  assertEquals((await t.store.list("")).keys, []);
});

test("sees in a get what the array has written before", async ({ app }) => {
  const [, first, , second] = await operate(app, [
    { op: "put", key: "a", value: 1 },
    { op: "get", key: "a" },
    { op: "put", key: "a", value: 2 },
    { op: "get", key: "a" },
  ]);
  // In memory; other stores may have done any of it.
  assertEquals([first?.value, second?.value], [1, 2]);
});

test("executes up to 1,000 operations in one array", async ({ app, store }) => {
  assertEquals(await operate(app, []), []);
  const operations = Array.from({ length: MAX_OPERATIONS }, (_, i) => ({
    op: "put",
    key: `k${i}`,
    value: i,
  }));
  const answers = await operate(app, operations);
  assertEquals(answers.map(({ status }) => status), operations.map(() => 201));
  const over = await app.request("/", post(JSON.stringify([...operations, operations[0]])));
  assertEquals(over.status, 413);
  assertMatch(
    (await readProblem(over)).detail,
    /^Cannot execute more than 1000 operations at once$/,
  );
  assertEquals((await store.list("k9", { limit: 1000 })).keys.length, 111);
});

test("answers an array whose values exceed the longest string", async ({ app, store }) => {
  const value = json("x".repeat(MAX_VALUE_BYTES - 2));
  const { revision } = await store.set("a", value);
  // V8's texts have 2 ** 29 - 24 characters at most.
  const operations = Array.from({ length: 520 }, () => ({ op: "get", key: "a" }));
  const response = await app.request("/", post(JSON.stringify(operations)));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  const one = `{"status":200,"value":${value},"revision":"${revision}","expires":null}`;
  let length = 0;
  let first = "";
  let last = "";
  for await (const chunk of response.body ?? []) {
    first ||= new TextDecoder().decode(chunk);
    last = new TextDecoder().decode(chunk);
    length += chunk.length;
  }
  assertEquals(length, 520 * (one.length + 1) + 1);
  assert(first.startsWith(`[${one.slice(0, 1000)}`) && last.endsWith("]"));
});

test("rejects ?ttl with an array, whose operations have their own", async ({ app, store }) => {
  const response = await app.request("/?ttl=60", post('[{"op":"put","key":"a","value":1}]'));
  assertEquals(response.status, 400);
  assertMatch(
    (await readProblem(response)).detail,
    /^Cannot read the query: expected no parameters$/,
  );
  assertEquals(await store.get("a"), null);
});
