/** Bearer tokens. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { JSON_TYPE, post, put, readProblem, test } from "./helpers/kv_app.ts";
import { scoped } from "./helpers/scoped.ts";

const TOKENS = { tokens: ["secret-token", "next-token"], readTokens: ["reading-token"] };
const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });
const basic = (token: string) => ({ Authorization: `Basic ${btoa(`anybody:${token}`)}` });

test("requires a token, and says how to send it", async ({ app }) => {
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
      assertEquals(response.status, 401);
      assertEquals(response.headers.get("WWW-Authenticate"), 'Bearer realm="kv"');
      assertMatch((await readProblem(response)).detail, /Authorization: Bearer/);
    }
  }
}, TOKENS);

test("lets a browser prompt for the token", async ({ app }) => {
  const response = await app.request("/", { headers: { Accept: "text/html,*/*;q=0.8" } });
  assertEquals(response.status, 401);
  assertMatch(response.headers.get("WWW-Authenticate") ?? "", /^Basic realm="[^"]+"$/);
}, TOKENS);

test("accepts each of the tokens, under any Host", async ({ app }) => {
  for (const token of TOKENS.tokens) {
    for (const headers of [bearer(token), basic(token)]) {
      assertEquals((await app.request("/", { headers })).status, 200);
      const init = post('{"a":1}', { ...JSON_TYPE, ...headers });
      assertEquals((await app.request("https://kv.example/", init)).status, 200);
    }
  }
}, TOKENS);

test("allows a read token to read, but not to write", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  const headers = { ...JSON_TYPE, ...bearer("reading-token") };
  assertEquals(await (await app.request("/a", { headers })).text(), '{"a":1}');
  assertEquals(await (await app.request("/", { headers })).text(), '{"keys":["a"]}');
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
    assertEquals(response.status, 403);
    assertMatch((await readProblem(response)).detail, /Cannot write with a token of KV_READ_TOKEN/);
  }
  const operations = [
    { op: "get", key: "a" },
    { op: "put", key: "a", value: 2 },
    { op: "delete", key: "a" },
  ];
  const answers = await app.request("/", post(JSON.stringify(operations), headers));
  const steps: { status: number; value?: number }[] = await answers.json();
  assertEquals(steps.map(({ status }) => status), [200, 403, 403]);
  assertEquals((await store.get("a"))?.revision, revision);
}, TOKENS);

test("refuses a write by a read token before its body is read", async ({ app }) => {
  const headers = bearer("reading-token");
  const writes: [string, string, string][] = [
    ["PUT", "/a", "application/json"],
    ["POST", "/", "application/x-ndjson"],
    ["POST", "/", "application/x-www-form-urlencoded"],
    ["POST", "/", "multipart/form-data; boundary=x"],
  ];
  for (const [method, path, type] of writes) {
    let pulled = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulled++;
        controller.enqueue(new Uint8Array(1));
      },
    }, { highWaterMark: 0 });
    const init = { method, body, headers: { ...headers, "Content-Type": type } };
    const response = await app.request(path, init);
    assertEquals(response.status, 403, type);
    assertEquals(pulled, 0, type);
    await response.body?.cancel();
  }
  const extended = await app.request("/a?ttl=60", { method: "PATCH", headers });
  assertEquals(extended.status, 403);
  assertEquals((await app.request("/?prefix=a", { method: "DELETE", headers })).status, 403);
}, TOKENS);

Deno.test("kv() refuses a token that is empty, or that no header can carry", async () => {
  await using store = scoped(memoryStore());
  for (const token of ["", "two words", "tökén"]) {
    for (const options of [{ tokens: ["secret-token", token] }, { readTokens: [token] }]) {
      const error = assertThrows(() => kv(store, options), TypeError);
      assertMatch(error.message, /^Cannot accept a token of \d characters .*: expected letters, /);
    }
  }
});
