import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { counter } from "../counter.ts";
import { CookieSessionStore, KeyValueSessionStore } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json_text.ts";
import { type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { Browser } from "./helpers/session_app.ts";

const KEPT_IN = "a place of the test";

function cookieCounter() {
  const store = new CookieSessionStore("a secret key for tests alone");
  return counter({ store, keptIn: KEPT_IN });
}

async function textOf(response: Response | Promise<Response>): Promise<string> {
  return (await (await response).text()).replace(/<style>.*<\/style>/s, "");
}

Deno.test("counter() shows a page that counts, resets and says where the count is kept", async () => {
  const browser = new Browser(cookieCounter());
  for (const count of [1, 2, 3]) {
    const response = await browser.request("GET", "/");
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "text/html; charset=UTF-8");
    const text = await textOf(response);
    assertMatch(text, new RegExp(`<h1>Count: ${count}</h1>`));
    assertMatch(text, /^<!DOCTYPE html><html lang="en">/);
    assertMatch(text, /<form method="post" action="\/reset"><button type="submit">Reset</);
    assert(text.includes(KEPT_IN));
  }
  const reset = await browser.request("POST", "/reset");
  assertEquals(reset.status, 303);
  assertEquals(reset.headers.get("Location"), "/");
  assertMatch(reset.headers.get("Set-Cookie") ?? "", /^session=; Max-Age=0;/);
  assertMatch(await textOf(browser.request("GET", "/")), /Count: 1</);
});

Deno.test("counter() lets nothing of another origin into its page", async () => {
  const { headers } = await cookieCounter().request("/");
  assertMatch(headers.get("Content-Security-Policy") ?? "", /^default-src 'none';/);
  assertEquals(headers.get("X-Content-Type-Options"), "nosniff");
});

Deno.test("counter() turns away another site's form, and no client without a browser", async () => {
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
  }
  assertMatch(await textOf(browser.request("GET", "/")), /Count: 2</);
  const link = await browser.request("GET", "/", { headers: { "Sec-Fetch-Site": "cross-site" } });
  assertEquals(link.status, 200, "a link from another site is let in");
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

Deno.test("counter() shows a page that a person understands when the store is gone", async () => {
  const memory = memoryStore();
  const gone = async () => {
    throw new StoreUnavailable("http://10.0.0.1:5100 cannot be reached", { outcome: "unchanged" });
  };
  const store: Store = { ...memory, get: gone, set: gone };
  const app = counter({ store: new KeyValueSessionStore(store), keptIn: KEPT_IN });
  const logged = captureErrors();
  const response = await app.request("/");
  assertMatch(logged.end(), /^counter: http:\/\/10\.0\.0\.1:5100 cannot be reached$/m);
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("Retry-After"), "1");
  assertEquals(response.headers.get("Set-Cookie"), null);
  const text = await textOf(response);
  assertMatch(text, /Your count is safe, but the store that keeps it does not answer/);
  assertMatch(text, /<a class="button" href="\/">Try again<\/a>/);
  assertNotMatch(text, /10\.0\.0\.1/, "the store's address is no visitor's business");
  await memory.close();
});

Deno.test("counter() says that the store is full, and counts on when there is room", async () => {
  const memory = memoryStore();
  const full = async () => {
    throw new StoreFull("/var/lib/kv.db is full");
  };
  const store = new KeyValueSessionStore({ ...memory, set: full });
  const logged = captureErrors();
  const response = await counter({ store, keptIn: KEPT_IN }).request("/");
  assertMatch(logged.end(), /^counter: \/var\/lib\/kv\.db is full$/m);
  assertEquals(response.status, 503);
  assertMatch(await textOf(response), /Your count is safe, but the store that keeps it is full/);
  await memory.close();
});

Deno.test("counter() answers a broken session with a page, and logs it", async () => {
  const memory = memoryStore();
  const id = crypto.randomUUID();
  await memory.set(id, json({ count: "many" }));
  const app = counter({ store: new KeyValueSessionStore(memory), keptIn: KEPT_IN });
  const logged = captureErrors();
  const response = await app.request("/", { headers: { Cookie: `session=${id}` } });
  assertMatch(logged.end(), /does not fit the schema: count/);
  assertEquals(response.status, 500);
  assertNotMatch(await textOf(response), /schema/);
  assertEquals((await memory.get(id))?.value, '{"count":"many"}');
  await memory.close();
});

Deno.test("counter() answers other paths with a page and counts nothing", async () => {
  const response = await cookieCounter().request("/favicon.ico");
  assertEquals(response.status, 404);
  assertEquals(response.headers.get("Set-Cookie"), null);
  const text = await textOf(response);
  assertMatch(text, /<h1>Not found<\/h1>/);
  assertMatch(text, /<a class="button" href="\/">To the counter<\/a>/);
});
