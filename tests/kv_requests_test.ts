/** Methods, paths, queries and what Accept asks for. */
import { assertEquals, assertMatch } from "@std/assert";
import { json } from "../stores/json/text.ts";
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

test("gives the media type that Accept prefers", async ({ app, store }) => {
  await store.set("a", json(1));
  const cases: [string, string, string][] = [
    ["/", "text/html;q=0, */*", "application/json"],
    ["/", "text/html;q=0.1, */*;q=0.5", "application/json"],
    ["/", "text/html, */*", "text/html"],
    ["/", "*/*, text/html", "application/json"],
    ["/", "TEXT/HTML", "text/html"],
    ["/", "text/*", "text/event-stream"],
    ["/", "text/*, text/event-stream;q=0", "text/html"],
    ["/", "application/*;q=0.2, application/x-ndjson;q=0.3", "application/x-ndjson"],
    ["/", "application/json;q=0.1, application/x-ndjson;q=0.3, */*;q=0", "application/x-ndjson"],
    ["/", "application/json;q=0", "application/json"],
    ["/", "image/png", "application/json"],
    ["/a", "text/plain;q=0, */*", "application/json"],
    ["/a", "application/json;q=0, */*", "text/plain"],
    ["/a", "text/plain;q=0.5, application/json;q=0.4", "text/plain"],
  ];
  for (const [path, accept, type] of cases) {
    const { headers, body } = await app.request(path, { headers: { Accept: accept } });
    await body?.cancel();
    assertEquals(headers.get("Content-Type")?.split(";")[0], type, accept);
  }
});

test("tells caches that answers vary by Accept", async ({ app, store }) => {
  const names = Array.from({ length: 1001 }, (_, i) => `k${i}`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  const accepts = ["*/*", "text/plain", "text/html", "text/event-stream", "application/x-ndjson"];
  for (const path of ["/", "/?prefix=x", "/?limit=1", "/k1", "/missing"]) {
    for (const accept of accepts) {
      for (const method of ["GET", "HEAD"]) {
        const { headers, body } = await app.request(path, { method, headers: { Accept: accept } });
        await body?.cancel();
        assertEquals(headers.get("Vary"), "Accept", `${method} ${path} ${accept}`);
      }
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

test("takes a Host with a default port, which Node and Bun leave out of the URL", async ({ app }) => {
  const statuses = async (...hosts: string[]) =>
    await Promise.all(hosts.map(async (Host) => {
      return (await app.request("http://localhost/a", { headers: { Host } })).status;
    }));
  assertEquals(await statuses("localhost", "LOCALHOST:80", "localhost:443"), [200, 200, 200]);
  assertEquals(await statuses("localhost:8080", "localhost/b", "other:80"), [400, 400, 400]);
});

test("says in its own words what a query or an operation should be", async ({ app, store }) => {
  const operation = (text: string) => ["/", post(`[${text}]`)] as const;
  const cases: [readonly [string, RequestInit], string][] = [
    [["/a", { method: "PATCH" }], "the query: ttl: expected a whole number of seconds"],
    [["/?foo=1", {}], 'the query: unknown parameter "foo": expected prefix, limit, after'],
    [["/??prefix=a", {}], 'the query: unknown parameter "?prefix": expected prefix, limit, after'],
    [operation('{"op":"patch"}'), "operation 1: op: expected get, put or delete"],
    [operation("{}"), "operation 1: op: expected get, put or delete"],
    [operation('{"op":"get"}'), "operation 1: key: expected a text"],
    [
      operation('{"op":"get","key":"a","value":1}'),
      'operation 1: unknown member "value": expected op, key',
    ],
    [
      operation('{"op":"put","key":"a","value":1,"ttl":"1","ifRevision":1}'),
      "operation 1: ttl: expected a whole number of seconds; ifRevision: expected a text or null",
    ],
  ];
  for (const [[path, init], detail] of cases) {
    const response = await app.request(path, init);
    assertEquals(response.status, 400, detail);
    assertEquals((await readProblem(response)).detail, `Cannot read ${detail}`);
  }
  await store.set("a", json(1));
  for (const path of ["/a?ttl=0", "/absent?ttl=0"]) {
    assertEquals((await app.request(path, { method: "PATCH" })).status, 400, path);
  }
});

test("does not echo all of a long Last-Event-ID", async ({ app }) => {
  const headers = { "Accept": "text/event-stream", "Last-Event-ID": "x".repeat(30_000) };
  const response = await app.request("/", { headers });
  assertEquals(response.status, 410);
  assertEquals((await readProblem(response)).detail.length, 1001);
});
