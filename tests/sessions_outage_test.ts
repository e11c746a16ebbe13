/** What each request gets while the key-value service behind the sessions misbehaves. */
import { assertEquals } from "@std/assert";
import { kv } from "../kv.ts";
import { KeyValueSessionStore } from "../sessions.ts";
import { httpStore } from "../stores/http/store.ts";
import { memoryStore } from "../stores/memory.ts";
import { assertUnavailable, Browser, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

type Fetch = typeof fetch;
const refused = () =>
  new TypeError("fetch failed", {
    cause: new Error("client error (Connect): tcp connect error: Connection refused"),
  });

/** What a service may do instead of answering. */
const OUTAGES: Record<string, Fetch> = {
  "is gone": () => Promise.reject(refused()),
  "cuts the connection": () => Promise.reject(new TypeError("connection closed")),
  // As fetch does when the time is up; http_requests_test.ts lets time pass.
  "hangs": () => Promise.reject(new DOMException("Signal timed out.", "TimeoutError")),
  "answers garbage": () => Promise.resolve(new Response("\0\x01{{{")),
  "answers other JSON": () => Promise.resolve(Response.json({ keys: 5 })),
  "answers a page": () => Promise.resolve(new Response("<h1>It works!</h1>")),
  "answers too little": () => Promise.resolve(Response.json([])),
  "redirects": () => Promise.resolve(Response.redirect("http://localhost/login")),
  "answers 401": () => Promise.resolve(Response.json({ detail: "no token" }, { status: 401 })),
  "answers 500": () => Promise.resolve(new Response("oops", { status: 500 })),
  "answers 503": () => Promise.resolve(Response.json({ detail: "later" }, { status: 503 })),
};

for (const [what, outage] of Object.entries(OUTAGES)) {
  Deno.test(`while the service ${what}, each request is a 503, and afterwards everything works as before`, async () => {
    await using memory = scoped(memoryStore());
    const service = kv(memory);
    const well: Fetch = async (url, init) => await service.request(String(url), init);
    let now = well;
    const store = httpStore("http://localhost", {
      deadline: 60_000,
      fetch: (...args) => now(...args),
    });
    const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
    const stranger = new Browser(browser.app);
    for (let i = 0; i < 3; i++) await browser.post("/count");
    const id = browser.cookie;

    now = outage;
    await assertUnavailable(browser);
    assertEquals((await stranger.request("POST", "/count")).status, 503);

    now = well;
    assertEquals(await browser.post("/count"), { count: 4 }, "no acknowledged count is lost");
    assertEquals(browser.cookie, id);
    await store.close();
  });
}
