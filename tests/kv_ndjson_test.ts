/** Dumps of the service as newline-delimited JSON, and what restores them. */
import assert from "node:assert/strict";
import { kv } from "../kv.ts";
import { MAX_BODY_BYTES } from "../kv/requests.ts";
import { MAX_LINE_BYTES } from "../kv/ndjson.ts";
import { memoryStore } from "../stores/memory.ts";
import { json, type JsonText, parseJson, type Store, StoreUnavailable } from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import { failingListing, logged, readProblem } from "./kv_app.ts";
import { runToEnd, startServer } from "./programs.ts";

const NDJSON = { Accept: "application/x-ndjson" };

/** Values whose text a careless reader would change. */
const AWKWARD_VALUES = [
  ...["12345678901234567890", "1.10", "-0", "1e400", "[0.1000000000000000055511151231257827]"],
  ...['"a\\nb\\u2028"', '"\u{1f600}é"', '{"__proto__":1.0,"":[null,true]}', '"<script>"', "null"],
].map((text) => json(parseJson(text)));

/** Every awkward key, each with one of the awkward values. */
function awkwardEntries(): Map<string, JsonText> {
  const value = (i: number) => AWKWARD_VALUES[i % AWKWARD_VALUES.length] as JsonText;
  return new Map(AWKWARD_KEYS.concat("k0", "k1", "k2").map((key, i) => [key, value(i)]));
}

async function contents(store: Store): Promise<Map<string, string | undefined>> {
  const { keys } = await store.list("");
  const values = keys.map(async (key) => [key, (await store.get(key))?.value] as const);
  return new Map(await Promise.all(values));
}

function restoring(body: BodyInit, type = "application/x-ndjson"): RequestInit {
  return { method: "POST", body, headers: { "Content-Type": type } };
}

Deno.test("kv() dumps every entry under a prefix, a line each", async () => {
  await using t = setUp();
  await t.store.setAll(new Map([["b", json([1])], ['a"', json("x\ny")], ["c", json(1)]]));
  const response = await t.app.request("/", { headers: NDJSON });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "application/x-ndjson");
  assert.equal(response.headers.get("Vary"), "Accept");
  assert.equal(await response.text(), '{"a\\"": "x\\ny"}\n{"b": [1]}\n{"c": 1}\n');
  const some = await t.app.request("/?prefix=b", { headers: NDJSON });
  assert.equal(await some.text(), '{"b": [1]}\n');
  const none = await t.app.request("/?prefix=x", { headers: NDJSON });
  assert.equal(await none.text(), "");
  const head = await t.app.request("/", { headers: NDJSON, method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("Content-Type"), "application/x-ndjson");
  const bad = await t.app.request("/?limit=1", { headers: NDJSON });
  assert.equal(bad.status, 400);
  assert.match((await readProblem(bad)).detail, /^Cannot read the query: .*limit/);
});

Deno.test("kv() restores its dump: awkward keys, and numbers with every digit", async () => {
  await using from = setUp();
  await using to = setUp();
  await from.store.setAll(awkwardEntries());
  const dump = await (await from.app.request("/", { headers: NDJSON })).text();
  const response = await to.app.request("/", restoring(dump));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "application/json");
  assert.deepEqual(await response.json(), { restored: awkwardEntries().size });
  assert.deepEqual(await contents(to.store), await contents(from.store));
});

Deno.test("kv() restores over what is there, with a ttl, and passes over blank lines", async () => {
  await using t = setUp();
  await t.store.set("a", json("old"));
  const body = '\r\n{"a":1}\r\n\n{"b": 2}\n{"a": 3}';
  const response = await t.app.request("/?ttl=60", restoring(body, "Application/X-NDJSON; a=b"));
  assert.deepEqual(await response.json(), { restored: 3 });
  assert.equal((await t.store.get("a"))?.value, "3");
  assert.equal((await t.store.get("b"))?.expires, NOW + 60_000);
  for (const empty of ["", "\n \n", "\t\r\n\t"]) {
    const response = await t.app.request("/", restoring(empty));
    assert.deepEqual(await response.json(), { restored: 0 });
  }
  const bad = await t.app.request("/?ttl=0", restoring(body));
  assert.equal(bad.status, 400);
  assert.equal((await readProblem(bad)).restored, undefined);
});

Deno.test("kv() stops a restore at the first bad line, and says which", async () => {
  const long = `{"a": "${"x".repeat(2 ** 20)}"}`;
  const cases: [BlobPart, number, RegExp][] = [
    ["{", 400, /Cannot read the JSON/],
    ['{"a": 1} {"b": 2}', 400, /Cannot read the JSON/],
    ["[1]", 400, /expected a JSON object/],
    ["1.10", 400, /expected a JSON object/],
    ["{}", 400, /expected one entry/],
    ['{"a": 1, "b": 2}', 400, /expected one entry/],
    ['{"": 1}', 400, /Cannot use the key ""/],
    ['{"\\ud800": 1}', 400, /Cannot use the key/],
    [new Uint8Array([0x22, 0xe9, 0x22]), 400, /Cannot read the JSON/],
    [long, 413, /over 1048576 bytes/],
    ["x".repeat(MAX_LINE_BYTES + 1), 413, /over 2097152 bytes/],
  ];
  for (const [line, status, detail] of cases) {
    await using t = setUp();
    const response = await t.app.request(
      "/",
      restoring(new Blob(['{"good": 1}\n\n{"too": 2}\n', line, '\n{"after": 3}\n'])),
    );
    assert.equal(response.status, status);
    const problem = await readProblem(response);
    assert.equal(problem.line, 4);
    assert.equal(problem.restored, 2);
    assert.match(problem.detail, /^Cannot restore line 4: /);
    assert.match(problem.detail, detail);
    assert.deepEqual((await t.store.list("")).keys, ["good", "too"]);
  }
});

Deno.test("kv() says how much it restored when its store fails on the way", async () => {
  await using t = setUp();
  let writes = 0;
  const failing: Store = {
    ...t.store,
    setAll: async (values, options) => {
      if (++writes === 2) throw new StoreUnavailable("gone", { outcome: "unknown" });
      await t.store.setAll(values, options);
    },
  };
  const lines = Array.from({ length: 2500 }, (_, i) => `{"k${i}": ${i}}\n`);
  const log = await logged(async () => {
    const response = await kv(failing).request("/", restoring(lines.join("")));
    assert.equal(response.status, 503);
    assert.equal(response.headers.get("Retry-After"), "1");
    const { restored, outcome } = await readProblem(response);
    assert.deepEqual([restored, outcome], [1000, "unknown"]);
  });
  assert.equal(log, "kv: gone");
  assert.equal(writes, 2);
});

Deno.test("kv() restores a body of any length, a few lines at a time", async () => {
  await using t = setUp();
  const value = "x".repeat(1000);
  const total = Math.ceil(MAX_BODY_BYTES / 1000) + 1000;
  let sent = 0;
  let most = 0;
  const counting: Store = {
    ...t.store,
    setAll: async (values, options) => {
      most = Math.max(most, values.size);
      await t.store.setAll(values, options);
    },
  };
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent === total) return controller.close();
      controller.enqueue(new TextEncoder().encode(`{"k${sent++}": "${value}"}\n`));
    },
  });
  const init = { ...restoring(body), duplex: "half" };
  const response = await kv(counting).request("/", init);
  assert.deepEqual(await response.json(), { restored: total });
  assert.equal(most, 1000);
});

Deno.test("kv() reads no further in a dump than its client does", async () => {
  await using t = setUp();
  const value = json("x".repeat(100_000));
  await t.store.setAll(new Map(Array.from({ length: 200 }, (_, i) => [`k${i}`, value])));
  let gets = 0;
  const counting: Store = {
    ...t.store,
    get: (key) => {
      gets++;
      return t.store.get(key);
    },
  };
  const response = await kv(counting).request("/", { headers: NDJSON });
  const reader = response.body?.getReader();
  await reader?.read();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(gets >= 1 && gets <= 32, `${gets} entries were read`);
  await reader?.cancel();
});

Deno.test("kv() cuts off a dump that fails on the way, rather than end it early", async () => {
  await using t = setUp();
  const value = json("x".repeat(1000));
  await t.store.setAll(new Map(Array.from({ length: 1500 }, (_, i) => [`k${i}`, value])));
  const response = await kv(failingListing(t.store)).request("/", { headers: NDJSON });
  assert.equal(response.status, 200);
  await assert.rejects(response.text(), StoreUnavailable);
});

Deno.test("kv() answers 503 where a dump fails before any of it was sent", async () => {
  await using t = setUp();
  await t.store.setAll(new Map(Array.from({ length: 1500 }, (_, i) => [`k${i}`, json(i)])));
  const log = await logged(async () => {
    const response = await kv(failingListing(t.store)).request("/", { headers: NDJSON });
    assert.equal((await readProblem(response)).status, 503);
    assert.equal(response.headers.get("Retry-After"), "1");
  });
  assert.equal(log, "kv: gone");
});

Deno.test("kv.ts restores what dump.ts printed", async () => {
  await using from = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await using to = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const entries = awkwardEntries();
  const members = Array.from(entries, ([key, value]) => `${JSON.stringify(key)}:${value}`);
  const headers = { "Content-Type": "application/json" };
  const set = await fetch(from.url, { method: "POST", headers, body: `{${members}}` });
  assert.equal(set.status, 200);
  await set.body?.cancel();
  const dumped = await runToEnd(Deno.execPath(), ["run", "--allow-net", "dump.ts", from.url]);
  assert.equal(dumped.code, 0);
  const streamed = await (await fetch(from.url, { headers: NDJSON })).text();
  assert.equal(streamed, dumped.stdout);
  const restored = await fetch(to.url, restoring(dumped.stdout));
  assert.deepEqual(await restored.json(), { restored: entries.size });
  const again = await runToEnd(Deno.execPath(), ["run", "--allow-net", "dump.ts", to.url]);
  assert.equal(again.stdout, dumped.stdout);
});

// ---- What the tests share ------------------------------------------------------------------

const NOW = 1_700_000_000_000;

function setUp() {
  const store = memoryStore({ now: () => NOW });
  return { store, app: kv(store), [Symbol.asyncDispose]: () => store.close() };
}
