import { assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import { counter } from "../counter.ts";
import { CookieSessionStore, KeyValueSessionStore } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json/text.ts";
import { type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import { captureErrors, logged } from "./helpers/captured_errors.ts";
import { startServer } from "./helpers/programs.ts";
import { Browser } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

function cookieCounter() {
  const store = new CookieSessionStore("a secret key for tests alone");
  return counter({ store });
}

async function textOf(response: Response | Promise<Response>): Promise<string> {
  return (await (await response).text()).replace(/<style>.*<\/style>/s, "");
}

/** What a person reads of a page: without tags and escapes. */
function readable(html: string): string {
  return html.replace(/<[^>]*>/g, "").replaceAll("&quot;", '"').replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">");
}

Deno.test("counter() shows a page that counts, resets and says where the count is kept", async () => {
  const browser = new Browser(cookieCounter());
  for (const count of [1, 2, 3]) {
    const response = await browser.request("GET", "/");
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "text/html; charset=UTF-8");
    const text = await textOf(response);
    assertMatch(text, new RegExp(`<title>Count: ${count}</title>.*<h1>Count: ${count}</h1>`));
    assertMatch(text, /^<!DOCTYPE html><html lang="en">/);
    assertStringIncludes(text, "Kept in a signed cookie");
    assertStringIncludes(text, "<dd>Anyone can read it. Nobody can change it");
  }
  const reset = await browser.request("POST", "/reset");
  assertEquals(reset.status, 303);
  assertMatch(reset.headers.get("Set-Cookie") ?? "", /^session=; Max-Age=0;/);
  assertMatch(await textOf(browser.request("GET", "/")), /Count: 1</);
});

Deno.test("counter() has relative addresses only, for a proxy's path prefix", async () => {
  const app = cookieCounter();
  const html = await textOf(app.request("/"));
  assertMatch(html, /<a class="button" href=".\/">Count again</);
  assertMatch(html, /<form method="post" action="reset"><button [^>]*>Reset</);
  const reset = await app.request("/reset", { method: "POST" });
  assertEquals(reset.headers.get("Location"), "./");
  for (const [path, href] of [["/no", "./"], ["/no/such", "../"], ["/no/such/page", "../../"]]) {
    const response = await app.request(path ?? "");
    assertEquals(response.status, 404);
    assertStringIncludes(await textOf(response), `href="${href}">To the counter</a>`);
  }
});

Deno.test("counter() says which methods an address takes", async () => {
  const browser = new Browser(cookieCounter());
  await browser.request("GET", "/");
  const cases = [
    ["POST", "/", "GET, HEAD"],
    ["PUT", "/", "GET, HEAD"],
    ["GET", "/reset", "POST"],
    ["POST", "/health", "GET, HEAD"],
    ["DELETE", "/metrics", "GET, HEAD"],
  ];
  for (const [method = "", path = "", allowed] of cases) {
    const response = await browser.request(method, path);
    assertEquals(response.status, 405, `${method} ${path}`);
    assertEquals(response.headers.get("Allow"), allowed);
    const html = await textOf(response);
    assertStringIncludes(html, `Cannot ${method} here: expected ${allowed}.`);
    assertStringIncludes(html, `href="./">To the counter</a>`);
  }
  assertMatch(await textOf(browser.request("GET", "/")), /Count: 2</);
});

Deno.test("counter() shows the cookie that its response sets, and the session in it", async () => {
  const browser = new Browser(cookieCounter());
  for (const [count, change] of [[1, "first load"], [2, "went from 1 to 2, so the cookie is"]]) {
    const response = await browser.request("GET", "/");
    const text = readable(await textOf(response));
    assertStringIncludes(text, `Set-Cookie: ${response.headers.get("Set-Cookie")}`);
    assertStringIncludes(text, `{"count":${count}}`);
    assertStringIncludes(text, `${change}`);
    assertEquals(response.headers.get("Cache-Control"), "no-store");
  }
});

Deno.test("counter() says of an encrypted cookie what it cannot show", async () => {
  const store = new CookieSessionStore("a secret key for tests alone", { encrypt: true });
  const browser = new Browser(counter({ store }));
  await browser.request("GET", "/");
  const response = await browser.request("GET", "/");
  const text = readable(await textOf(response));
  assertStringIncludes(text, "Kept in an encrypted cookie");
  assertStringIncludes(text, `Set-Cookie: ${response.headers.get("Set-Cookie")}`);
  assertStringIncludes(text, "this page cannot show what is in it");
  assertStringIncludes(text, "went from 1 to 2, so the cookie is");
  assertNotMatch(text, /"count"/);
});

Deno.test("counter() shows the id that its response sets, and what the store keeps", async () => {
  await using memory = scoped(memoryStore());
  const browser = new Browser(counter({ store: new KeyValueSessionStore(memory) }));
  await browser.request("GET", "/");
  const [id = ""] = (await memory.list("")).keys;
  await memory.set(id, json({ count: 1, user: "<script>" }));
  const response = await browser.request("GET", "/");
  const html = await textOf(response);
  assertStringIncludes(html, `<mark>${id}</mark>`);
  assertNotMatch(html, /<script>/);
  const text = readable(html);
  assertStringIncludes(text, `Set-Cookie: ${response.headers.get("Set-Cookie")}`);
  assertStringIncludes(text, (await memory.get(id))?.value ?? "");
  assertStringIncludes(text, "went from 1 to 2 in the store. The cookie is the same.");
});

Deno.test("counter() links to the store's page only in browsers on this machine", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const app = counter({ store, kvUrl: "http://localhost:5100/" });
  const link = /<a href="http:\/\/localhost:5100\/">/;
  for (const origin of ["http://localhost:5000", "http://[::1]:5000", "http://127.0.0.1"]) {
    assertMatch(await textOf(app.request(`${origin}/`)), link);
  }
  for (const origin of ["http://counter.example", "https://localhost.example:5000"]) {
    assertNotMatch(await textOf(app.request(`${origin}/`)), link);
  }
  // Apache asks for its own address, unless ProxyPreserveHost is on.
  const headers = { "X-Forwarded-Host": "counter.example" };
  const behindProxy = counter({ store, kvUrl: "http://localhost:5100/", trustProxy: true });
  assertNotMatch(await textOf(behindProxy.request("http://127.0.0.1:5000/", { headers })), link);
  for (const kvUrl of ["http://kv.example:5100", "redis://localhost:6379", "kv.db"]) {
    const html = await textOf(counter({ store, kvUrl }).request("http://localhost:5000/"));
    assertNotMatch(html, /See what the store holds/, kvUrl);
  }
});

Deno.test("counter() allows nothing of another origin in its page", async () => {
  const { headers } = await cookieCounter().request("/");
  assertMatch(headers.get("Content-Security-Policy") ?? "", /^default-src 'none';/);
  assertEquals(headers.get("X-Content-Type-Options"), "nosniff");
});

Deno.test("counter() rejects another site's form, and serves clients that are not browsers", async () => {
  const browser = new Browser(cookieCounter());
  await browser.request("GET", "/");
  const foreign = [
    { "Sec-Fetch-Site": "cross-site" },
    { "Sec-Fetch-Site": "same-site" },
    { Origin: "http://evil.example" },
    { Origin: "http://localhost:9999", Host: "localhost" },
    { Origin: "null" },
  ];
  for (const headers of foreign) {
    const init = { headers: { "Content-Type": "application/x-www-form-urlencoded", ...headers } };
    const response = await browser.request("POST", "/reset", init);
    assertEquals(response.status, 403, JSON.stringify(headers));
    assertEquals(response.headers.get("Set-Cookie"), null);
    assertStringIncludes(await textOf(response), "Cross-site requests are not allowed.");
  }
  assertMatch(await textOf(browser.request("GET", "/")), /Count: 2</);
  const link = await browser.request("GET", "/", { headers: { "Sec-Fetch-Site": "cross-site" } });
  assertEquals(link.status, 200, "another site may link to it");
  for (
    const headers of [
      { "Sec-Fetch-Site": "same-origin", Origin: "http://localhost" },
      { Origin: "http://localhost", Host: "localhost" },
      { Host: "localhost" },
    ]
  ) {
    const response = await browser.request("POST", "/reset", { headers });
    assertEquals(response.status, 303, JSON.stringify(headers));
  }
});

Deno.test("counter() says that the store is unavailable, and tries again by itself", async () => {
  await using memory = scoped(memoryStore());
  const gone = async () => {
    throw new StoreUnavailable("http://10.0.0.1:5100 cannot be reached", { outcome: "unchanged" });
  };
  const store: Store = { ...memory, get: gone, set: gone };
  const app = counter({ store: new KeyValueSessionStore(store) });
  const logged = captureErrors();
  const response = await app.request("/");
  assertMatch(logged.end(), /^counter: http:\/\/10\.0\.0\.1:5100 cannot be reached$/m);
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("Retry-After"), "1");
  assertEquals(response.headers.get("Refresh"), "5; url=./", "it tries again by itself");
  assertEquals(response.headers.get("Set-Cookie"), null);
  const text = await textOf(response);
  assertMatch(text, /<h1>Temporarily unavailable<\/h1>/);
  assertMatch(text, /Your count is safe, but the store that keeps it is unavailable\./);
  assertMatch(text, /<a class="button" href=".\/">Try again<\/a>/);
  assertNotMatch(text, /10\.0\.0\.1/, "no visitor learns the store's address");

  captureErrors();
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  const reset = await app.request("/reset", { method: "POST", headers });
  assertEquals([reset.status, reset.headers.get("Refresh")], [503, null]);
  assertMatch(await textOf(reset), /Your session was not reset: the store .* is unavailable\./);
});

Deno.test("counter() says that the store is full", async () => {
  await using memory = scoped(memoryStore());
  const full = async () => {
    throw new StoreFull("/var/lib/kv.db is full");
  };
  const store = new KeyValueSessionStore({ ...memory, set: full });
  const logged = captureErrors();
  const response = await counter({ store }).request("/");
  assertMatch(logged.end(), /^counter: \/var\/lib\/kv\.db is full$/m);
  assertEquals(response.status, 503);
  assertMatch(await textOf(response), /Your count is safe, but the store that keeps it is full/);
});

Deno.test("counter() answers a broken session with a page, and logs it", async () => {
  await using memory = scoped(memoryStore());
  const id = crypto.randomUUID();
  await memory.set(id, json({ count: "many" }));
  const app = counter({ store: new KeyValueSessionStore(memory) });
  const logged = captureErrors();
  const response = await app.request("/", { headers: { Cookie: `session=${id}` } });
  assertMatch(logged.end(), /does not fit the schema: count/);
  assertEquals(response.status, 500);
  const text = await textOf(response);
  assertNotMatch(text, /schema/);
  assertEquals((await memory.get(id))?.value, '{"count":"many"}');
  // Loading it again would fail again.
  assertMatch(text, /<form method="post" action="reset">.*Begin a new session/);
});

Deno.test("counter() logs an internal error, and does not show it", async () => {
  await using memory = scoped(memoryStore());
  const broken = {
    ...memory,
    get() {
      throw new RangeError("a defect");
    },
  };
  const app = counter({ store: new KeyValueSessionStore(broken) });
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  let text = "";
  const errors = await logged(async () => {
    const response = await app.request("/", { headers });
    assertEquals(response.status, 500);
    text = readable(await textOf(response));
  });
  assertEquals(errors, "RangeError: a defect");
  assertStringIncludes(text, "An internal error. It was logged.");
  assertNotMatch(text, /a defect/);
});

Deno.test("counter() answers other paths with a page and counts nothing", async () => {
  const response = await cookieCounter().request("/favicon.ico");
  assertEquals(response.status, 404);
  assertEquals(response.headers.get("Set-Cookie"), null);
  const text = await textOf(response);
  assertMatch(text, /<h1>Not found<\/h1>/);
  assertMatch(text, /<a class="button" href=".\/">To the counter<\/a>/);
});

Deno.test("counter.ts answers a CONNECT, whose address has no path", async () => {
  await using server = await startServer("counter.ts");
  const connection = await Deno.connect({ port: Number(new URL(server.url).port) });
  const request = "CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\nConnection: close\r\n\r\n";
  await connection.write(new TextEncoder().encode(request));
  const answer = await new Response(connection.readable).text();
  assertMatch(answer, /^HTTP\/1\.1 404 .* href=".\/">To the counter</s);
});

Deno.test("counter() answers health checks and metrics without a session, and counts requests", async () => {
  await using store = scoped(memoryStore());
  const app = counter({ store: new KeyValueSessionStore(store) });
  for (let i = 0; i < 20; i++) {
    const response = await app.request("/health", { headers: { Cookie: "session=x" } });
    assertEquals([response.status, await response.json()], [200, { status: "ok" }]);
    assertEquals(response.headers.get("Set-Cookie"), null);
    assertEquals(response.headers.get("Cache-Control"), "no-store");
  }
  await app.request("/");
  await app.request("/no/such/page", { method: "BREW" });
  const metrics = await app.request("/metrics");
  assertEquals(metrics.status, 200);
  assertMatch(metrics.headers.get("Content-Type") ?? "", /^text\/plain; version=0\.0\.4/);
  assertEquals(metrics.headers.get("Set-Cookie"), null);
  const text = await metrics.text();
  assertMatch(text, /^counter_requests_total\{method="GET",status="200"\} 21$/m);
  assertMatch(text, /^counter_requests_total\{method="other",status="404"\} 1$/m);
  assertMatch(text, /^counter_request_duration_seconds_count\{method="GET"\} 21$/m);
  assertEquals(await store.count?.(), 1);
});

Deno.test("counter() answers health checks at one time by one check of the store", async () => {
  const store = new CookieSessionStore("a secret key for tests alone");
  const running: PromiseWithResolvers<void>[] = [];
  const check = () => {
    const one = Promise.withResolvers<void>();
    running.push(one);
    return one.promise;
  };
  const app = counter({ store, check });
  for (const checks of [1, 2]) {
    const responses = Array.from({ length: 3 }, () => app.request("/health"));
    assertEquals(running.length, checks);
    running.at(-1)?.resolve();
    for (const response of responses) assertEquals((await response).status, 200);
  }
});

Deno.test("counter() fails a health check while its store is unavailable, and says why in the log", async () => {
  const unavailable = async () => {
    throw new StoreUnavailable("The disk is gone", { outcome: "unchanged" });
  };
  await using memory = scoped(memoryStore());
  const app = counter({ store: new KeyValueSessionStore({ ...memory, get: unavailable }) });
  let status = 0;
  const errors = await logged(async () => {
    const response = await app.request("/health");
    status = response.status;
    assertEquals(await response.json(), { status: "unavailable" });
    assertEquals(response.headers.get("Retry-After"), "1");
  });
  assertEquals(status, 503);
  assertMatch(errors, /The disk is gone/);
  assertMatch(await (await app.request("/metrics")).text(), /status="503"\} 1$/m);
});
