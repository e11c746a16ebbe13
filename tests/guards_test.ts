/** Which requests the servers accept: origins and host names. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Hono } from "hono";
import { once } from "node:events";
import http2 from "node:http2";
import { connect } from "node:net";
import { counter } from "../counter.ts";
import { kv } from "../kv.ts";
import { sameOriginOnly, splitUrl } from "../server/guards.ts";
import { CookieSessionStore } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { JSON_TYPE, put, readProblem, test } from "./helpers/kv_app.ts";
import { startServer } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";

test("rejects cross-site requests", async ({ app, store }) => {
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
      assertMatch((await readProblem(response)).detail, /^Cross-site requests are not allowed$/);
    }
  }
  assertEquals(await store.get("a"), null);
});

test("accepts a link of another site, and nothing else that a page can load", async ({ app }) => {
  const link = {
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
  };
  const status = async (changed: Record<string, string>, method = "GET") => {
    const init = { method, headers: { ...link, ...changed } };
    return (await app.request(method === "POST" ? "/" : "/a", init)).status;
  };
  assertEquals(await status({}), 200);
  assertEquals(await status({ "Sec-Fetch-Site": "same-site" }), 200);
  for (const dest of ["iframe", "frame", "object", "embed", "image", "script", "empty", ""]) {
    assertEquals(await status({ "Sec-Fetch-Dest": dest }), 403, dest);
  }
  for (const mode of ["no-cors", "cors", "same-origin", "websocket", ""]) {
    assertEquals(await status({ "Sec-Fetch-Mode": mode }), 403, mode);
  }
  for (const method of ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
    assertEquals(await status({}, method), 403, method);
  }
});

test("accepts its own page, typed addresses and clients other than browsers", async (t) => {
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

test("rejects an unknown Host if it has no token", async ({ store }) => {
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

Deno.test("sameOriginOnly() compares Origin with the host that a trusted proxy forwards", async () => {
  const app = (trustProxy: boolean) =>
    new Hono().use(sameOriginOnly({ trustProxy })).post("/", (c) => c.text("ok"));
  const origin = { Host: "localhost:5000", Origin: "https://app.example" };
  for (
    const forwarded of [
      { "X-Forwarded-Host": "app.example" },
      { "X-Forwarded-Host": "app.example, proxy.internal" },
      { "X-Forwarded-Host": "App.example:443" },
      { Forwarded: 'for=192.0.2.60;proto=https;host="app.example"' },
    ]
  ) {
    const init = { method: "POST", headers: { ...origin, ...forwarded } };
    assertEquals((await app(true).request("/", init)).status, 200, JSON.stringify(forwarded));
    assertEquals((await app(false).request("/", init)).status, 403);
  }
  const foreign = { ...origin, "X-Forwarded-Host": "other.example" };
  assertEquals((await app(true).request("/", { method: "POST", headers: foreign })).status, 403);
});

Deno.test("counter() and kv() take the forwarded host only behind a trusted proxy", async () => {
  await using memory = scoped(memoryStore());
  const store = new CookieSessionStore("a secret key of 16 characters or more");
  const headers = {
    Host: "localhost",
    Origin: "https://app.example",
    "X-Forwarded-Host": "app.example",
  };
  const all: { trustProxy?: boolean }[] = [{ trustProxy: true }, { trustProxy: false }, {}];
  for (const options of all) {
    const page = counter({ store, ...options });
    const reset = await page.request("/reset", { method: "POST", headers });
    assertEquals(reset.status, options.trustProxy ? 303 : 403);
    const written = await kv(memory, options).request("/a", put("1", headers));
    assertEquals(written.status, options.trustProxy ? 201 : 403);
  }
});

Deno.test("counter.ts and kv.ts trust a proxy if TRUST_PROXY says so", async () => {
  const headers = { Origin: "https://app.example", "X-Forwarded-Host": "app.example" };
  for (const script of ["counter.ts", "kv.ts"]) {
    for (const TRUST_PROXY of ["true", "false"]) {
      await using server = await startServer(script, { env: { DBM: ":memory:", TRUST_PROXY } });
      const init = { method: "DELETE", headers };
      const response = script === "kv.ts"
        ? await fetch(`${server.url}/a`, init)
        : await fetch(`${server.url}/reset`, { ...init, method: "POST", redirect: "manual" });
      await response.body?.cancel();
      assertEquals(response.status === 403, TRUST_PROXY === "false", script);
    }
  }
});

Deno.test("splitUrl() splits a URL without resolving it", () => {
  const cases: [string, string, string, string | null][] = [
    ["http://localhost:5100/a/../b%2F?x=/?#y", "localhost:5100", "a/../b%2F", "x=/?"],
    ["http://[::1]:80//", "[::1]:80", "/", null],
    ["http://localhost/a#?b", "localhost", "a", null],
    ["https://localhost", "localhost", "", null],
    ["http://localhost/?", "localhost", "", ""],
  ];
  for (const [url, host, path, search] of cases) {
    assertEquals(splitUrl(url), { host, path, search }, url);
  }
});

Deno.test("kv.ts rejects a Host that would move the key, and takes HTTP/2's authority for one", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const { port } = new URL(server.url);
  for (const host of ["localhost/evil#", "localhost/evil?", "a@localhost", "localhost:5100/"]) {
    const socket = connect(Number(port), "127.0.0.1");
    await once(socket, "connect");
    socket.write(`PUT /key HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`);
    socket.write("Content-Length: 1\r\n\r\n1");
    const [answer] = await once(socket, "data");
    assertMatch(String(answer), /^HTTP\/1\.1 40[03] /, host);
    socket.destroy();
    await once(socket, "close");
  }
  const client = http2.connect(server.url);
  const status = async (headers: http2.OutgoingHttpHeaders, body: string): Promise<unknown> => {
    const stream = client.request({
      ":method": "PUT",
      ":path": "/a",
      "content-type": "application/json",
      "content-length": body.length,
      ...headers,
    });
    stream.end(body);
    const [response] = await once(stream, "response");
    stream.resume();
    await once(stream, "end");
    return response[":status"];
  };
  assertEquals(await status({ origin: server.url }, "1"), 201);
  assertEquals(await status({ origin: "http://evil.example" }, "2"), 403);
  client.close();
  await once(client, "close");
  assertEquals((await (await fetch(server.url)).json()).keys, ["a"]);
});
