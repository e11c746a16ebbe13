/** Sessions whose store is unavailable or full. */
import { assertEquals } from "@std/assert";
import { Hono } from "hono";
import { KeyValueSessionStore, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import { testClock } from "./helpers/clock.ts";
import { brokenStore, storeWith } from "./helpers/faulty_stores.ts";
import { assertUnavailable, Browser, Counted, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

Deno.test("an unavailable store is a 503, and the session and its cookie stay", async () => {
  await using memory = scoped(memoryStore());
  let broken = false;
  const store = brokenStore(memory, () => broken);
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
  await browser.post("/set", { count: 5 });
  broken = true;
  await assertUnavailable(browser);
  broken = false;
  assertEquals(await browser.post("/count"), { count: 6 });
});

Deno.test("a store that is full is a 503, and the session and its cookie stay", async () => {
  await using memory = scoped(memoryStore());
  let full = false;
  const store = storeWith(memory, () => {
    if (full) throw new StoreFull("There is no room");
  });
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
  await browser.post("/count");
  full = true;
  const response = await browser.request("POST", "/count");
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("Retry-After"), "1");
  assertEquals(response.headers.get("Set-Cookie"), null);
  full = false;
  assertEquals(await browser.post("/count"), { count: 2 });
});

Deno.test("a session can be read from a store that is full, though it is to be renewed", async () => {
  const clock = testClock();
  await using memory = scoped(memoryStore(clock));
  const store = {
    ...memory,
    async set(): Promise<never> {
      throw new StoreFull("There is no room");
    },
  };
  const limits = { lifetime: 100, now: clock.now };
  const before = new KeyValueSessionStore(memory, limits);
  const { cookie } = await before.create({ count: 1 });
  clock.pass(50);
  const loaded = await new KeyValueSessionStore(store, limits).load(cookie);
  assertEquals([loaded?.cookie, loaded?.renewed], [cookie, false]);
  assertEquals(loaded?.data, { count: 1 });
});

Deno.test("updates that wait behind one whose store is unavailable fail with it", async () => {
  await using memory = scoped(memoryStore());
  let calls = 0;
  let broken = false;
  const store: Store = {
    ...memory,
    async set(key, value, options) {
      if (!broken) return await memory.set(key, value, options);
      calls++;
      await new Promise((resolve) => setTimeout(resolve, 20));
      throw new StoreUnavailable("It hangs", { outcome: "unknown" });
    },
  };
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
  await browser.post("/count");
  broken = true;
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => browser.request("POST", "/count")),
  );
  assertEquals(new Set(answers.map(({ status }) => status)), new Set([503]));
  assertEquals(calls, 1);
});

Deno.test("read can be told to go on without a session", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
    const data = await c.var.session.read().catch(() => null);
    return c.json(data);
  });
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  const response = await app.request("/", { headers });
  assertEquals(response.status, 200);
  assertEquals(await response.json(), null);
});
