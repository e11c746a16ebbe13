/** A session that moves to a new id. */
import { assert, assertEquals, assertNotEquals, assertNotMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { Hono } from "hono";
import { z } from "zod";
import { KeyValueSessionStore, RotationUnknown, SessionRotated, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { MAX_VALUE_BYTES, type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import { testClock } from "./helpers/clock.ts";
import { slowStore, storeWith } from "./helpers/faulty_stores.ts";
import { Browser, Counted, testApp, withMemory } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";
import { eventually } from "./helpers/programs.ts";

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
  await using memory = scoped(memoryStore());
  let between: (() => Promise<unknown>) | null = null;
  const store: Store = {
    ...memory,
    async delete(key, options) {
      // What a rotation does last under the old id.
      const run = between;
      between = null;
      await run?.();
      return await memory.delete(key, options);
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
  assertEquals(await sessionKeys(memory), []);
});

/** The keys of a store that are no tombstones. */
async function sessionKeys(store: Store): Promise<string[]> {
  return (await store.list("")).keys.filter((key) => !key.endsWith(".rotated"));
}

/** An app with a login, as in docs/sessions/login.md. */
function appWithLogin(store: KeyValueSessionStore, checkPassword: () => Promise<void>) {
  const schema = z.object({
    user: z.string().default(""),
    basket: z.array(z.string()).default([]),
  });
  return new Hono()
    .use(sessions({ store, schema }))
    .get("/", async (c) => c.json(await c.var.session.read()))
    .post("/basket", async (c) => {
      return c.json(await c.var.session.update((s) => ({ ...s, basket: [...s.basket, "tea"] })));
    })
    .post("/login", async (c) => {
      await checkPassword();
      await c.var.session.rotate();
      return c.json(await c.var.session.update((s) => ({ ...s, user: "ada" })));
    });
}

Deno.test("a login that was sent twice works, though the browser drops the first answer", async () => {
  await using memory = scoped(memoryStore());
  const checks: PromiseWithResolvers<void>[] = [];
  const checkPassword = () => {
    const check = Promise.withResolvers<void>();
    checks.push(check);
    return check.promise;
  };
  const browser = new Browser(appWithLogin(new KeyValueSessionStore(memory), checkPassword));
  await browser.post("/basket");
  const planted = new Browser(browser.app);
  planted.cookie = browser.cookie;
  const headers = { Cookie: `session=${browser.cookie}` };
  const dropped = browser.app.request("/login", { method: "POST", headers });
  const again = browser.post("/login");
  await eventually("two logins", () => Promise.resolve(checks.length === 2));
  checks[0]?.resolve();
  assertEquals(await (await dropped).json(), { user: "ada", basket: ["tea"] });
  checks[1]?.resolve();
  assertEquals(await again, { user: "ada", basket: [] });
  assertEquals(await browser.get("/"), { user: "ada", basket: [] });
  assertEquals(
    (await planted.request("GET", "/")).status,
    409,
    "who planted the id learns nothing",
  );
});

Deno.test("rotate under an id that has just moved begins an empty session under a new id", async () => {
  await using memory = scoped(memoryStore());
  const app = testApp({ store: new KeyValueSessionStore(memory) }).post("/login", async (c) => {
    await c.var.session.rotate();
    return c.json(await c.var.session.update((s) => ({ ...s, count: s.count + 1 })));
  });
  const [browser, holder] = [new Browser(app), new Browser(app)];
  await browser.post("/set", { count: 3 });
  const old = holder.cookie = browser.cookie;
  await browser.post("/rotate");
  assertEquals(await holder.post("/rotate"), { count: 0 });
  assertEquals(holder.setCookie, null, "the new cookie of another tab stays");
  assertEquals(await holder.post("/login"), { count: 1 });
  assert(![old, browser.cookie, null].includes(holder.cookie));
  assertEquals(await browser.get("/read"), { count: 3 });
  const twice = { Cookie: `session=${old}; session=${old}` };
  const again = await app.request("/login", { method: "POST", headers: twice });
  assertEquals(await again.json(), { count: 1 });
});

Deno.test("of two rotations at once one succeeds, and the other leaves no copy", async () => {
  await using memory = scoped(memoryStore());
  const [here, there] = [new KeyValueSessionStore(memory), new KeyValueSessionStore(memory)];
  const { cookie } = await here.create({ count: 1 });
  const [first, second] = await Promise.all([here.rotate(cookie), there.rotate(cookie)]);
  assertEquals([first?.data, second], [{ count: 1 }, null]);
  const keys = [`${cookie}.rotated`, first?.cookie];
  assertEquals(new Set((await memory.list("")).keys), new Set(keys));
});

Deno.test("a request whose session is rotated meanwhile gets no cookie, even after its own update", async () => {
  await using memory = scoped(memoryStore());
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
});

Deno.test("of two logins at once, the one that lost sends no cookie from before", async () => {
  const memory = memoryStore();
  const elsewhere = new KeyValueSessionStore(memory);
  const app = new Hono()
    .use(sessions({ store: new KeyValueSessionStore(memory), schema: Counted, permanent: true }))
    .post("/:cookie", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      assert(c.var.session.setCookie !== null);
      await elsewhere.rotate(c.req.param("cookie"));
      await c.var.session.rotate();
      return c.text("Welcome");
    });
  const { cookie } = await elsewhere.create({ count: 1 });
  const init = { method: "POST", headers: { Cookie: `session=${cookie}` } };
  const response = await app.request(`/${cookie}`, init);
  assertEquals([response.status, response.headers.get("Set-Cookie")], [200, null]);
  await memory.close();
});

Deno.test("reading does not send the cookie again if the session is rotated meanwhile", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
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
});

Deno.test("a rotation whose outcome is unknown loses no session", async () => {
  for (const isDone of [true, false]) {
    const options = { permanent: () => isDone, lifetime: () => 100 };
    await using memory = scoped(memoryStore());
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
      assertEquals(
        /Max-Age=\d+/.exec(browser.setCookie ?? "")?.[0],
        isDone ? "Max-Age=100" : undefined,
        path,
      );
      assertEquals(await browser.get("/read"), { count: 5 }, path);
    }
  }
});

Deno.test("a rotation that is cut off is logged without the new id", () => {
  const cause = new StoreUnavailable("cut", { outcome: "unknown" });
  const session = { cookie: "the new id", data: {}, ttl: 1, renewed: true };
  const error = new RotationUnknown(session, cause);
  assertEquals(error.session, session);
  assertNotMatch(Deno.inspect(error) + JSON.stringify(error), /the new id/);
});

Deno.test("a request that waits behind a failed rotation does not get its new id", async () => {
  await using memory = scoped(memoryStore());
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
});

Deno.test("an id that was rotated away is a 409 for ten seconds, then an unknown one", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const store = new KeyValueSessionStore(memory, { now });
  const { cookie } = await store.create({ count: 5 });
  await store.rotate(cookie);
  pass(9);
  await assertRejects(() => store.load(cookie), SessionRotated);
  pass(1);
  assertEquals(await store.load(cookie), null);
});

Deno.test("a rotation of a session that is destroyed meanwhile leaves no copy", async () => {
  await using memory = scoped(memoryStore());
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 5 });
  let calls = 0;
  const store = storeWith(slowStore(memory), async () => {
    if (++calls === 3) await memory.delete(cookie);
  });
  assertEquals(await new KeyValueSessionStore(store).rotate(cookie), null);
  assertEquals(await sessionKeys(memory), []);
});

for (const failing of [1, 2, 3, 4, 5]) {
  Deno.test(`a rotation whose call ${failing} fails leaves the session where it was, and the next one works`, async () => {
    await using memory = scoped(memoryStore());
    let calls = 0;
    const gone = storeWith(memory, () => {
      // What it would remove stays, too.
      if (++calls >= failing) throw new StoreUnavailable("gone", { outcome: "unchanged" });
    });
    const elsewhere = new KeyValueSessionStore(memory);
    const { cookie } = await elsewhere.create({ count: 5 });
    const rotating = () => new KeyValueSessionStore(gone).rotate(cookie);
    const error = await assertRejects(rotating, StoreUnavailable);
    assert(!(error instanceof RotationUnknown));
    assertEquals((await elsewhere.load(cookie))?.data, { count: 5 });
    const next = await elsewhere.rotate(cookie);
    assertEquals(next?.data, { count: 5 }, "at once, since nothing has moved");
    await assertRejects(() => elsewhere.load(cookie), SessionRotated);
  });
}

Deno.test("a page after a failed rotation sends the cookie that the session has outlived", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const store: Store = {
    ...memory,
    async delete() {
      throw new StoreUnavailable("gone", { outcome: "unchanged" });
    },
  };
  const sessionStore = new KeyValueSessionStore(store, { lifetime: 100, now });
  const browser = new Browser(testApp({ store: sessionStore, permanent: true }));
  await browser.post("/set", { count: 5 });
  pass(85);
  assertEquals((await browser.request("POST", "/rotate")).status, 503);
  assertEquals(browser.setCookie, null);
  assertEquals(await browser.get("/read"), { count: 5 });
  assertEquals(browser.setCookie?.includes("Max-Age=100;"), true);
});

for (const isDone of [true, false]) {
  Deno.test(`a session whose rotation was cut off (${isDone ? "" : "not "}done) outlives an outage of its lifetime`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore({ now }));
    let calls = 0;
    const cut = storeWith(memory, () => calls++);
    cut.delete = async (key) => {
      if (isDone) await memory.delete(key);
      throw new StoreUnavailable("cut", { outcome: "unknown" });
    };
    const lifetime = 3600;
    const store = new KeyValueSessionStore(memory, { lifetime, now });
    const browser = new Browser(
      testApp({ store: new KeyValueSessionStore(cut, { lifetime, now }) }),
    );
    browser.cookie = (await store.create({ count: 5 })).cookie;
    assertEquals((await browser.request("POST", "/rotate")).status, 503);
    pass(lifetime - 1);
    const after = new Browser(testApp({ store }));
    after.cookie = browser.cookie;
    assertEquals(await after.get("/read"), { count: 5 });
  });
}

Deno.test("a rotation that cannot copy a late update leaves the session where it was, with it", async () => {
  await using memory = scoped(memoryStore());
  const elsewhere = new KeyValueSessionStore(memory);
  const { cookie } = await elsewhere.create({ count: 5 });
  let calls = 0;
  const store = storeWith(memory, async () => {
    calls++;
    if (calls === 4) await elsewhere.update(cookie, async () => ({ count: 6 }));
    if (calls === 5) throw new StoreFull("full");
  });
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
  browser.cookie = cookie;
  assertEquals((await browser.request("POST", "/rotate")).status, 503);
  assertEquals(browser.cookie, cookie);
  assertEquals(await browser.get("/read"), { count: 6 });
  assertEquals(await sessionKeys(memory), [cookie]);
});

Deno.test("destroy ends the copy of a rotation that was cut off, or is under way", async () => {
  await using memory = scoped(memoryStore());
  const cut = storeWith(memory, () => {});
  cut.delete = () => Promise.reject(new StoreUnavailable("cut", { outcome: "unknown" }));
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 5 });
  const rotated = await assertRejects(() => new KeyValueSessionStore(cut).rotate(cookie));
  assert(rotated instanceof RotationUnknown);
  await new KeyValueSessionStore(memory).destroy(cookie);
  assertEquals(await new KeyValueSessionStore(memory).load(rotated.session.cookie), null);
  assertEquals(await sessionKeys(memory), []);
});

Deno.test("rotate moves the largest session that can be stored", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const data = { text: "x".repeat(MAX_VALUE_BYTES - '{"text":""}'.length) };
  const { cookie } = await store.create(data);
  const rotated = await store.rotate(cookie);
  assertEquals(rotated?.data, data);
  await assertRejects(() => store.load(cookie), SessionRotated);
});

Deno.test("rotate is five calls", async () => {
  await using memory = scoped(memoryStore());
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 0 });
  let calls = 0;
  await new KeyValueSessionStore(storeWith(memory, () => calls++)).rotate(cookie);
  assertEquals(calls, 5);
});

Deno.test("destroy is one call, and rotate fifteen at most, whatever other processes do", async () => {
  await using memory = scoped(memoryStore());
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
  assertEquals([calls, rotated?.data], [15, { count: 14 }]);
  calls = 0;
  await here.destroy(rotated?.cookie ?? "");
  assertEquals(calls, 1);
});

Deno.test("a rotation for which there is no room leaves no copy", async () => {
  await using memory = scoped(memoryStore());
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
  assertEquals(await sessionKeys(memory), [cookie]);
});

Deno.test("a store that throws at once fails a rotation, and ends no process", async () => {
  await using memory = scoped(memoryStore());
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 1 });
  const store = new KeyValueSessionStore({
    get: (key) => memory.get(key),
    set() {
      throw new TypeError("not a promise");
    },
    delete: (key, options) => memory.delete(key, options),
  });
  await assertRejects(() => store.rotate(cookie), TypeError, "not a promise");
  await delay(0); // what nobody handles ends the test
  assertEquals((await memory.get(cookie))?.value, '{"count":1}');
});
