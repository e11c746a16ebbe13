/** kv/keys.ts: requests whose path is a key. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import type { Store } from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import { etagOf, GUARDS, NOW, post, put, readProblem, test } from "./helpers/kv_app.ts";

/** The headers of a key's JSON, without a tag. */
const HEADERS = {
  ...GUARDS,
  "cache-control": "no-cache, max-age=0, no-transform",
  "content-type": "application/json",
  vary: "Accept",
};

test("returns an entry with its ETag", async ({ app, store }) => {
  const { revision } = await store.set("foo", json("bar"));
  const response = await app.request("/foo");
  assertEquals(response.status, 200);
  assertEquals(Object.fromEntries(response.headers), {
    ...HEADERS,
    etag: `"${revision}"`,
  });
  assertEquals(await response.text(), '{"foo":"bar"}');
});

test("returns null for a missing key, without an ETag", async ({ app }) => {
  const response = await app.request("/foo");
  assertEquals(response.status, 200);
  assertEquals(Object.fromEntries(response.headers), HEADERS);
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
  assertEquals(created.headers.get("Cache-Control"), "no-cache, max-age=0, no-transform");
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

test("sends the text to a client that has only the JSON, and the JSON to one that has the text", async ({ app, store }) => {
  await store.set("a", json("b"));
  const accepts = ["application/json", "text/plain"];
  const tags = await Promise.all(accepts.map(async (Accept) => {
    return (await app.request("/a", { headers: { Accept } })).headers.get("ETag") ?? "";
  }));
  for (const [i, accept] of accepts.entries()) {
    for (const [j, tag] of tags.entries()) {
      for (const name of ["If-None-Match", "If-Match"]) {
        const headers = { Accept: accept, [name]: tag };
        const { status } = await app.request("/a", { headers });
        // The text's tag is weak, which If-Match never accepts.
        const expected = name === "If-Match" ? (i + j === 0 ? 200 : 412) : i === j ? 304 : 200;
        assertEquals(status, expected, `${accept}, ${name}: ${tag}`);
      }
    }
  }
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
  const weak = `W/"${revision}-text"`;
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
