import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import { kv } from "../kv.ts";
import { json } from "../stores/json_text.ts";
import { MAX_KEY_BYTES, type Store, StoreUnavailable } from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import {
  etagOf,
  failingListing,
  GUARDS,
  NOW,
  post,
  put,
  readProblem,
  test,
} from "./helpers/kv_app.ts";

// ---- Single keys ----------------------------------------------------------------------------

test("sets the keys of an object and returns it", async ({ app }) => {
  const response = await app.request("/", post('{"foo": "bar", "n": {"a": [1, null]}}'));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  assertEquals(await response.text(), '{"foo":"bar","n":{"a":[1,null]}}');
  assertEquals(await (await app.request("/foo")).json(), { foo: "bar" });
  assertEquals(await (await app.request("/n")).json(), { n: { a: [1, null] } });
});

test("sets nothing for an empty object", async ({ app, store }) => {
  const response = await app.request("/", post("{}"));
  assertEquals(response.status, 200);
  assertEquals(await response.text(), "{}");
  assertEquals((await store.list("")).keys, []);
});

test("sets all keys of an object, or none", async ({ app, store }) => {
  for (const bad of ['""', '"."', '".."', '"\\ud800"', `"${"x".repeat(MAX_KEY_BYTES + 1)}"`]) {
    const response = await app.request("/", post(`{"good": 1, ${bad}: 1}`));
    assertEquals(response.status, 400, bad);
    assertMatch((await readProblem(response)).detail, /^Cannot use the key/);
  }
  const tooLarge = await app.request("/", post(`{"good": 1, "a": "${"x".repeat(2 ** 20)}"}`));
  assertEquals(tooLarge.status, 413);
  assertEquals((await store.list("")).keys, []);
});

test("sets the keys of a form to texts", async ({ app, store }) => {
  const form = new FormData();
  form.set("n", "1");
  form.set("é/\u{1f600}", 'a "text"\r\n');
  form.set("empty", "");
  const forms = [form, new URLSearchParams({ n: "1", "é/\u{1f600}": 'a "text"\r\n', empty: "" })];
  for (const body of forms) {
    const response = await app.request("/", { method: "POST", body });
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "application/json");
    assertEquals(await response.text(), '{"n":"1","é/\u{1f600}":"a \\"text\\"\\r\\n","empty":""}');
    assertEquals((await store.get("n"))?.value, '"1"');
    assertEquals((await store.delete("é/\u{1f600}"))?.value, '"a \\"text\\"\\r\\n"');
  }
});

test("rejects a form with a repeated key, a file or a syntax error", async ({ app, store }) => {
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
    assertEquals(response.status, 400);
    assertMatch((await readProblem(response)).detail, detail);
  }
  assertEquals((await store.list("")).keys, []);
});

test("returns an entry with its ETag", async ({ app, store }) => {
  const { revision } = await store.set("foo", json("bar"));
  const response = await app.request("/foo");
  assertEquals(response.status, 200);
  assertEquals(Object.fromEntries(response.headers), {
    ...GUARDS,
    "cache-control": "no-cache",
    "content-type": "application/json",
    etag: `"${revision}"`,
    vary: "Accept",
  });
  assertEquals(await response.text(), '{"foo":"bar"}');
});

test("returns null for a missing key, without an ETag", async ({ app }) => {
  const response = await app.request("/foo");
  assertEquals(response.status, 200);
  assertEquals(Object.fromEntries(response.headers), {
    ...GUARDS,
    "cache-control": "no-cache",
    "content-type": "application/json",
    vary: "Accept",
  });
  assertEquals(await response.text(), '{"foo":null}');
});

test("returns a stored null with an ETag", async ({ app }) => {
  await app.request("/foo", put("null"));
  const response = await app.request("/foo");
  assertEquals(response.status, 200);
  etagOf(response);
  assertEquals(await response.text(), '{"foo":null}');
});

test("stores a value: 201 for a new key, 200 over another value", async ({ app }) => {
  const created = await app.request("/foo", put('{"a": 1}'));
  assertEquals(created.status, 201);
  assertEquals(created.headers.get("Content-Type"), "application/json");
  assertEquals(created.headers.get("Cache-Control"), "no-cache");
  assertEquals(created.headers.get("Expires"), null);
  assertEquals(await created.text(), '{"foo":{"a":1}}');
  const replaced = await app.request("/foo", put("[2]"));
  assertEquals(replaced.status, 200);
  assertNotEquals(etagOf(replaced), etagOf(created));
  assertEquals(await replaced.text(), '{"foo":[2]}');
  const got = await app.request("/foo");
  assertEquals(etagOf(got), etagOf(replaced));
  assertEquals(await got.text(), '{"foo":[2]}');
});

test("deletes an entry and returns its value", async ({ app, store }) => {
  await store.set("foo", json("bar"));
  for (const body of ['{"foo":"bar"}', '{"foo":null}']) {
    const response = await app.request("/foo", { method: "DELETE" });
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "application/json");
    assertEquals(response.headers.get("ETag"), null);
    assertEquals(await response.text(), body);
    assertEquals(await store.get("foo"), null);
  }
});

test("answers HEAD as GET, with the Content-Length of its body", async ({ app, store }) => {
  await store.set("foo", json("bar"), { ttl: 60 });
  for (const path of ["/foo", "/missing", "/", "/?limit=1", "/?health", "/?openapi", "/foo?x=1"]) {
    const get = await app.request(path);
    const head = await app.request(path, { method: "HEAD" });
    assertEquals(head.status, get.status, path);
    const headers = Object.fromEntries(get.headers);
    const { byteLength } = await get.arrayBuffer();
    const wanted = { ...headers, "content-length": String(byteLength) };
    assertEquals(Object.fromEntries(head.headers), wanted, path);
    assertEquals(await head.text(), "");
  }
});

test("keeps keys of every kind apart", async ({ app }) => {
  const paths = AWKWARD_KEYS.map((key) => [key, `/${encodeURIComponent(key)}`] as const);
  for (const [i, [, path]] of paths.entries()) {
    assertEquals((await app.request(path, put(String(i)))).status, 201, path);
  }
  for (const [i, [key, path]] of paths.entries()) {
    const body = `{${JSON.stringify(key)}:${i}}`;
    assertEquals(await (await app.request(path)).text(), body);
    assertEquals(await (await app.request(path, { method: "DELETE" })).text(), body);
    assertEquals(await (await app.request(path)).text(), `{${JSON.stringify(key)}:null}`);
  }
});

test("accepts any key in an object", async ({ app, store }) => {
  const body = `{${AWKWARD_KEYS.map((key, i) => `${JSON.stringify(key)}:${i}`).join(",")}}`;
  const response = await app.request("/", post(body));
  assertEquals(response.status, 200);
  assertEquals(await response.json(), JSON.parse(body));
  for (const [i, key] of AWKWARD_KEYS.entries()) {
    assertEquals((await store.get(key))?.value, String(i), JSON.stringify(key));
  }
});

test("keeps every digit of a number", async ({ app }) => {
  const numbers = "[12345678901234567890,1.10,-0,1e400,0.1000000000000000055511151231257827]";
  const values = ["12345678901234567890", "1.10", numbers, `{"a":${numbers}}`];
  for (const value of values) {
    assertEquals(await (await app.request("/a", put(value))).text(), `{"a":${value}}`);
    assertEquals(await (await app.request("/a")).text(), `{"a":${value}}`);
    assertEquals(await (await app.request("/", post(`{"b":${value}}`))).text(), `{"b":${value}}`);
    assertEquals(await (await app.request("/b")).text(), `{"b":${value}}`);
    const operations = `[{"op":"put","key":"c","value":${value}},{"op":"get","key":"c"}]`;
    const answers = await (await app.request("/", post(operations))).text();
    assert(answers.includes(`"value":${value},"revision"`), answers);
    const stale = await app.request("/c", put("0", { "If-Match": '"stale"' }));
    assertEquals(stale.status, 412);
    assert((await stale.text()).endsWith(`"current":{"c":${value}}}`));
    const removed = await app.request("/c", { method: "DELETE" });
    assertEquals(await removed.text(), `{"c":${value}}`);
  }
});

test("accepts any JSON media type, with or without parameters", async ({ app }) => {
  const types = ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"];
  for (const type of types.concat("application/ld+json", "application/vnd.api+json;v=1")) {
    const response = await app.request("/a", put("1", { "Content-Type": type }));
    assert(response.ok, type);
  }
});

// ---- Time -----------------------------------------------------------------------------------

test("keeps an entry for ttl seconds, and returns its expiry", async ({ app, store }) => {
  const Expires = new Date(NOW + 60_000).toUTCString();
  const response = await app.request("/a?ttl=60", put("1"));
  assertEquals(response.status, 201);
  assertEquals(response.headers.get("Expires"), Expires);
  assertEquals((await app.request("/a")).headers.get("Expires"), Expires);
  await app.request("/?ttl=60", post('{"b": 1, "c": 2}'));
  assertEquals((await app.request("/b")).headers.get("Expires"), Expires);
  assertEquals((await store.get("c"))?.expires, NOW + 60_000);
  await app.request("/a", put("2"));
  assertEquals((await app.request("/a")).headers.get("Expires"), null);
});

test("rejects an invalid ttl", async ({ app, store }) => {
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
      assertEquals(response.status, 400, ttl);
      assertMatch((await readProblem(response)).detail, /ttl|for ".*" seconds: expected a whole/);
    }
  }
  assertEquals((await store.list("")).keys, []);
});

test("extends the life of an entry without its value, by PATCH", async ({ app, store }) => {
  const { revision } = await store.set("a", json({ n: 1 }), { ttl: 60 });
  const response = await app.request("/a?ttl=3600", { method: "PATCH" });
  assertEquals(response.status, 200);
  assertEquals(await response.text(), '{"a":{"n":1}}');
  assertEquals(response.headers.get("Expires"), new Date(NOW + 3_600_000).toUTCString());
  const entry = await store.get("a");
  assertEquals([entry?.value, entry?.expires], ['{"n":1}', NOW + 3_600_000]);
  assertEquals(etagOf(response), `"${entry?.revision}"`);
  const cases: [string, RequestInit, number][] = [
    ["/a?ttl=60", { headers: { "If-Match": `"${revision}"` } }, 412],
    ["/a?ttl=60", { headers: { "If-Match": `"${entry?.revision}"` } }, 200],
    ["/missing?ttl=60", {}, 404],
    ["/missing?ttl=60", { headers: { "If-Match": "*" } }, 412],
    ["/a", {}, 400],
    ["/a?ttl=0", {}, 400],
    ["/a?ttl=60", { body: "2" }, 415],
  ];
  for (const [path, init, status] of cases) {
    const response = await app.request(path, { method: "PATCH", ...init });
    assertEquals(response.status, status, path);
    if (status !== 200) await readProblem(response);
  }
  assertEquals((await store.get("a"))?.expires, NOW + 60_000);
  assertEquals((await store.list("")).keys, ["a"]);
});

test("extends the value that another writer has just set, never an older one", async ({ store }) => {
  await store.set("a", json(1));
  let writes = 0;
  const busy: Store = {
    ...store,
    set: async (key, value, options) => {
      if (++writes === 1) await store.set(key, json("between"));
      return await store.set(key, value, options);
    },
  };
  const response = await kv(busy).request("/a?ttl=60", { method: "PATCH" });
  assertEquals(await response.text(), '{"a":"between"}');
  assertEquals(writes, 2);
});

test("deletes the keys under a prefix; all of them only if asked to", async ({ app, store }) => {
  const names = Array.from({ length: 150 }, (_, i) => `f${i}`);
  await store.setAll(new Map([...names, "bar", "g"].map((key) => [key, json(1)])));
  for (const path of ["/", "/?prefix=", "/?prefix=f&x=1", "/?prefix=f&all=1"]) {
    const response = await app.request(path, { method: "DELETE" });
    assertEquals(response.status, 400, path);
    await readProblem(response);
  }
  const conditional = { method: "DELETE", headers: { "If-Match": "*" } };
  assertEquals((await app.request("/?prefix=f", conditional)).status, 400);
  const some = await app.request("/?prefix=f", { method: "DELETE" });
  assertEquals(some.status, 200);
  assertEquals(await some.json(), { deleted: 150 });
  assertEquals((await store.list("")).keys, ["bar", "g"]);
  const all = await app.request("/?prefix=&all", { method: "DELETE" });
  assertEquals(await all.json(), { deleted: 2 });
  assertEquals((await store.list("")).keys, []);
});

test("counts the keys that it has deleted itself", async ({ store }) => {
  await store.setAll(new Map(["a1", "a2", "a3"].map((key) => [key, json(1)])));
  const app = kv({
    ...store,
    async delete(key) {
      if (key === "a2") await store.delete(key); // another client was faster
      return await store.delete(key);
    },
  });
  const response = await app.request("/?prefix=a", { method: "DELETE" });
  assertEquals(await response.json(), { deleted: 2 });
});

test("returns a value as plain text to a client that prefers it", async ({ app, store }) => {
  await store.set("text", json('a "b"\n'));
  await store.set("number", json(1.5));
  const { revision } = await store.set("object", json({ a: [1] }));
  const get = (path: string, headers: Record<string, string> = {}) =>
    app.request(path, { headers: { Accept: "text/plain", ...headers } });
  const texts = { "/text": 'a "b"\n', "/number": "1.5", "/object": '{"a":[1]}' };
  for (const [path, text] of Object.entries(texts)) {
    const response = await get(path);
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "text/plain; charset=UTF-8");
    assertEquals(response.headers.get("Vary"), "Accept");
    assertEquals(await response.text(), text);
  }
  const weak = `W/"${revision}"`;
  assertEquals((await get("/object")).headers.get("ETag"), weak);
  assertEquals((await get("/object", { "If-None-Match": weak })).status, 304);
  const missing = await get("/missing");
  assertEquals(missing.status, 404);
  assertMatch((await readProblem(missing)).detail, /^There is no entry "missing"$/);
  for (
    const accept of ["application/json, text/plain, */*", "*/*", "text/html", "x".repeat(3000)]
  ) {
    assertEquals(await (await get("/number", { Accept: accept })).text(), '{"number":1.5}');
  }
});

// ---- Listings -------------------------------------------------------------------------------

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
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "application/json");
    assertEquals(await response.text(), JSON.stringify({ keys }));
  }
});

test("lists page by page, by next and by Link", async ({ app, store }) => {
  const names = Array.from({ length: 25 }, (_, i) => `p&é ${String(i).padStart(2, "0")}`);
  await store.setAll(new Map(["o", ...names, "q"].map((key) => [key, json(1)])));
  const first = `/?${new URLSearchParams({ prefix: "p", limit: "10" })}`;
  const seen: string[] = [];
  const sizes: number[] = [];
  let path: string | undefined = first;
  while (path !== undefined) {
    const response: Response = await app.request(path);
    assertEquals(response.status, 200);
    const { keys, next } = await response.json() as { keys: string[]; next: string | null };
    // Relative to "/": a proxy may serve it under a path of its own.
    const link = /^<(\?[^>]*)>; rel="next"$/.exec(response.headers.get("Link") ?? "")?.[1];
    assertEquals(link !== undefined, next !== null);
    if (next !== null) {
      const byNext = await app.request(`${first}&after=${encodeURIComponent(next)}`);
      const byLink = await app.request(`/${link}`);
      assertEquals(await byNext.text(), await byLink.text());
    }
    seen.push(...keys);
    sizes.push(keys.length);
    path = link && `/${link}`;
  }
  assertEquals(sizes, [10, 10, 5]);
  assertEquals(seen, names);
});

test("says how many entries there are, with a page of all of them", async ({ app, store }) => {
  await store.setAll(new Map(["a", "b", "c"].map((key) => [key, json(1)])));
  const total = async (path: string) => (await app.request(path)).headers.get("X-Total-Count");
  assertEquals(await total("/?limit=2"), "3");
  assertEquals(await total("/?limit=2&prefix=a"), null);
  const { count: _, ...cannotCount } = store;
  const response = await kv(cannotCount).request("/?limit=2");
  assertEquals(response.headers.get("X-Total-Count"), null);
});

test("continues after a key without a limit, in pages of 1,000", async ({ app, store }) => {
  const names = Array.from({ length: 2500 }, (_, i) => `k${String(i).padStart(4, "0")}`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  const response = await app.request("/?after=k0099");
  assertEquals(response.status, 200);
  assertMatch(response.headers.get("Link") ?? "", /limit=1000&after=/);
  assertEquals((await response.json()).keys, names.slice(100, 1100));
});

test("lists all of 5,000 keys as one JSON text", async ({ app, store }) => {
  const names = Array.from({ length: 5000 }, (_, i) => `k"${String(i).padStart(4, "0")}\\é`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  await store.set("other", json(1));
  const response = await app.request("/?prefix=k");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  assertEquals(response.headers.get("Link"), null);
  assertEquals(await response.json(), { keys: names });
});

test("aborts the response when a long listing fails midway", async (t) => {
  await t.store.setAll(new Map(Array.from({ length: 2500 }, (_, i) => [`k${i}`, json(i)])));
  const response = await kv(failingListing(t.store)).request("/");
  assertEquals(response.status, 200);
  await assertRejects(() => response.text(), StoreUnavailable);
});

test("answers HEAD for a long listing without reading further pages", async ({ store }) => {
  await store.setAll(new Map(Array.from({ length: 2500 }, (_, i) => [`k${i}`, json(i)])));
  const head = await kv(failingListing(store)).request("/", { method: "HEAD" });
  assertEquals(head.status, 200);
  assertEquals(head.headers.get("Content-Type"), "application/json");
  assertEquals(head.headers.get("Content-Length"), null);
});

test("rejects an invalid limit", async ({ app }) => {
  for (const limit of ["0", "-1", "1.5", "1001", "abc", ""]) {
    const response = await app.request(`/?limit=${limit}`);
    assertEquals(response.status, 400, limit);
    assertMatch((await readProblem(response)).detail, /limit|Cannot list ".*" keys: expected/);
  }
});

// ---- The page -------------------------------------------------------------------------------

test("ignores an Accept of over 2,048 characters", async ({ app }) => {
  const typeFor = async (accept: string) => {
    const response = await app.request("/", { headers: { Accept: accept } });
    await response.body?.cancel();
    return response.headers.get("Content-Type");
  };
  assertEquals(await typeFor("application/x-ndjson,text/x"), "application/x-ndjson");
  assertEquals(await typeFor(`application/x-ndjson${",text/x".repeat(300)}`), "application/json");
});

test("shows browsers a page that runs only its own script", async ({ app }) => {
  const accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
  const response = await app.request("/", { headers: { Accept: accept } });
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "text/html; charset=UTF-8");
  assertEquals(response.headers.get("Vary"), "Accept");
  assertMatch(
    response.headers.get("Content-Security-Policy") ?? "",
    /^default-src 'none'; .*script-src 'sha256-[^']+'; connect-src 'self'; require-trusted-types/,
  );
  assertMatch(await response.text(), /<h1>Key-value store<\/h1>/);
  for (const other of ["*/*", "application/json", "text/plain"]) {
    const { headers } = await app.request("/", { headers: { Accept: other } });
    assertEquals(headers.get("Content-Type"), "application/json", other);
  }
});
