/** Dumps of the service as newline-delimited JSON, and what restores them. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { kv } from "../kv.ts";
import { MAX_BODY_BYTES } from "../stores/wire.ts";
import { LIMITS } from "../stores/dumps.ts";
import { memoryStore } from "../stores/memory.ts";
import { prefixed } from "../stores/prefix.ts";
import { json, parseJson } from "../stores/json/text.ts";
import { type JsonText, type Store, StoreUnavailable } from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { failingListing, readProblem } from "./helpers/kv_app.ts";
import { runToEnd, startServer } from "./helpers/programs.ts";

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

Deno.test("kv() dumps every entry under a prefix, one a line", async () => {
  await using t = setUp();
  await t.store.setAll(new Map([["b", json([1])], ['a"', json("x\ny")], ["c", json(1)]]));
  const response = await t.app.request("/", { headers: NDJSON });
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/x-ndjson");
  assertEquals(response.headers.get("Vary"), "Accept");
  assertEquals(await response.text(), '{"a\\"": "x\\ny"}\n{"b": [1]}\n{"c": 1}\n');
  const some = await t.app.request("/?prefix=b", { headers: NDJSON });
  assertEquals(await some.text(), '{"b": [1]}\n');
  const none = await t.app.request("/?prefix=x", { headers: NDJSON });
  assertEquals(await none.text(), "");
  const head = await t.app.request("/", { headers: NDJSON, method: "HEAD" });
  assertEquals(head.status, 200);
  assertEquals(head.headers.get("Content-Type"), "application/x-ndjson");
  const bad = await t.app.request("/?limit=1", { headers: NDJSON });
  assertEquals(bad.status, 400);
  assertMatch((await readProblem(bad)).detail, /^Cannot read the query: .*limit/);
});

Deno.test("kv() begins the response of a dump before it lets others go first", async () => {
  await using t = setUp();
  await t.store.setAll(new Map(Array.from({ length: 1000 }, (_, i) => [`key ${i}`, json(i)])));
  let reads = 0;
  const get = (key: string) => (reads++, t.store.get(key));
  const response = await kv({ ...t.store, get }).request("/", { headers: NDJSON });
  assert(reads < 200, `${reads} reads before the response`);
  assertEquals((await response.text()).split("\n").length, 1001);
});

Deno.test("kv() restores its dump: awkward keys, and numbers with every digit", async () => {
  await using from = setUp();
  await using to = setUp();
  await from.store.setAll(awkwardEntries());
  const dump = await (await from.app.request("/", { headers: NDJSON })).text();
  const response = await to.app.request("/", restoring(dump));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  assertEquals(await response.json(), { restored: awkwardEntries().size });
  assertEquals(await contents(to.store), await contents(from.store));
});

Deno.test("kv() restores over existing entries, with a ttl, and skips blank lines", async () => {
  await using t = setUp();
  await t.store.set("a", json("old"));
  const body = '\r\n{"a":1}\r\n\n{"b": 2}\n{"a": 3}';
  const response = await t.app.request("/?ttl=60", restoring(body, "Application/X-NDJSON; a=b"));
  assertEquals(await response.json(), { restored: 3 });
  assertEquals((await t.store.get("a"))?.value, "3");
  assertEquals((await t.store.get("b"))?.expires, NOW + 60_000);
  for (const empty of ["", "\n \n", "\t\r\n\t"]) {
    const response = await t.app.request("/", restoring(empty));
    assertEquals(await response.json(), { restored: 0 });
  }
  const bad = await t.app.request("/?ttl=0", restoring(body));
  assertEquals(bad.status, 400);
  assertEquals((await readProblem(bad)).restored, undefined);
});

Deno.test("kv() backs up lifetimes with ?backup, and restores them", async () => {
  await using from = setUp();
  await using to = setUp();
  // A lifetime is by the clock of the restoring process.
  const later = Date.now() + 3_600_000;
  await from.store.set("keeps", json(1.5));
  const { expires } = await from.store.set("b\n", json({ a: [1] }), {
    ttl: Math.ceil((later - NOW) / 1000),
  });
  const response = await from.app.request("/?backup");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/x-ndjson");
  const text = await response.text();
  const lines = [
    `{"key": "b\\n", "value": {"a":[1]}, "expires": ${expires}}\n`,
    '{"key": "keeps", "value": 1.5, "expires": null}\n',
  ];
  assertEquals(text, lines.join(""));
  const some = await from.app.request("/?prefix=k&backup", { headers: { Accept: "text/html" } });
  assertEquals(await some.text(), lines[1]);
  assertEquals((await from.app.request("/?backup=1")).status, 400);
  assertEquals((await from.app.request("/?backup&limit=1")).status, 400);

  const gone = '{"key": "gone", "value": 1, "expires": 1700000000000}\n';
  const restored = await to.app.request("/?ttl=5", restoring(text + gone));
  assertEquals(await restored.json(), { restored: 2, expired: 1 });
  const left = (await to.store.get("b\n"))?.expires ?? 0;
  assert(left > NOW + 3_000_000 && left <= NOW + 3_601_000, `${left - NOW} ms are left`);
  assertEquals((await to.store.get("keeps"))?.expires, null);
  assertEquals(await to.store.get("gone"), null);
});

Deno.test("kv() stops a restore at the first bad line, and says which", async () => {
  const long = `{"a": "${"x".repeat(2 ** 20)}"}`;
  const cases: [BlobPart, number, RegExp][] = [
    ["{", 400, /expected one entry.* \(it ends too early\)/],
    ['{"a": 1} {"b": 2}', 400, /expected one entry.* \(unexpected "{" at 9\)/],
    ["[1]", 400, /expected one entry/],
    ["1.10", 400, /expected one entry/],
    ["{}", 400, /expected one entry/],
    ['{"a": 1, "b": 2}', 400, /expected one entry/],
    ['{"": 1}', 400, /Cannot use the key ""/],
    ['{"\\ud800": 1}', 400, /Cannot use the key/],
    [new Uint8Array([0x22, 0xe9, 0x22]), 400, /expected one entry.* \(expected UTF-8\)/],
    [long, 413, /over 1048576 bytes/],
    ["x".repeat(LIMITS.lineBytes + 1), 413, /over 2097152 bytes/],
  ];
  for (const [line, status, detail] of cases) {
    await using t = setUp();
    const response = await t.app.request(
      "/",
      restoring(new Blob(['{"good": 1}\n\n{"too": 2}\n', line, '\n{"after": 3}\n'])),
    );
    assertEquals(response.status, status);
    const problem = await readProblem(response);
    assertEquals(problem.line, 4);
    assertEquals(problem.restored, 2);
    assertMatch(problem.detail, /^Cannot restore line 4: /);
    assertMatch(problem.detail, detail);
    assertEquals((await t.store.list("")).keys, ["good", "too"]);
  }
});

Deno.test("kv() over a store with a prefix says which line has a key that is too long for it", async () => {
  await using t = setUp();
  const long = "L".repeat(1020);
  const response = await kv(prefixed(t.store, "counter:"))
    .request("/", restoring(`{"a": 1}\n{"b": 2}\n{"${long}": 3}\n`));
  assertEquals(response.status, 400);
  const { line, restored, detail } = await readProblem(response);
  assertEquals([line, restored], [3, 2]);
  assertMatch(detail, /^Cannot restore line 3: Cannot use the key: it is over 1024 bytes/);
  assertEquals((await t.store.list("")).keys, ["counter:a", "counter:b"]);
});

Deno.test("kv() reports how many lines it restored before its store failed", async () => {
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
    assertEquals(response.status, 503);
    assertEquals(response.headers.get("Retry-After"), "1");
    const { restored, outcome } = await readProblem(response);
    assertEquals([restored, outcome], [1000, "unknown"]);
  });
  assertEquals(log, "kv: gone");
  assertEquals(writes, 2);
});

Deno.test("kv() restores a body of any length in batches", async () => {
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
  assertEquals(await response.json(), { restored: total });
  assertEquals(most, 1000);
});

Deno.test("kv() restores a line that arrives in many chunks", async () => {
  await using t = setUp();
  const values = Array.from({ length: 3 }, (_, i) => JSON.stringify(`${i}`.repeat(20_000)));
  const text = values.map((value, i) => `{"k${i}": ${value}}\n`).join("");
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < text.length; at += 7000) {
        controller.enqueue(new TextEncoder().encode(text.slice(at, at + 7000)));
      }
      controller.close();
    },
  });
  const response = await t.app.request("/", restoring(body));
  assertEquals(await response.json(), { restored: 3 });
  for (const [i, value] of values.entries()) {
    assertEquals((await t.store.get(`k${i}`))?.value, value);
  }
});

Deno.test("kv() reads entries for a dump only as fast as the client does", async () => {
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
  assert(gets >= 1 && gets <= 32, `${gets} entries were read`);
  await reader?.cancel();
});

Deno.test("kv() aborts the response when a dump fails midway", async () => {
  await using t = setUp();
  const value = json("x".repeat(1000));
  await t.store.setAll(new Map(Array.from({ length: 1500 }, (_, i) => [`k${i}`, value])));
  const response = await kv(failingListing(t.store)).request("/", { headers: NDJSON });
  assertEquals(response.status, 200);
  await assertRejects(() => response.text(), StoreUnavailable);
});

Deno.test("kv.ts restores what dump.ts printed", async () => {
  await using from = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await using to = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const entries = awkwardEntries();
  const members = Array.from(entries, ([key, value]) => `${JSON.stringify(key)}:${value}`);
  const headers = { "Content-Type": "application/json" };
  const set = await fetch(from.url, { method: "POST", headers, body: `{${members}}` });
  assertEquals(set.status, 200);
  await set.body?.cancel();
  const dumped = await runToEnd(Deno.execPath(), ["run", "--allow-net", "dump.ts", from.url]);
  assertEquals(dumped.code, 0);
  const streamed = await (await fetch(from.url, { headers: NDJSON })).text();
  assertEquals(streamed, dumped.stdout);
  const restored = await fetch(to.url, restoring(dumped.stdout));
  assertEquals(await restored.json(), { restored: entries.size });
  const again = await runToEnd(Deno.execPath(), ["run", "--allow-net", "dump.ts", to.url]);
  assertEquals(again.stdout, dumped.stdout);
});

// ---- What the tests share ------------------------------------------------------------------

const NOW = 1_700_000_000_000;

function setUp() {
  const store = memoryStore({ now: () => NOW });
  return { store, app: kv(store), [Symbol.asyncDispose]: () => store.close() };
}
