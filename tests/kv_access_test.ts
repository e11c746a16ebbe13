/** Who may come in: tokens, origins, names of the host. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv } from "../kv.ts";
import { json } from "../stores/json_text.ts";
import { JSON_TYPE, post, put, readProblem, test } from "./helpers/kv_app.ts";

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
      assertEquals(response.status, 401);
      assertEquals(response.headers.get("WWW-Authenticate"), 'Bearer realm="kv"');
      assertMatch((await readProblem(response)).detail, /Authorization: Bearer/);
    }
  }
}, TOKENS);

test("has a browser ask its reader for a token", async ({ app }) => {
  const response = await app.request("/", { headers: { Accept: "text/html,*/*;q=0.8" } });
  assertEquals(response.status, 401);
  assertMatch(response.headers.get("WWW-Authenticate") ?? "", /^Basic realm="[^"]+"$/);
}, TOKENS);

test("lets in whoever brings one of the tokens, under any Host", async ({ app }) => {
  for (const token of TOKENS.tokens) {
    for (const headers of [bearer(token), basic(token)]) {
      assertEquals((await app.request("/", { headers })).status, 200);
      const init = post('{"a":1}', { ...JSON_TYPE, ...headers });
      assertEquals((await app.request("https://kv.example/", init)).status, 200);
    }
  }
}, TOKENS);

test("lets the bearer of a reading token read, and change nothing", async ({ app, store }) => {
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
      assertEquals(response.status, 403, JSON.stringify(headers));
      assertEquals(response.headers.get("Access-Control-Allow-Origin"), null);
      assertMatch((await readProblem(response)).detail, /other sites' pages/);
    }
  }
  assertEquals(await store.get("a"), null);
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
    assert(response.ok, JSON.stringify(headers));
  }
});

test("turns away a Host that it does not know, while no token is asked", async ({ store }) => {
  const app = kv(store, { host: "kv.internal" });
  const foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"];
  for (const host of [...foreign, "[::2]", "kv.internal.example"]) {
    const response = await app.request(`http://${host}/`);
    assertEquals(response.status, 403, host);
    assertEquals(
      (await readProblem(response)).detail,
      `The Host "${host}" is not served here: use localhost, or set KV_TOKEN`,
    );
  }
  for (const host of ["localhost", "LOCALHOST:5100", "127.0.0.1", "127.1.2.3:80", "[::1]:5100"]) {
    assertEquals((await app.request(`http://${host}/`)).status, 200, host);
  }
  assertEquals((await app.request("http://kv.internal:5100/")).status, 200);
});
