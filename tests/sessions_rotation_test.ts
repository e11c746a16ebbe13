/** A session that moves to a new id. */
import { assert, assertEquals, assertNotEquals, assertNotMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { Hono } from "hono";
import { KeyValueSessionStore, RotationUnknown, SessionRotated, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import { testClock } from "./conformance/store.ts";
import { slowStore, storeWith } from "./helpers/faulty_stores.ts";
import { Browser, Counted, testApp, withMemory } from "./helpers/session_app.ts";

Deno.test("rotate ends the old id: it gives no data, and its requests are asked to try again", () =>
  withMemory(async (app, memory) => {
    const browser = new Browser(app);
    await browser.post("/set", { count: 3 });
    const old = browser.cookie ?? "";
    await browser.post("/rotate");
    assertEquals((await memory.get(browser.cookie ?? ""))?.value, '{"count":3}');
    const headers = { Cookie: `session=${old}` };
    for (const [method, path] of [["GET", "/read"], ["POST", "/count"], ["POST", "/destroy"]]) {
      const again = await app.request(path as string, { method: method as string, headers });
      assertEquals(again.status, 409, path);
      assertEquals(again.headers.get("Set-Cookie"), null, "the new cookie stays");
      assertNotMatch(await again.text(), /3/);
    }
    assertEquals(await browser.get("/read"), { count: 3 });
  }));

Deno.test("a reset under an id that was rotated away leaves the answer to the next request as it is", () =>
  withMemory(async (app) => {
    const browser = new Browser(app);
    await browser.post("/count");
    const headers = { Cookie: `session=${browser.cookie}` };
    await browser.post("/rotate");
    for (const path of ["/destroy", "/destroy", "/count"]) {
      const again = await app.request(path, { method: "POST", headers });
      assertEquals(again.status, 409, path);
      assertEquals(again.headers.get("Set-Cookie"), null, "the new cookie stays");
    }
    assertEquals(await browser.post("/count"), { count: 2 });
  }));

Deno.test("rotate loses no update that comes between, and no destroy", async () => {
  const memory = memoryStore();
  let between: (() => Promise<unknown>) | null = null;
  const store: Store = {
    ...memory,
    async delete(key) {
      // What a rotation does last under the old id.
      const run = between;
      between = null;
      await run?.();
      return await memory.delete(key);
    },
  };
  const app = testApp({ store: new KeyValueSessionStore(store) });
  const elsewhere = testApp({ store: new KeyValueSessionStore(memory) });
  const browser = new Browser(app);
  await browser.post("/count");
  const old = { Cookie: `session=${browser.cookie}` };
  between = async () => await elsewhere.request("/count", { method: "POST", headers: old });
  assertEquals(await browser.post("/rotate"), { count: 2 });
  const rotated = { Cookie: `session=${browser.cookie}` };
  between = async () => await elsewhere.request("/destroy", { method: "POST", headers: rotated });
  assertEquals(await browser.post("/rotate"), { count: 0 });
  const tombstone = `${old.Cookie.slice("session=".length)}.rotated`;
  assertEquals((await memory.list("")).keys, [tombstone]);
  await memory.close();
});

Deno.test("of two rotations at once one succeeds, and the other leaves no copy", async () => {
  const memory = memoryStore();
  const [here, there] = [new KeyValueSessionStore(memory), new KeyValueSessionStore(memory)];
  const { cookie } = await here.create({ count: 1 });
  const [first, second] = await Promise.allSettled([here.rotate(cookie), there.rotate(cookie)]);
  assert(first?.status === "fulfilled" && second?.status === "rejected");
  assert(second.reason instanceof SessionRotated);
  const keys = [`${cookie}.rotated`, first.value?.cookie];
  assertEquals(new Set((await memory.list("")).keys), new Set(keys));
  await memory.close();
});

Deno.test("a request whose session is rotated meanwhile gets no cookie, even after its own update", async () => {
  const memory = memoryStore();
  const elsewhere = new KeyValueSessionStore(memory);
  const app = new Hono()
    .use(sessions({ store: new KeyValueSessionStore(memory), schema: Counted }))
    .get("/:cookie", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
      await elsewhere.rotate(c.req.param("cookie"));
      await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
      return c.text("");
    });
  const { cookie } = await elsewhere.create({ count: 1 });
  const response = await app.request(`/${cookie}`, { headers: { Cookie: `session=${cookie}` } });
  assertEquals(response.status, 409);
  assertEquals(response.headers.get("Set-Cookie"), null);
  await memory.close();
});

Deno.test("reading does not send the cookie again if the session is rotated meanwhile", async () => {
  const { now, pass } = testClock();
  const memory = memoryStore({ now });
  const other = new KeyValueSessionStore(memory, { lifetime: 100, now });
  const rotating = {
    ...memory,
    async get(key: string) {
      const entry = await memory.get(key);
      await other.rotate(key);
      return entry;
    },
  };
  const { cookie } = await other.create({ count: 1 });
  pass(50);
  const loaded = await new KeyValueSessionStore(rotating, { lifetime: 100, now }).load(cookie);
  assertEquals([loaded?.cookie, loaded?.renewed], [cookie, false]);
  assertEquals(loaded?.data, { count: 1 });
  await memory.close();
});

Deno.test("a rotation whose outcome is unknown loses no session", async () => {
  for (const isDone of [true, false]) {
    const options = isDone ? { permanent: true } : {};
    const memory = memoryStore();
    const store: Store = {
      ...memory,
      async delete(key) {
        if (isDone) await memory.delete(key);
        throw new StoreUnavailable("cut", { outcome: "unknown" });
      },
    };
    const app = testApp({ store: new KeyValueSessionStore(store), ...options })
      .post("/rotate-forgotten", (c) => {
        c.var.session.rotate();
        return c.text("");
      });
    const browser = new Browser(app);
    await browser.post("/set", { count: 5 });
    for (const path of ["/rotate", "/rotate-forgotten"]) {
      const old = browser.cookie;
      assertEquals((await browser.request("POST", path)).status, 503, path);
      assertNotEquals(browser.cookie, old, path);
      assertEquals(browser.setCookie?.includes("Max-Age"), isDone, path);
      assertEquals(await browser.get("/read"), { count: 5 }, path);
    }
    await memory.close();
  }
});

Deno.test("a rotation that is cut off is logged without the new id", () => {
  const cause = new StoreUnavailable("cut", { outcome: "unknown" });
  const error = new RotationUnknown("the new id", cause);
  assertEquals(error.cookie, "the new id");
  assertNotMatch(Deno.inspect(error) + JSON.stringify(error), /the new id/);
});

Deno.test("a request that waits behind a failed rotation does not get its new id", async () => {
  const memory = memoryStore();
  const begun = Promise.withResolvers<void>();
  const cut = Promise.withResolvers<void>();
  const store: Store = {
    ...memory,
    async delete() {
      begun.resolve();
      await cut.promise;
      throw new StoreUnavailable("cut", { outcome: "unknown" });
    },
  };
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
  await browser.post("/set", { count: 5 });
  const other = new Browser(browser.app);
  other.cookie = browser.cookie;
  const rotation = browser.request("POST", "/rotate");
  await begun.promise;
  const waiting = other.request("POST", "/count");
  await delay(20); // until it waits
  cut.resolve();
  assertEquals((await waiting).status, 503);
  assertEquals(other.setCookie, null);
  assertEquals((await rotation).status, 503);
  assertNotEquals(browser.cookie, other.cookie);
  await memory.close();
});

Deno.test("an id that was rotated away is a 409 for ten seconds, then an unknown one", async () => {
  const { now, pass } = testClock();
  const memory = memoryStore({ now });
  const store = new KeyValueSessionStore(memory, { now });
  const { cookie } = await store.create({ count: 5 });
  await store.rotate(cookie);
  pass(9);
  await assertRejects(() => store.load(cookie), SessionRotated);
  pass(1);
  assertEquals(await store.load(cookie), null);
  await memory.close();
});

Deno.test("a rotation of a session that is destroyed meanwhile leaves no copy", async () => {
  const memory = memoryStore();
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 5 });
  let calls = 0;
  const store = storeWith(slowStore(memory), async () => {
    if (++calls === 3) await memory.delete(cookie);
  });
  assertEquals(await new KeyValueSessionStore(store).rotate(cookie), null);
  assertEquals((await memory.list("")).keys, []);
  await memory.close();
});

Deno.test("a rotation that fails leaves no copy, even if nothing can be removed", async () => {
  for (let failing = 2; failing <= 4; failing++) {
    const { now, pass } = testClock();
    const memory = memoryStore({ now });
    let calls = 0;
    const gone = storeWith(memory, () => {
      if (++calls >= failing) throw new StoreUnavailable("gone", { outcome: "unchanged" });
    });
    const { cookie } = await new KeyValueSessionStore(memory, { now }).create({ count: 5 });
    const store = new KeyValueSessionStore(gone, { now });
    const error = await assertRejects(() => store.rotate(cookie), StoreUnavailable);
    assert(!(error instanceof RotationUnknown), `call ${failing}`);
    pass(61);
    assertEquals((await memory.list("")).keys, [cookie], `call ${failing}`);
    await memory.close();
  }
});

Deno.test("a rotation whose last call fails brings the new id, under which the session lives", async () => {
  const { now, pass } = testClock();
  const memory = memoryStore({ now });
  let calls = 0;
  const store = storeWith(memory, () => {
    if (++calls === 5) throw new StoreFull("full");
  });
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store, { now }) }));
  browser.cookie = (await new KeyValueSessionStore(memory, { now }).create({ count: 5 })).cookie;
  const old = browser.cookie;
  assertEquals((await browser.request("POST", "/rotate")).status, 503);
  assertNotEquals(browser.cookie, old);
  pass(59);
  assertEquals(await browser.get("/read"), { count: 5 });
  const { expires } = await memory.get(browser.cookie ?? "") ?? {};
  assert(expires && expires - now() > 3600_000, "reading it renews it");
  await memory.close();
});

Deno.test("destroy is one call, and rotate five, whatever other processes do", async () => {
  const memory = memoryStore();
  const elsewhere = new KeyValueSessionStore(memory);
  const { cookie } = await elsewhere.create({ count: 0 });
  let calls = 0;
  const busy = storeWith(memory, async () => {
    calls++;
    await elsewhere.update(cookie, async (data) => ({ count: Counted.parse(data).count + 1 }))
      .catch(() => null);
  });
  const here = new KeyValueSessionStore(busy);
  const rotated = await here.rotate(cookie);
  assertEquals([calls, rotated?.data], [5, { count: 4 }]);
  calls = 0;
  await here.destroy(rotated?.cookie ?? "");
  assertEquals(calls, 1);
  await memory.close();
});

Deno.test("a rotation for which there is no room leaves no copy", async () => {
  const memory = memoryStore();
  const store: Store = {
    ...memory,
    async set(key, value, options) {
      if (value.includes("count") && key !== cookie) throw new StoreFull("full");
      return await memory.set(key, value, options);
    },
  };
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 5 });
  const sessionStore = new KeyValueSessionStore(slowStore(store));
  await assertRejects(() => sessionStore.rotate(cookie), StoreFull);
  assertEquals((await memory.list("")).keys, [cookie]);
  await memory.close();
});
