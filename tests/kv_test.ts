import assert from "node:assert/strict";
import { kv, type KvOptions, MAX_BODY_BYTES, MAX_OPERATIONS } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import {
  json,
  MAX_KEY_BYTES,
  MAX_VALUE_BYTES,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import { failingListing, logged, readProblem } from "./problem.ts";

const NOW = 1_700_000_000_000;
const JSON_TYPE = { "Content-Type": "application/json" };
/** Headers of every answer. */
const GUARDS = {
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
};

type App = ReturnType<typeof kv>;
interface TestKv {
  readonly app: App;
  readonly store: Store;
}

/** Registers a test of the service over an empty store, whose clock stands still. */
function test(promise: string, check: (test: TestKv) => Promise<void>, options?: KvOptions): void {
  Deno.test(`kv() ${promise}`, async () => {
    const store = memoryStore({ now: () => NOW });
    try {
      await check({ app: kv(store, options), store });
    } finally {
      await store.close();
    }
  });
}

function put(body: BodyInit, headers: Record<string, string> = {}): RequestInit {
  return { method: "PUT", body, headers: { ...JSON_TYPE, ...headers } };
}

function post(body: BodyInit, headers: Record<string, string> = JSON_TYPE): RequestInit {
  return { method: "POST", body, headers };
}

/** Sends an array of operations and gives the answers. */
async function operate(app: App, operations: unknown[]): Promise<Record<string, unknown>[]> {
  const response = await app.request("/", post(JSON.stringify(operations)));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "application/json");
  return await response.json();
}

function etagOf(response: Response): string {
  const etag = response.headers.get("ETag") ?? "";
  assert.match(etag, /^"[\x21\x23-\x7e]+"$/);
  return etag;
}

// ---- The original's calls ------------------------------------------------------------------

test("sets the keys of an object and echoes it", async ({ app }) => {
  const response = await app.request("/", post('{"foo": "bar", "n": {"a": [1, null]}}'));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "application/json");
  assert.equal(await response.text(), '{"foo":"bar","n":{"a":[1,null]}}');
  assert.deepEqual(await (await app.request("/foo")).json(), { foo: "bar" });
  assert.deepEqual(await (await app.request("/n")).json(), { n: { a: [1, null] } });
});

test("sets nothing for an empty object", async ({ app, store }) => {
  const response = await app.request("/", post("{}"));
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "{}");
  assert.deepEqual((await store.list("")).keys, []);
});

test("sets all keys of an object, or none", async ({ app, store }) => {
  for (const bad of ['""', '"."', '".."', '"\\ud800"', `"${"x".repeat(MAX_KEY_BYTES + 1)}"`]) {
    const response = await app.request("/", post(`{"good": 1, ${bad}: 1}`));
    assert.equal(response.status, 400, bad);
    assert.match((await readProblem(response)).detail, /^Cannot use the key/);
  }
  const tooLarge = await app.request("/", post(`{"good": 1, "a": "${"x".repeat(2 ** 20)}"}`));
  assert.equal(tooLarge.status, 413);
  assert.deepEqual((await store.list("")).keys, []);
});

test("sets the keys of a form to texts", async ({ app, store }) => {
  const form = new FormData();
  form.set("n", "1");
  form.set("é/\u{1f600}", 'a "text"\r\n');
  form.set("empty", "");
  const forms = [form, new URLSearchParams({ n: "1", "é/\u{1f600}": 'a "text"\r\n', empty: "" })];
  for (const body of forms) {
    const response = await app.request("/", { method: "POST", body });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("Content-Type"), "application/json");
    assert.equal(
      await response.text(),
      '{"n":"1","é/\u{1f600}":"a \\"text\\"\\r\\n","empty":""}',
    );
    assert.equal((await store.get("n"))?.value, '"1"');
    assert.equal((await store.delete("é/\u{1f600}"))?.value, '"a \\"text\\"\\r\\n"');
  }
});

test("turns away a form that has a key twice, a file or no form in it", async ({ app, store }) => {
  const twice = new FormData();
  twice.append("a", "1");
  twice.append("a", "2");
  const file = new FormData();
  file.append("good", "1");
  file.append("a", new File(["text"], "a.txt"));
  const cases: [BodyInit, string | undefined, RegExp][] = [
    [twice, undefined, /^Cannot set "a" from the form: expected each key once$/],
    [new URLSearchParams("a=1&b=2&a=3"), undefined, /"a" from the form: expected each key once$/],
    [file, undefined, /^Cannot set "a" from the form: expected a text, not a file$/],
    [new URLSearchParams("good=1&=2"), undefined, /^Cannot use the key ""/],
    ["no form", "multipart/form-data; boundary=x", /^Cannot read the form/],
    ["no form", "multipart/form-data", /^Cannot read the form/],
  ];
  for (const [body, type, detail] of cases) {
    const init = { method: "POST", body, headers: type ? { "Content-Type": type } : {} };
    const response = await app.request("/", init);
    assert.equal(response.status, 400);
    assert.match((await readProblem(response)).detail, detail);
  }
  assert.deepEqual((await store.list("")).keys, []);
});

test("gets an entry with its ETag", async ({ app, store }) => {
  const { revision } = await store.set("foo", json("bar"));
  const response = await app.request("/foo");
  assert.equal(response.status, 200);
  assert.deepEqual(Object.fromEntries(response.headers), {
    ...GUARDS,
    "cache-control": "no-cache",
    "content-type": "application/json",
    etag: `"${revision}"`,
  });
  assert.equal(await response.text(), '{"foo":"bar"}');
});

test("answers null for a key that is not there, without an ETag", async ({ app }) => {
  const response = await app.request("/foo");
  assert.equal(response.status, 200);
  assert.deepEqual(Object.fromEntries(response.headers), {
    ...GUARDS,
    "cache-control": "no-cache",
    "content-type": "application/json",
  });
  assert.equal(await response.text(), '{"foo":null}');
});

test("answers a key that holds null as it does a missing one, but with an ETag", async ({ app }) => {
  await app.request("/foo", put("null"));
  const response = await app.request("/foo");
  assert.equal(response.status, 200);
  etagOf(response);
  assert.equal(await response.text(), '{"foo":null}');
});

test("puts a value: 201 where there was none, 200 over another", async ({ app }) => {
  const created = await app.request("/foo", put('{"a": 1}'));
  assert.equal(created.status, 201);
  assert.equal(created.headers.get("Content-Type"), "application/json");
  assert.equal(created.headers.get("Cache-Control"), "no-cache");
  assert.equal(created.headers.get("Expires"), null);
  assert.equal(await created.text(), '{"foo":{"a":1}}');
  const replaced = await app.request("/foo", put("[2]"));
  assert.equal(replaced.status, 200);
  assert.notEqual(etagOf(replaced), etagOf(created));
  assert.equal(await replaced.text(), '{"foo":[2]}');
  const got = await app.request("/foo");
  assert.equal(etagOf(got), etagOf(replaced));
  assert.equal(await got.text(), '{"foo":[2]}');
});

test("deletes an entry and answers the value that it had", async ({ app, store }) => {
  await store.set("foo", json("bar"));
  for (const body of ['{"foo":"bar"}', '{"foo":null}']) {
    const response = await app.request("/foo", { method: "DELETE" });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("Content-Type"), "application/json");
    assert.equal(response.headers.get("ETag"), null);
    assert.equal(await response.text(), body);
    assert.equal(await store.get("foo"), null);
  }
});

test("answers HEAD as GET, without the body", async ({ app, store }) => {
  await store.set("foo", json("bar"), { ttl: 60 });
  for (const path of ["/foo", "/missing", "/", "/?limit=1", "/foo?x=1"]) {
    const get = await app.request(path);
    const head = await app.request(path, { method: "HEAD" });
    assert.equal(head.status, get.status, path);
    assert.deepEqual(Object.fromEntries(head.headers), Object.fromEntries(get.headers), path);
    assert.equal(await head.text(), "");
    await get.body?.cancel();
  }
});

test("keeps keys of every kind apart", async ({ app }) => {
  const paths = AWKWARD_KEYS.map((key) => [key, `/${encodeURIComponent(key)}`] as const);
  for (const [i, [, path]] of paths.entries()) {
    assert.equal((await app.request(path, put(String(i)))).status, 201, path);
  }
  for (const [i, [key, path]] of paths.entries()) {
    const body = `{${JSON.stringify(key)}:${i}}`;
    assert.equal(await (await app.request(path)).text(), body);
    assert.equal(await (await app.request(path, { method: "DELETE" })).text(), body);
    assert.equal(await (await app.request(path)).text(), `{${JSON.stringify(key)}:null}`);
  }
});

test("takes the keys of an object as they are", async ({ app, store }) => {
  const body = `{${AWKWARD_KEYS.map((key, i) => `${JSON.stringify(key)}:${i}`).join(",")}}`;
  const response = await app.request("/", post(body));
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), JSON.parse(body));
  for (const [i, key] of AWKWARD_KEYS.entries()) {
    assert.equal((await store.get(key))?.value, String(i), JSON.stringify(key));
  }
});

test("keeps every digit of a number", async ({ app }) => {
  const numbers = "[12345678901234567890,1.10,-0,1e400,0.1000000000000000055511151231257827]";
  const values = ["12345678901234567890", "1.10", numbers, `{"a":${numbers}}`];
  for (const value of values) {
    assert.equal(await (await app.request("/a", put(value))).text(), `{"a":${value}}`);
    assert.equal(await (await app.request("/a")).text(), `{"a":${value}}`);
    assert.equal(await (await app.request("/", post(`{"b":${value}}`))).text(), `{"b":${value}}`);
    assert.equal(await (await app.request("/b")).text(), `{"b":${value}}`);
    const operations = `[{"op":"put","key":"c","value":${value}},{"op":"get","key":"c"}]`;
    const answers = await (await app.request("/", post(operations))).text();
    assert.equal(answers.split(`"value":${value},"revision"`).length, 3, answers);
    const stale = await app.request("/c", put("0", { "If-Match": '"stale"' }));
    assert.equal(stale.status, 412);
    assert.ok((await stale.text()).endsWith(`"current":{"c":${value}}}`));
    const removed = await app.request("/c", { method: "DELETE" });
    assert.equal(await removed.text(), `{"c":${value}}`);
  }
});

test("reads JSON of any JSON type, with or without parameters", async ({ app }) => {
  const types = ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"];
  for (const type of types.concat("application/ld+json", "application/vnd.api+json;v=1")) {
    const response = await app.request("/a", put("1", { "Content-Type": type }));
    assert.ok(response.ok, type);
  }
});

// ---- Time ----------------------------------------------------------------------------------

test("keeps an entry for ttl seconds, and says until when", async ({ app, store }) => {
  const Expires = new Date(NOW + 60_000).toUTCString();
  const response = await app.request("/a?ttl=60", put("1"));
  assert.equal(response.status, 201);
  assert.equal(response.headers.get("Expires"), Expires);
  assert.equal((await app.request("/a")).headers.get("Expires"), Expires);
  await app.request("/?ttl=60", post('{"b": 1, "c": 2}'));
  assert.equal((await app.request("/b")).headers.get("Expires"), Expires);
  assert.equal((await store.get("c"))?.expires, NOW + 60_000);
  await app.request("/a", put("2"));
  assert.equal((await app.request("/a")).headers.get("Expires"), null);
});

test("turns away a ttl that is none", async ({ app, store }) => {
  for (
    const ttl of [
      "0",
      "-1",
      "1.5",
      "",
      "abc",
      "NaN",
      "Infinity",
      "1e400",
      "2147483648",
      "1e1",
      "0x10",
      "%201",
    ]
  ) {
    for (const [path, init] of [["/a", put("1")], ["/", post('{"a": 1}')]] as const) {
      const response = await app.request(`${path}?ttl=${ttl}`, init);
      assert.equal(response.status, 400, ttl);
      assert.match((await readProblem(response)).detail, /ttl|for ".*" seconds: expected a whole/);
    }
  }
  assert.deepEqual((await store.list("")).keys, []);
});

// ---- Listings ------------------------------------------------------------------------------

test("lists the keys, or those under a prefix", async ({ app, store }) => {
  await store.setAll(new Map(["foo", "fa", "bar", 'a"b', "é"].map((key) => [key, json(1)])));
  const cases: [string, string[]][] = [
    ["/", ['a"b', "bar", "fa", "foo", "é"]],
    ["/?prefix=", ['a"b', "bar", "fa", "foo", "é"]],
    ["/?prefix=f", ["fa", "foo"]],
    ["/?prefix=%C3%A9", ["é"]],
    ["/?prefix=nothing", []],
  ];
  for (const [path, keys] of cases) {
    const response = await app.request(path);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("Content-Type"), "application/json");
    assert.equal(await response.text(), JSON.stringify({ keys }));
  }
});

test("lists page by page, to the end, by next and by Link", async ({ app, store }) => {
  const names = Array.from({ length: 25 }, (_, i) => `p&é ${String(i).padStart(2, "0")}`);
  await store.setAll(new Map(["o", ...names, "q"].map((key) => [key, json(1)])));
  const first = `/?${new URLSearchParams({ prefix: "p", limit: "10" })}`;
  const seen: string[] = [];
  const sizes: number[] = [];
  let path: string | undefined = first;
  while (path !== undefined) {
    const response: Response = await app.request(path);
    assert.equal(response.status, 200);
    const { keys, next } = await response.json() as { keys: string[]; next: string | null };
    const link = /^<(\/\?[^>]*)>; rel="next"$/.exec(response.headers.get("Link") ?? "")?.[1];
    assert.equal(link !== undefined, next !== null);
    if (next !== null) {
      const byNext = await app.request(`${first}&after=${encodeURIComponent(next)}`);
      const byLink = await app.request(link ?? "");
      assert.equal(await byNext.text(), await byLink.text());
    }
    seen.push(...keys);
    sizes.push(keys.length);
    path = link;
  }
  assert.deepEqual(sizes, [10, 10, 5]);
  assert.deepEqual(seen, names);
});

test("goes on after a key without a limit, a page of 1,000", async ({ app, store }) => {
  const names = Array.from({ length: 2500 }, (_, i) => `k${String(i).padStart(4, "0")}`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  const response = await app.request("/?after=k0099");
  assert.equal(response.status, 200);
  assert.match(response.headers.get("Link") ?? "", /limit=1000&after=/);
  assert.deepEqual((await response.json()).keys, names.slice(100, 1100));
});

test("lists 5,000 keys whole, as one JSON text", async ({ app, store }) => {
  const names = Array.from({ length: 5000 }, (_, i) => `k"${String(i).padStart(4, "0")}\\é`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  await store.set("other", json(1));
  const response = await app.request("/?prefix=k");
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "application/json");
  assert.equal(response.headers.get("Link"), null);
  assert.deepEqual(await response.json(), { keys: names });
});

test("cuts off a long listing that fails on the way, rather than end it early", async (t) => {
  await t.store.setAll(new Map(Array.from({ length: 2500 }, (_, i) => [`k${i}`, json(i)])));
  const response = await kv(failingListing(t.store)).request("/");
  assert.equal(response.status, 200);
  await assert.rejects(response.text(), StoreUnavailable);
});

test("turns away a limit that is none", async ({ app }) => {
  for (const limit of ["0", "-1", "1.5", "1001", "abc", ""]) {
    const response = await app.request(`/?limit=${limit}`);
    assert.equal(response.status, 400, limit);
    assert.match((await readProblem(response)).detail, /limit|Cannot list ".*" keys: expected/);
  }
});

// ---- Conditions ----------------------------------------------------------------------------

test("answers 304 to a client that has the entry", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1), { ttl: 60 });
  for (const tags of [`"${revision}"`, `W/"${revision}"`, `"x", "${revision}"`, "*"]) {
    for (const method of ["GET", "HEAD"]) {
      const init = { method, headers: { "If-None-Match": tags } };
      const response = await app.request("/a", init);
      assert.equal(response.status, 304, tags);
      assert.deepEqual(Object.fromEntries(response.headers), {
        ...GUARDS,
        "cache-control": "no-cache",
        etag: `"${revision}"`,
        expires: new Date(NOW + 60_000).toUTCString(),
      });
      assert.equal(await response.text(), "");
    }
  }
  const other = await app.request("/a", { headers: { "If-None-Match": '"x"' } });
  assert.equal(other.status, 200);
  assert.equal(await other.text(), '{"a":1}');
  const missing = await app.request("/b", { headers: { "If-None-Match": "*" } });
  assert.equal(missing.status, 200);
  assert.equal(await missing.text(), '{"b":null}');
});

test("writes only over an entry that If-Match names", async ({ app, store }) => {
  for (const list of ["TAG", '"x","TAG', '"x" , TAG', '"a,b", TAG', 'W/"x", TAG', "*"]) {
    for (const init of [put("2"), { method: "DELETE" }]) {
      const { revision } = await store.set("a", json(1));
      const headers = { ...init.headers, "If-Match": list.replace(/"?TAG/, `"${revision}"`) };
      const response = await app.request("/a", { ...init, headers });
      assert.equal(response.status, 200, list);
      assert.notEqual((await store.get("a"))?.value, "1", list);
    }
  }
});

test("answers 412 with the current entry and its ETag", async ({ app, store }) => {
  const { revision } = await store.set("a", json([1]), { ttl: 60 });
  const conditions: [string, string][] = [
    ["If-Match", '"stale"'],
    ["If-Match", '"stale", "staler"'],
    ["If-Match", `W/"${revision}"`],
    ["If-None-Match", "*"],
    ["If-None-Match", `"${revision}"`],
    ["If-None-Match", `"x", W/"${revision}"`],
  ];
  for (const [name, value] of conditions) {
    for (const init of [put("2"), { method: "DELETE" }]) {
      const headers = { ...init.headers, [name]: value };
      const response = await app.request("/a", { ...init, headers });
      assert.equal(response.status, 412, `${name}: ${value}`);
      assert.equal(response.headers.get("ETag"), `"${revision}"`);
      assert.equal(response.headers.get("Expires"), new Date(NOW + 60_000).toUTCString());
      const { title, current } = await readProblem(response);
      assert.equal(title, "Precondition Failed");
      assert.deepEqual(current, { a: [1] });
      assert.equal((await store.get("a"))?.revision, revision);
    }
  }
});

test("answers 412 to If-Match where nothing is there", async ({ app, store }) => {
  for (const tags of ["*", '"stale"']) {
    for (const init of [put("2"), { method: "DELETE" }, {}]) {
      const headers = { ...init.headers, "If-Match": tags };
      const response = await app.request("/a", { ...init, headers });
      assert.equal(response.status, 412);
      assert.equal(response.headers.get("ETag"), null);
      assert.deepEqual((await readProblem(response)).current, { a: null });
      assert.equal(await store.get("a"), null);
    }
  }
});

test("writes where nothing is there, by If-None-Match: *", async ({ app }) => {
  const only = { "If-None-Match": "*" };
  assert.equal((await app.request("/a", put("1", only))).status, 201);
  assert.equal((await app.request("/a", put("2", only))).status, 412);
  assert.equal(await (await app.request("/a")).text(), '{"a":1}');
});

test("lets one alone of 20 conditional writers at once through", async ({ app }) => {
  const created = await app.request("/a", put("0"));
  const headers = { "If-Match": etagOf(created) };
  const writers = Array.from({ length: 20 }, (_, i) => app.request("/a", put(`${i}`, headers)));
  const statuses = (await Promise.all(writers)).map(({ status }) => status);
  assert.deepEqual(statuses.sort(), [200, ...Array(19).fill(412)]);
});

test("checks a condition again where another write came between", async ({ store }) => {
  let writes = 0;
  const between = async (key: string) => {
    if (++writes < 4) await store.set(key, json(`between ${writes}`));
  };
  const busy: Store = {
    ...store,
    set: async (key, value, options) => {
      await between(key);
      return await store.set(key, value, options);
    },
    delete: async (key, options) => {
      await between(key);
      return await store.delete(key, options);
    },
  };
  for (const init of [put("2"), { method: "DELETE" }]) {
    writes = 0;
    const { revision } = await store.set("a", json(1));
    const once = { ...init.headers, "If-Match": `"${revision}"` };
    const conflict = await kv(busy).request("/a", { ...init, headers: once });
    assert.equal(conflict.status, 412);
    assert.deepEqual((await readProblem(conflict)).current, { a: "between 1" });
    const always = { ...init.headers, "If-Match": "*" };
    const done = await kv(busy).request("/a", { ...init, headers: always });
    assert.equal(done.status, 200);
    assert.equal(writes, 4);
  }
});

test("ignores empty elements in a list of tags, RFC 9110 section 5.6.1", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  for (const list of [`,"${revision}"`, `"x",,"${revision}"`, `"${revision}", `, `, "x", ,`]) {
    const response = await app.request("/a", { headers: { "If-Match": list } });
    assert.equal(response.status, list.includes(revision) ? 200 : 412, list);
  }
});

test("turns away a condition that is none", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  const bad = [revision, "abc", '"abc', 'abc"', '"a" "b"', 'w/"a"', '*, "a"', '"a b"', "**"];
  for (const tags of bad) {
    for (const name of ["If-Match", "If-None-Match"]) {
      for (const init of [put("2"), { method: "DELETE" }, {}]) {
        const headers = { ...init.headers, [name]: tags };
        const response = await app.request("/a", { ...init, headers });
        assert.equal(response.status, 400, tags);
        assert.equal(
          (await readProblem(response)).detail,
          `Cannot read ${name}: expected * or a list of tags in double quotes`,
        );
      }
    }
  }
  assert.equal((await store.get("a"))?.revision, revision);
});

// ---- Arrays of operations ------------------------------------------------------------------

test("answers each operation in its place, as its own call would", async ({ app, store }) => {
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
  assert.deepEqual(answers, [
    { status: 200, value: "was", revision, expires: null },
    nothing,
    { status: 201, value: { a: [1] }, revision: written, expires },
    { status: 200, value: null, revision: over, expires: null },
    nothing,
    { status: 200, value: { a: [1] }, revision: written, expires },
  ]);
});

test("does the operations on one key in their order", async ({ app, store }) => {
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
  assert.deepEqual(
    answers.map(({ status, value }) => [status, value]),
    [[201, 1], [200, 1], [200, 2], [200, 2], [200, null], [201, 3], [412, 3], [200, 5]],
  );
  assert.equal((await store.get("a"))?.value, "5");
});

test("does an operation on its condition alone", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  const current = { status: 412, value: 1, revision, expires: null };
  const missing = { status: 412, value: null, revision: null, expires: null };
  assert.deepEqual(
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
  assert.equal(put?.status, 200);
  assert.equal(removed?.status, 200);
  assert.deepEqual((await store.list("")).keys, ["a"]);
});

test("takes an operation's ttl however its whole number is written", async ({ app, store }) => {
  const puts = ["60", "60.0", "6e1", "1.5", "1e400"].map((ttl) =>
    `{"op":"put","key":"k${ttl}","value":1,"ttl":${ttl}}`
  );
  const body = `[${puts}]`;
  const headers = { "Content-Type": "application/json" };
  const answers = await (await app.request("/", { method: "POST", body, headers })).json();
  assert.deepEqual(
    answers.map(({ status }: { status: number }) => status),
    [201, 201, 201, 400, 400],
  );
  const [first, ...others] = await Promise.all(["k60", "k60.0", "k6e1"].map((k) => store.get(k)));
  assert(first?.expires);
  for (const other of others) assert.equal(other?.expires, first.expires);
});

test("answers 400 for a bad operation alone", async ({ app, store }) => {
  const bad = [
    null,
    1,
    "get",
    [],
    {},
    { op: "get" },
    { op: "patch", key: "a" },
    { op: "get", key: 1 },
    { op: "get", key: "" },
    { op: "get", key: "x".repeat(MAX_KEY_BYTES + 1) },
    { op: "get", key: "a", ttl: 1 },
    { op: "put", key: "a" },
    { op: "put", key: "..", value: 1 },
    { op: "put", key: "a", value: 1, ttl: 0 },
    { op: "put", key: "a", value: 1, ttl: "60" },
    { op: "put", key: "a", value: 1, ifRevision: 1 },
    { op: "put", key: "a", value: 1, other: 1 },
    { op: "delete", key: "a", value: 1 },
  ];
  for (const operation of bad) {
    const [first, answer, last] = await operate(app, [
      { op: "put", key: "good", value: 1 },
      operation,
      { op: "get", key: "good" },
    ]);
    assert.ok(first?.status === 200 || first?.status === 201);
    assert.deepEqual(Object.keys(answer ?? {}), ["status", "detail"], JSON.stringify(operation));
    assert.equal(answer?.status, 400);
    assert.match(String(answer.detail), /^Cannot /);
    assert.equal(last?.value, 1);
  }
  const [large] = await operate(app, [{ op: "put", key: "a", value: "x".repeat(MAX_VALUE_BYTES) }]);
  assert.equal(large?.status, 413);
  assert.deepEqual((await store.list("")).keys, ["good"]);
});

test("does up to 1,000 operations in one array", async ({ app, store }) => {
  assert.deepEqual(await operate(app, []), []);
  const operations = Array.from({ length: MAX_OPERATIONS }, (_, i) => ({
    op: "put",
    key: `k${i}`,
    value: i,
  }));
  const answers = await operate(app, operations);
  assert.deepEqual(answers.map(({ value }) => value), operations.map(({ value }) => value));
  const over = await app.request("/", post(JSON.stringify([...operations, operations[0]])));
  assert.equal(over.status, 413);
  assert.match(
    (await readProblem(over)).detail,
    /^Cannot do 1001 operations: expected 1000 at most/,
  );
  assert.equal((await store.list("k9", { limit: 1000 })).keys.length, 111);
});

test("answers an array whose values are together longer than a text can be", async ({ app, store }) => {
  const value = json("x".repeat(MAX_VALUE_BYTES - 2));
  const { revision } = await store.set("a", value);
  // V8's texts have 2 ** 29 - 24 characters at most.
  const operations = Array.from({ length: 520 }, () => ({ op: "get", key: "a" }));
  const response = await app.request("/", post(JSON.stringify(operations)));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "application/json");
  const one = `{"status":200,"value":${value},"revision":"${revision}","expires":null}`;
  let length = 0;
  let first = "";
  let last = "";
  for await (const chunk of response.body ?? []) {
    first ||= new TextDecoder().decode(chunk);
    last = new TextDecoder().decode(chunk);
    length += chunk.length;
  }
  assert.equal(length, 520 * (one.length + 1) + 1);
  assert.ok(first === `[${one}` && last === "]");
});

test("turns away a ttl beside an array, whose operations have their own", async ({ app, store }) => {
  const response = await app.request("/?ttl=60", post('[{"op":"put","key":"a","value":1}]'));
  assert.equal(response.status, 400);
  assert.match((await readProblem(response)).detail, /^Cannot read the query: .*ttl/);
  assert.equal(await store.get("a"), null);
});

// ---- What is turned away -------------------------------------------------------------------

test("turns away a body that is no JSON", async ({ app, store }) => {
  const latin1 = new Uint8Array([0x22, 0xe9, 0x22]);
  const surrogate = new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22]);
  // Where no number's digits have to be kept, V8 parses any depth.
  const deep = `${"[".repeat(100_000)}1.10${"]".repeat(100_000)}`;
  const bodies = ["", " ", "{", "bar", "'bar'", "01", "NaN", "{}{}", '{"a":}', "[1,]", '"\n"'];
  for (const body of [...bodies, "\x00", latin1, surrogate, deep]) {
    for (const [path, init] of [["/a", put(body)], ["/", post(body)]] as const) {
      const response = await app.request(path, init);
      assert.equal(response.status, 400);
      assert.match((await readProblem(response)).detail, /^Cannot read the JSON: ./);
    }
  }
  for (const body of ["null", "true", '"text"', "1", "1.10", "12345678901234567890"]) {
    const response = await app.request("/", post(body));
    assert.equal(response.status, 400);
    assert.match((await readProblem(response)).detail, /expected a JSON object or array$/);
  }
  assert.deepEqual((await store.list("")).keys, []);
});

test("turns away a path that is no key", async ({ app }) => {
  const paths: [string, RegExp][] = [
    [`/${"x".repeat(MAX_KEY_BYTES + 1)}`, /^Cannot use the key: it is over 1024 bytes/],
    [`/${encodeURIComponent("é".repeat(513))}`, /^Cannot use the key: it is over 1024 bytes/],
    ["/%", /^Cannot read the key "%": bad escapes/],
    ["/a%2", /^Cannot read the key "a%2": bad escapes/],
    ["/%zz", /: bad escapes/],
    ["/%ff", /: bad escapes/],
    ["/%ed%a0%80", /: bad escapes/],
  ];
  for (const [path, detail] of paths) {
    for (const init of [{}, put("1"), { method: "DELETE" }]) {
      const response = await app.request(path, init);
      assert.equal(response.status, 400, path);
      assert.match((await readProblem(response)).detail, detail);
    }
  }
});

test("turns away a query that it does not know, or a name twice", async ({ app, store }) => {
  const cases: [string, RequestInit][] = [
    ["/?x=1", {}],
    ["/?ttl=1", {}],
    ["/?__proto__=1", {}],
    ["/?prefix=a&prefix=a", {}],
    ["/?limit=1&limit=2", {}],
    ["/a?ttl=1", {}],
    ["/a?prefix=a", {}],
    ["/a?x", {}],
    ["/a?ttl=1", { method: "DELETE" }],
    ["/a?limit=1", put("1")],
    ["/a?ttl=1&ttl=1", put("1")],
    ["/?prefix=1", post("{}")],
    ["/?ttl=1&ttl=2", post('{"a":1}')],
  ];
  for (const [path, init] of cases) {
    const response = await app.request(path, init);
    assert.equal(response.status, 400, path);
    assert.match((await readProblem(response)).detail, /^Cannot read the query: /);
  }
  assert.equal(await store.get("a"), null);
});

test("turns away a method that it does not know, with Allow", async ({ app }) => {
  for (const method of ["PUT", "DELETE", "PATCH", "OPTIONS", "FOO"]) {
    const response = await app.request("/", { method });
    assert.equal(response.status, 405, method);
    assert.equal(response.headers.get("Allow"), "GET, HEAD, POST");
    assert.match((await readProblem(response)).detail, /is not served here: expected GET, HEAD/);
  }
  for (const method of ["POST", "PATCH", "OPTIONS", "FOO"]) {
    for (const path of ["/a", "/a/b", "//"]) {
      const response = await app.request(path, { method });
      assert.equal(response.status, 405, method);
      assert.equal(response.headers.get("Allow"), "GET, HEAD, PUT, DELETE");
      await readProblem(response);
    }
  }
});

test("turns away a body that is neither JSON nor a form", async ({ app, store }) => {
  const types = ["text/plain", "application/jsonx", "text/json", "application/xml", ""];
  for (const type of types) {
    for (const [path, init] of [["/a", put("1")], ["/", post("{}")]] as const) {
      const response = await app.request(path, { ...init, headers: { "Content-Type": type } });
      assert.equal(response.status, 415, type);
      assert.match((await readProblem(response)).detail, /: expected application\/json/);
    }
  }
  for (const body of [new FormData(), new URLSearchParams("a=1"), new Uint8Array(1)]) {
    const response = await app.request("/a", { method: "PUT", body });
    assert.equal(response.status, 415);
    await readProblem(response);
  }
  assert.equal(await store.get("a"), null);
});

test("turns away a value over 1 MiB, and takes one of 1 MiB", async ({ app, store }) => {
  const largest = JSON.stringify("x".repeat(MAX_VALUE_BYTES - 2));
  assert.equal((await app.request("/a", put(largest))).status, 201);
  const larger = JSON.stringify("x".repeat(MAX_VALUE_BYTES - 1));
  for (const [path, init] of [["/b", put(larger)], ["/", post(`{"b":${larger}}`)]] as const) {
    const response = await app.request(path, init);
    assert.equal(response.status, 413);
    const { title, detail } = await readProblem(response);
    assert.equal(title, "Content Too Large");
    assert.match(detail, /over 1048576 bytes/);
  }
  assert.deepEqual((await store.list("")).keys, ["a"]);
});

test("turns away a body over 16 MiB, told by its length or not", async ({ app }) => {
  const chunk = new Uint8Array(1024 * 1024).fill(0x20);
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(chunk);
      sent += chunk.length;
    },
  });
  const told = post("{}", { ...JSON_TYPE, "Content-Length": String(MAX_BODY_BYTES + 1) });
  for (const init of [told, { ...post(endless), duplex: "half" }]) {
    const response = await app.request("/", init);
    assert.equal(response.status, 413);
    assert.match((await readProblem(response)).detail, /^The body is over 16777216 bytes/);
  }
  assert.ok(sent < 2 * MAX_BODY_BYTES);
});

// ---- Who may come in -----------------------------------------------------------------------

const TOKENS = { tokens: ["secret-token", "next-token"], readTokens: ["reading-token"] };
const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });
const basic = (token: string) => ({ Authorization: `Basic ${btoa(`anybody:${token}`)}` });

test("asks for a token, and says how to bring it", async ({ app }) => {
  const wrong = [
    "",
    "Bearer",
    "Bearer wrong",
    "Bearer secret-tokenx",
    "Basic c2VjcmV0",
    "Digest x",
  ];
  for (const headers of [...wrong.map((it) => ({ Authorization: it })), basic("wrong")]) {
    for (const [path, init] of [["/", {}], ["/a", put("1")], ["/a", { method: "FOO" }]] as const) {
      const response = await app.request(path, { ...init, headers });
      assert.equal(response.status, 401);
      assert.equal(response.headers.get("WWW-Authenticate"), 'Bearer realm="kv"');
      assert.match((await readProblem(response)).detail, /Authorization: Bearer/);
    }
  }
}, TOKENS);

test("has a browser ask its reader for a token", async ({ app }) => {
  const response = await app.request("/", { headers: { Accept: "text/html,*/*;q=0.8" } });
  assert.equal(response.status, 401);
  assert.match(response.headers.get("WWW-Authenticate") ?? "", /^Basic realm="[^"]+"$/);
}, TOKENS);

test("lets in whoever brings one of the tokens, under any Host", async ({ app }) => {
  for (const token of TOKENS.tokens) {
    for (const headers of [bearer(token), basic(token)]) {
      assert.equal((await app.request("/", { headers })).status, 200);
      const init = post('{"a":1}', { ...JSON_TYPE, ...headers });
      assert.equal((await app.request("https://kv.example/", init)).status, 200);
    }
  }
}, TOKENS);

test("lets the bearer of a reading token read, and change nothing", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  const headers = { ...JSON_TYPE, ...bearer("reading-token") };
  assert.equal(await (await app.request("/a", { headers })).text(), '{"a":1}');
  assert.equal(await (await app.request("/", { headers })).text(), '{"keys":["a"]}');
  const lines = { ...headers, "Content-Type": "application/x-ndjson" };
  const writes: [string, RequestInit][] = [
    ["/a", put("2", headers)],
    ["/a", put("2", { ...headers, "If-Match": `"${revision}"` })],
    ["/a", { method: "DELETE", headers }],
    ["/", post('{"a":2}', headers)],
    ["/", post('{"a":2}', lines)],
  ];
  for (const [path, init] of writes) {
    const response = await app.request(path, init);
    assert.equal(response.status, 403);
    assert.match(
      (await readProblem(response)).detail,
      /Cannot write with a token of KV_READ_TOKEN/,
    );
  }
  const operations = [
    { op: "get", key: "a" },
    { op: "put", key: "a", value: 2 },
    { op: "delete", key: "a" },
  ];
  const answers = await app.request("/", post(JSON.stringify(operations), headers));
  const steps: { status: number; value?: number }[] = await answers.json();
  assert.deepEqual(steps.map(({ status }) => status), [200, 403, 403]);
  assert.equal((await store.get("a"))?.revision, revision);
}, TOKENS);

test("turns away requests of other sites' pages", async ({ app, store }) => {
  const cases: Record<string, string>[] = [
    { "Sec-Fetch-Site": "cross-site" },
    { "Sec-Fetch-Site": "same-site" },
    { "Sec-Fetch-Site": "cross-site", Origin: "http://localhost", Host: "localhost" },
    { Origin: "https://evil.example", Host: "localhost" },
    { Origin: "http://localhost:5000", Host: "localhost:5100" },
    { Origin: "http://localhost.evil.example", Host: "localhost" },
    { Origin: "null", Host: "localhost" },
    { Origin: "", Host: "localhost" },
  ];
  for (const headers of cases) {
    for (const method of ["GET", "POST", "PUT", "DELETE", "OPTIONS"]) {
      const path = method === "POST" ? "/" : "/a";
      const body = method === "POST" ? '{"a":1}' : method === "PUT" ? "1" : null;
      const init = { method, body, headers: { ...JSON_TYPE, ...headers } };
      const response = await app.request(path, init);
      assert.equal(response.status, 403, JSON.stringify(headers));
      assert.equal(response.headers.get("Access-Control-Allow-Origin"), null);
      assert.match((await readProblem(response)).detail, /other sites' pages/);
    }
  }
  assert.equal(await store.get("a"), null);
});

test("lets in a page of its own, an address that is typed, and what is no browser", async (t) => {
  const cases: Record<string, string>[] = [
    {},
    { "Sec-Fetch-Site": "same-origin" },
    { "Sec-Fetch-Site": "none" },
    { Origin: "http://localhost:5100", Host: "localhost:5100" },
    { Origin: "https://localhost:5100", Host: "localhost:5100" },
  ];
  for (const headers of cases) {
    const response = await t.app.request("http://localhost:5100/a", put("1", headers));
    assert.ok(response.ok, JSON.stringify(headers));
  }
});

test("turns away a Host that it does not know, while no token is asked", async ({ store }) => {
  const app = kv(store, { host: "kv.internal" });
  const foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"];
  for (const host of [...foreign, "[::2]", "kv.internal.example"]) {
    const response = await app.request(`http://${host}/`);
    assert.equal(response.status, 403, host);
    assert.equal(
      (await readProblem(response)).detail,
      `The Host "${host}" is not served here: use localhost, or set KV_TOKEN`,
    );
  }
  for (const host of ["localhost", "LOCALHOST:5100", "127.0.0.1", "127.1.2.3:80", "[::1]:5100"]) {
    assert.equal((await app.request(`http://${host}/`)).status, 200, host);
  }
  assert.equal((await app.request("http://kv.internal:5100/")).status, 200);
});

// ---- A store that fails --------------------------------------------------------------------

/** A store whose every call fails. */
function failingStore(error: Error): Store {
  const fail = () => Promise.reject(error);
  return { get: fail, set: fail, setAll: fail, delete: fail, list: fail, watch: fail, close: fail };
}

const CALLS: [string, RequestInit][] = [
  ["/", {}],
  ["/a", {}],
  ["/a", put("1")],
  ["/a", put("1", { "If-Match": "*" })],
  ["/a", { method: "DELETE" }],
  ["/", post('{"a": 1}')],
];
const OPERATIONS = [
  { op: "get", key: "a" },
  { op: "put", key: "a", value: 1 },
  { op: "delete", key: "a" },
];

Deno.test("kv() answers 503 with the outcome while its store does not answer", async () => {
  for (const outcome of ["unchanged", "unknown"] as const) {
    const app = kv(failingStore(new StoreUnavailable("redis://secret cannot", { outcome })));
    const log = await logged(async () => {
      for (const [path, init] of CALLS) {
        const response = await app.request(path, init);
        assert.equal(response.status, 503);
        assert.equal(response.headers.get("Retry-After"), "1");
        assert.deepEqual(await readProblem(response), {
          title: "Service Unavailable",
          status: 503,
          detail: "The store does not answer",
          outcome,
        });
      }
      const answer = { status: 503, detail: "The store does not answer", outcome };
      assert.deepEqual(await operate(app, OPERATIONS), [answer, answer, answer]);
    });
    assert.deepEqual(new Set(log.split("\n")), new Set(["kv: redis://secret cannot"]));
  }
});

Deno.test("kv() answers 507 while its store is full", async () => {
  const app = kv(failingStore(new StoreFull("/var/secret is full")));
  const log = await logged(async () => {
    for (const [path, init] of CALLS) {
      const response = await app.request(path, init);
      assert.equal(response.status, 507);
      assert.deepEqual(await readProblem(response), {
        title: "Insufficient Storage",
        status: 507,
        detail: "The store is full",
      });
    }
    const answer = { status: 507, detail: "The store is full" };
    assert.deepEqual(await operate(app, OPERATIONS), [answer, answer, answer]);
  });
  assert.deepEqual(new Set(log.split("\n")), new Set(["kv: /var/secret is full"]));
});

Deno.test("kv() answers 500 to a defect, logs its trace and tells the client nothing", async () => {
  const app = kv(failingStore(new Error("a secret")));
  const problem = {
    title: "Internal Server Error",
    status: 500,
    detail: "This is a defect of the service",
  };
  for (const [path, init] of CALLS) {
    const log = await logged(async () => {
      const response = await app.request(path, init);
      assert.equal(response.status, 500);
      assert.deepEqual(await readProblem(response), problem);
    });
    assert.match(log, /^kv: Error: a secret\n +at /);
  }
  const { title: _, ...answer } = problem;
  const log = await logged(async () => {
    assert.deepEqual(await operate(app, OPERATIONS), [answer, answer, answer]);
  });
  assert.match(log, /^kv: Error: a secret\n +at /);
});

// ---- The page ------------------------------------------------------------------------------

test("shows browsers a page, which runs its own script alone", async ({ app }) => {
  const accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
  const response = await app.request("/", { headers: { Accept: accept } });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("Content-Type"), "text/html; charset=UTF-8");
  assert.equal(response.headers.get("Vary"), "Accept");
  assert.match(
    response.headers.get("Content-Security-Policy") ?? "",
    /^default-src 'none'; .*script-src 'sha256-[^']+'; connect-src 'self'; require-trusted-types/,
  );
  assert.match(await response.text(), /<h1>Key-value store<\/h1>/);
  for (const other of ["*/*", "application/json", "text/plain"]) {
    const { headers } = await app.request("/", { headers: { Accept: other } });
    assert.equal(headers.get("Content-Type"), "application/json", other);
  }
});

// ---- Slow clients --------------------------------------------------------------------------

test("waits for a body no longer than BODY_TIMEOUT", async ({ app, store }) => {
  const { setTimeout } = globalThis;
  const quick = (run: () => void, after = 0) => setTimeout(run, after / 600);
  const timers = globalThis as { setTimeout: unknown };
  timers.setTimeout = quick;
  try {
    for (
      const type of ["application/json", "application/x-ndjson", "multipart/form-data; boundary=x"]
    ) {
      const body = new ReadableStream<Uint8Array>({
        start: (stream) => stream.enqueue(new TextEncoder().encode('{"a":1}\n')),
      });
      const response = await app.request("/", post(body, { "Content-Type": type }));
      assert.equal(response.status, 408);
      assert.match((await readProblem(response)).detail, /did not come within 60 seconds/);
    }
  } finally {
    timers.setTimeout = setTimeout;
  }
  assert.deepEqual((await store.list("")).keys, ["a"], "the line that came whole");
});
