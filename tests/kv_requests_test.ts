/** Methods, paths and queries that are rejected. */
import { assertEquals, assertMatch } from "@std/assert";
import { MAX_KEY_BYTES } from "../stores/store.ts";
import { post, put, readProblem, test } from "./helpers/kv_app.ts";

test("rejects a path that is not a key", async ({ app }) => {
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
      assertEquals(response.status, 400, path);
      assertMatch((await readProblem(response)).detail, detail);
    }
  }
});

test("rejects unknown and repeated query parameters", async ({ app, store }) => {
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
    assertEquals(response.status, 400, path);
    assertMatch((await readProblem(response)).detail, /^Cannot read the query: /);
  }
  assertEquals(await store.get("a"), null);
});

test("rejects other methods, with Allow", async ({ app }) => {
  for (const method of ["PUT", "PATCH", "OPTIONS", "FOO"]) {
    const response = await app.request("/", { method });
    assertEquals(response.status, 405, method);
    assertEquals(response.headers.get("Allow"), "GET, HEAD, POST, DELETE");
    assertMatch((await readProblem(response)).detail, /^Cannot [A-Z]+ here: expected GET, HEAD/);
  }
  for (const method of ["POST", "OPTIONS", "FOO"]) {
    for (const path of ["/a", "/a/b", "//"]) {
      const response = await app.request(path, { method });
      assertEquals(response.status, 405, method);
      assertEquals(response.headers.get("Allow"), "GET, HEAD, PUT, PATCH, DELETE");
      await readProblem(response);
    }
  }
});

test("rejects a query with invalid percent-encoding", async ({ app }) => {
  for (const search of ["?prefix=%FF", "?prefix=a%", "?prefix=a?%", "?%zz=1"]) {
    const response = await app.request(`/${search}`);
    assertEquals(response.status, 400, search);
    assertMatch((await readProblem(response)).detail, /^Cannot read the query ".*": bad escapes$/);
  }
});
