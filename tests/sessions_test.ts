import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertNotMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { deflateSync } from "node:zlib";
import { Hono } from "hono";
import { z } from "zod";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  RotationUnknown,
  SessionRotated,
  sessions,
  type SessionsOptions,
  SessionTooLarge,
} from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { json, type JsonText } from "../stores/json_text.ts";
import { type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import {
  Browser,
  captureErrors,
  Counted,
  sessionsConformance,
  testApp,
} from "./conformance/sessions.ts";
import { testClock } from "./conformance/store.ts";

const KEY = "a secret key for tests alone";
const UUID4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

sessionsConformance("CookieSessionStore", {
  open: (options) => ({
    store: new CookieSessionStore(KEY, options),
    close: () => Promise.resolve(),
  }),
});

sessionsConformance("KeyValueSessionStore", {
  open: (options) => {
    const memory = memoryStore(options);
    return { store: new KeyValueSessionStore(memory, options), close: () => memory.close() };
  },
});

sessionsConformance("KeyValueSessionStore with hashed ids", {
  open: (options) => {
    const memory = memoryStore(options);
    const store = new KeyValueSessionStore(memory, { ...options, hashIds: true });
    return { store, close: () => memory.close() };
  },
});

/** A cookie that Flask signed some seconds ago; the payload is encoded already. */
function flaskCookie(payload: string, age: number): string {
  const seconds = Math.floor(Date.now() / 1000) - age;
  const timestamp = Buffer.from(seconds.toString(16), "hex").toString("base64url");
  const signed = `${payload}.${timestamp}`;
  const key = createHmac("sha1", KEY).update("cookie-session").digest();
  return `${signed}.${createHmac("sha1", key).update(signed).digest("base64url")}`;
}

// ---- A signed cookie ------------------------------------------------------------------------

Deno.test("CookieSessionStore can be read, not changed", async () => {
  const browser = new Browser(testApp({ store: new CookieSessionStore(KEY) }));
  await browser.post("/set", { count: 41, user: "ada" });
  const cookie = browser.cookie ?? "";
  const [payload = "", timestamp, signature] = cookie.split(".");
  assertEquals(JSON.parse(atob(payload)), { count: 41, user: "ada" });
  const forged = btoa('{"count":9999}').replace(/=+$/, "");
  for (
    const value of [
      `${forged}.${timestamp}.${signature}`,
      `${payload}.AAAAAA.${signature}`,
      `${payload}.${timestamp}.`,
      `${payload}.${timestamp}.${"A".repeat(43)}`,
      `.${payload}.${timestamp}.${signature}`,
    ]
  ) {
    browser.cookie = value;
    assertEquals(await browser.get("/read"), { count: 0 }, value);
  }
  browser.cookie = cookie;
  assertEquals(await browser.get("/read"), { count: 41, user: "ada" });
});

Deno.test("CookieSessionStore accepts what an older key or no other key has signed", async () => {
  const cookieOf = async (key: string) => {
    return (await new CookieSessionStore(key).update(null, async () => ({ count: 1 }))).cookie;
  };
  const store = new CookieSessionStore(KEY, { fallbacks: ["an older secret key"] });
  assertEquals((await store.load(await cookieOf(KEY)))?.data, { count: 1 });
  assertEquals((await store.load(await cookieOf("an older secret key")))?.data, { count: 1 });
  assertEquals(await store.load(await cookieOf("another secret key")), null);
  const { cookie } = await store.update(
    await cookieOf("an older secret key"),
    async () => ({ count: 2 }),
  );
  assertEquals((await new CookieSessionStore(KEY).load(cookie))?.data, { count: 2 });
});

Deno.test("CookieSessionStore takes one digest, not the other", async () => {
  const sha1 = new CookieSessionStore(KEY, { digest: "sha1" });
  const sha256 = new CookieSessionStore(KEY);
  const { cookie } = await sha1.update(null, async () => ({ count: 1 }));
  assertNotEquals(await sha1.load(cookie), null);
  assertEquals(await sha256.load(cookie), null);
});

Deno.test("CookieSessionStore refuses a key that is too short", () => {
  assertMatch(
    String(assertThrows(() => new CookieSessionStore("short"))),
    /5 characters: expected 16 at least/,
  );
  assertThrows(() => new CookieSessionStore(KEY, { fallbacks: ["short"] }), TypeError);
});

Deno.test("both session stores refuse a lifetime that is none", async () => {
  const memory = memoryStore();
  for (const lifetime of [0, -1, 1.5, NaN, Infinity, 401 * 86400]) {
    assertMatch(
      String(assertThrows(() => new CookieSessionStore(KEY, { lifetime }))),
      /expected whole seconds/,
    );
    assertThrows(() => new KeyValueSessionStore(memory, { absoluteLifetime: lifetime }), TypeError);
  }
  await memory.close();
});

Deno.test("a session too large for a cookie is an error with its size, and stays", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: z.looseObject({}) }))
    .post("/", async (c) => {
      const { size } = await c.req.json<{ size: number }>();
      try {
        return c.json(await c.var.session.update(() => ({ text: "x".repeat(size) })));
      } catch (error) {
        assert(error instanceof SessionTooLarge);
        return c.text(error.message, 400);
      }
    });
  const browser = new Browser(app);
  assertEquals((await browser.request("POST", "/", { body: '{"size":2900}' })).status, 200);
  const response = await browser.request("POST", "/", { body: '{"size":3100}' });
  assertMatch(await response.text(), /: 4\d\d\d bytes, expected 4093 at most$/);
  assertEquals(browser.setCookie, null);
});

Deno.test("a cookie that Flask has compressed, too large as ours, is read and not sent anew", async () => {
  const bytes = deflateSync(JSON.stringify({ count: 5, text: "x".repeat(5000) }));
  const store = new CookieSessionStore(KEY, { digest: "sha1" });
  const browser = new Browser(testApp({ store }));
  browser.cookie = flaskCookie(`.${bytes.toString("base64url")}`, 8 * 24 * 60 * 60);
  assertEquals((await browser.get("/read") as { count: number }).count, 5);
  assertEquals(browser.setCookie, null);
  const logged = captureErrors();
  assertEquals((await browser.request("POST", "/rotate")).status, 500);
  assertMatch(logged.end(), /SessionTooLarge/);
  assertEquals(browser.setCookie, null);
});

Deno.test("CookieSessionStore cannot do what needs a server: an old cookie counts again", async () => {
  const browser = new Browser(testApp({ store: new CookieSessionStore(KEY) }));
  await browser.post("/count");
  const old = browser.cookie;
  await browser.post("/count");
  await browser.request("POST", "/destroy");
  browser.cookie = old;
  assertEquals(await browser.post("/count"), { count: 2 });
});

// ---- A store --------------------------------------------------------------------------------

/** A session app over memory, and the memory. */
async function withMemory(
  check: (app: ReturnType<typeof testApp>, memory: Store) => Promise<void>,
  options: Partial<SessionsOptions<object>> & { hashIds?: boolean } = {},
): Promise<void> {
  const memory = memoryStore();
  const store = new KeyValueSessionStore(memory, { hashIds: options.hashIds ?? false });
  try {
    await check(testApp({ store, ...options }), memory);
  } finally {
    await memory.close();
  }
}

Deno.test("KeyValueSessionStore keeps the data under the id, and the cookie holds the id alone", () =>
  withMemory(async (app, memory) => {
    const browser = new Browser(app);
    await browser.post("/count");
    const id = browser.cookie ?? "";
    assertMatch(id, UUID4);
    assertEquals((await memory.get(id))?.value, '{"count":1}');
    await browser.post("/count");
    assertEquals(browser.setCookie, `session=${id}; Path=/; HttpOnly; SameSite=Lax`);
    assertEquals((await memory.get(id))?.value, '{"count":2}');
    await browser.request("POST", "/destroy");
    assertEquals((await memory.list("")).keys, []);
  }));

Deno.test("an absolute lifetime ends a session from before it was set, even if it is only read", async () => {
  const { now, pass } = testClock();
  const memory = memoryStore({ now });
  const change = () => Promise.resolve({ count: 1 });
  const limited = { absoluteLifetime: 100, now };
  for (
    const [before, store] of [
      [new CookieSessionStore(KEY, { now }), new CookieSessionStore(KEY, limited)],
      [new KeyValueSessionStore(memory, { now }), new KeyValueSessionStore(memory, limited)],
    ] as const
  ) {
    const { cookie } = await before.update(null, change);
    const loaded = await store.load(cookie);
    assertEquals(loaded?.data, { count: 1 });
    pass(101);
    assertEquals(await store.load(loaded?.cookie ?? ""), null);
  }
  await memory.close();
});

Deno.test("an absolute lifetime leaves what is no session's data as it is", async () => {
  const memory = memoryStore();
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 100 });
  for (const value of ["5", "[1,2]", "[12345678901234567890]", '"text"', "null"]) {
    const id = crypto.randomUUID();
    await memory.set(id, value as JsonText);
    await store.load(id);
    assertEquals((await memory.get(id))?.value, value);
  }
  await memory.close();
});

Deno.test("an absolute lifetime counts from the first read where the beginning is no time", async () => {
  const { now, pass } = testClock();
  const memory = memoryStore({ now });
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 100, now });
  const id = crypto.randomUUID();
  await memory.set(id, json({ count: 1, _created: "yesterday" }), { ttl: store.lifetime });
  assertEquals((await store.load(id))?.data, { count: 1 });
  pass(101);
  assertEquals(await store.load(id), null);
  await memory.close();
});

Deno.test("KeyValueSessionStore shares a session that another program has written", () =>
  withMemory(async (app, memory) => {
    const browser = new Browser(app);
    browser.cookie = crypto.randomUUID();
    await memory.set(browser.cookie, json({ count: 5, user: "ada" }));
    assertEquals(await browser.post("/count"), { count: 6 });
    assertEquals((await memory.get(browser.cookie))?.value, '{"count":6,"user":"ada"}');
    await memory.set(browser.cookie, json({ count: 10 }));
    assertEquals(await browser.post("/count"), { count: 11 });
  }));

Deno.test("both session stores keep the digits of numbers that JavaScript rounds", async () => {
  const text =
    '{"id":1093847561029384756,"price":1.10,"at":{"n":[9007199254740993],"m":1},"count":1}';
  const change = async (data: unknown) => {
    const { at, count } = data as { at: object; count: number };
    return { ...data as object, at: { ...at, m: 2 }, count: count + 1 };
  };
  const wanted =
    '{"id":1093847561029384756,"price":1.10,"at":{"n":[9007199254740993],"m":2},"count":2}';

  const memory = memoryStore();
  const id = crypto.randomUUID();
  const store = new KeyValueSessionStore(memory);
  await memory.set(id, text as JsonText);
  await store.update(id, change);
  assertEquals((await memory.get(id))?.value, wanted);
  const moved = await store.rotate(id);
  assertEquals((await memory.get(moved?.cookie ?? ""))?.value, wanted);
  await memory.close();

  const cookies = new CookieSessionStore(KEY, { digest: "sha1" });
  const flasks = flaskCookie(Buffer.from(text).toString("base64url"), 0);
  const { cookie } = await cookies.update(flasks, change);
  assertEquals(atob(cookie.split(".")[0] ?? ""), wanted);
});

Deno.test("a session too large for a store is an error, and stays", () =>
  withMemory(async (app, memory) => {
    const browser = new Browser(app);
    await browser.post("/count");
    const logged = captureErrors();
    const response = await browser.request("POST", "/set", {
      body: JSON.stringify({ text: "x".repeat(1024 * 1024) }),
    });
    assertMatch(logged.end(), /SessionTooLarge: .* over 1048576 bytes/);
    assertEquals(response.status, 500);
    assertEquals((await memory.get(browser.cookie ?? ""))?.value, '{"count":1}');
  }));

Deno.test("KeyValueSessionStore with hashed ids keeps no id in the store", () =>
  withMemory(async (app, memory) => {
    const browser = new Browser(app);
    await browser.post("/count");
    const hash = createHash("sha256").update(browser.cookie ?? "").digest("hex");
    assertEquals((await memory.list("")).keys, [hash]);
    browser.cookie = hash;
    assertEquals(await browser.get("/read"), { count: 0 });
  }, { hashIds: true }));

Deno.test("update over a store keeps all of 200 parallel updates", () =>
  withMemory(async (app) => {
    const browser = new Browser(app);
    await browser.post("/count");
    const counts = await Promise.all(Array.from({ length: 200 }, () => browser.post("/count")));
    assertEquals(new Set(counts.map((answer) => JSON.stringify(answer))).size, 200);
    assertEquals(await browser.get("/read"), { count: 201 });
  }));

Deno.test("update over a store is exact over several processes' stores", async () => {
  const memory = slowStore(memoryStore());
  const apps = Array.from(
    { length: 4 },
    () => testApp({ store: new KeyValueSessionStore(memory) }),
  );
  const browsers = apps.map((app) => new Browser(app));
  const [first] = browsers;
  await first?.post("/count");
  for (const browser of browsers) browser.cookie = first?.cookie ?? null;
  await Promise.all(
    browsers.flatMap((browser) => Array.from({ length: 25 }, () => browser.post("/count"))),
  );
  assertEquals(await first?.get("/read"), { count: 101 });
  await memory.close();
});

Deno.test("an update that refuses what another process has changed meanwhile is tried on that", async () => {
  const memory = memoryStore();
  const [one, other] = [new KeyValueSessionStore(memory), new KeyValueSessionStore(memory)];
  const { cookie } = await one.update(null, () => Promise.resolve({ count: 0 }));
  await other.update(cookie, () => Promise.resolve({ count: 1 }));
  const take = async (data: unknown) => {
    const { count } = Counted.parse(data);
    if (count === 0) throw new RangeError("nothing left");
    return { count: count - 1 };
  };
  assertEquals((await one.update(cookie, take)).data, { count: 0 });
  assertMatch(String(await assertRejects(() => one.update(cookie, take))), /nothing left/);
  await memory.close();
});

Deno.test("a destroyed session is not brought back by an update under way", async () => {
  const memory = memoryStore();
  const [here, there] = [0, 1].map(() => testApp({ store: new KeyValueSessionStore(memory) }));
  const browser = new Browser(here as ReturnType<typeof testApp>);
  for (let i = 0; i < 50; i++) {
    browser.cookie = null;
    await browser.post("/count");
    const id = browser.cookie ?? "";
    const headers = { Cookie: `session=${id}` };
    const [counted] = await Promise.all([
      here?.request("/count", { method: "POST", headers }),
      (i % 2 ? here : there)?.request("/destroy", { method: "POST", headers }),
    ]);
    assertEquals(counted?.status, 200);
    assertEquals(await memory.get(id), null);
    assertEquals(await (await here?.request("/read", { headers }))?.json(), { count: 0 });
  }
  await memory.close();
});

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
    async set(key, value, options) {
      if (between && (await memory.list("")).keys.length === 2) {
        const run = between;
        between = null;
        await run();
      }
      return await memory.set(key, value, options);
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
  for (const key of (await memory.list("")).keys) {
    if (key !== browser.cookie) await memory.delete(key);
  }
  between = async () => await elsewhere.request("/destroy", { method: "POST", headers: rotated });
  assertEquals(await browser.post("/rotate"), { count: 0 });
  assertEquals((await memory.list("")).keys, []);
  await memory.close();
});

Deno.test("of two rotations at once one succeeds, and the other leaves no copy behind", async () => {
  const memory = memoryStore();
  const [here, there] = [new KeyValueSessionStore(memory), new KeyValueSessionStore(memory)];
  const { cookie } = await here.update(null, () => Promise.resolve({ count: 1 }));
  const [first, second] = await Promise.allSettled([here.rotate(cookie), there.rotate(cookie)]);
  assert(first?.status === "fulfilled" && second?.status === "rejected");
  assert(second.reason instanceof SessionRotated);
  assertEquals(new Set((await memory.list("")).keys), new Set([cookie, first.value?.cookie]));
  await memory.close();
});

Deno.test("a request whose session is rotated meanwhile gets no cookie, after an update of its own", async () => {
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
  const { cookie } = await elsewhere.update(null, () => Promise.resolve({ count: 1 }));
  const response = await app.request(`/${cookie}`, { headers: { Cookie: `session=${cookie}` } });
  assertEquals(response.status, 409);
  assertEquals(response.headers.get("Set-Cookie"), null);
  await memory.close();
});

Deno.test("reading sends no cookie anew where the session is rotated meanwhile", async () => {
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
  const { cookie } = await other.update(null, () => Promise.resolve({ count: 1 }));
  pass(50);
  const loaded = await new KeyValueSessionStore(rotating, { lifetime: 100, now }).load(cookie);
  assertEquals(loaded, { cookie, data: { count: 1 }, renewed: false });
  await memory.close();
});

Deno.test("a rotation of which it is not known whether it was done loses no session", async () => {
  for (const isDone of [true, false]) {
    const memory = memoryStore();
    const store: Store = {
      ...memory,
      async set(key, value, options) {
        if (!value.includes("_rotated")) return await memory.set(key, value, options);
        if (isDone) await memory.set(key, value, options);
        throw new StoreUnavailable("cut", { outcome: "unknown" });
      },
    };
    const app = testApp({ store: new KeyValueSessionStore(store) })
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
      assertEquals(await browser.get("/read"), { count: 5 }, path);
    }
    await memory.close();
  }
});

Deno.test("a rotation that is cut is logged without the new id", () => {
  const cause = new StoreUnavailable("cut", { outcome: "unknown" });
  const error = new RotationUnknown("the new id", cause);
  assertEquals(error.cookie, "the new id");
  assertNotMatch(Deno.inspect(error) + JSON.stringify(error), /the new id/);
});

Deno.test("who waits behind a rotation that is cut does not get its new id", async () => {
  const memory = memoryStore();
  const begun = Promise.withResolvers<void>();
  const cut = Promise.withResolvers<void>();
  const store: Store = {
    ...memory,
    async set(key, value, options) {
      if (!value.includes("_rotated")) return await memory.set(key, value, options);
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

Deno.test("a rotation for which there is no room leaves no copy behind", async () => {
  const memory = memoryStore();
  const store: Store = {
    ...memory,
    async set(key, value, options) {
      if (value.includes("_rotated")) throw new StoreFull("full");
      return await memory.set(key, value, options);
    },
  };
  const sessionStore = new KeyValueSessionStore(store);
  const { cookie } = await sessionStore.update(null, () => Promise.resolve({ count: 5 }));
  await assertRejects(() => sessionStore.rotate(cookie), StoreFull);
  assertEquals((await memory.list("")).keys, [cookie]);
  await memory.close();
});

Deno.test("a store that does not answer is a 503, and the session and its cookie stay", async () => {
  const memory = memoryStore();
  let broken = false;
  const store = brokenStore(memory, () => broken);
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
  await browser.post("/set", { count: 5 });
  broken = true;
  for (
    const [method, path] of [
      ["GET", "/read"],
      ["POST", "/count"],
      ["POST", "/rotate"],
      ["POST", "/destroy"],
    ] as const
  ) {
    const response = await browser.request(method, path);
    assertEquals(response.status, 503, path);
    assertEquals(response.headers.get("Retry-After"), "1");
    assertEquals(response.headers.get("Set-Cookie"), null);
  }
  assertEquals((await browser.request("GET", "/untouched")).status, 200);
  broken = false;
  assertEquals(await browser.post("/count"), { count: 6 });
  await memory.close();
});

Deno.test("a store that is full is a 503, and the session and its cookie stay", async () => {
  const memory = memoryStore();
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
  await memory.close();
});

Deno.test("a session can be read from a store that is full, though it is to be renewed", async () => {
  const clock = testClock();
  const memory = memoryStore(clock);
  const store = {
    ...memory,
    async set(): Promise<never> {
      throw new StoreFull("There is no room");
    },
  };
  const limits = { lifetime: 100, now: clock.now };
  const before = new KeyValueSessionStore(memory, limits);
  const { cookie } = await before.update(null, async () => ({ count: 1 }));
  clock.pass(50);
  const loaded = await new KeyValueSessionStore(store, limits).load(cookie);
  assertEquals(loaded, { cookie, data: { count: 1 }, renewed: false });
  await memory.close();
});

Deno.test("an update in the last second of a session's absolute lifetime is done", async () => {
  const clock = testClock();
  const memory = memoryStore(clock);
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 10, now: clock.now });
  const { cookie } = await store.update(null, async () => ({ count: 1 }));
  clock.pass(9);
  const { data } = await store.update(cookie, async () => {
    clock.pass(1);
    return { count: 2 };
  });
  assertEquals(data, { count: 2 });
  assertEquals(await store.load(cookie), null);
  await memory.close();
});

Deno.test("updates that wait behind one that the store did not answer fail with it", async () => {
  const memory = memoryStore();
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
  await memory.close();
});

Deno.test("an update that nobody awaited and that fails is the request's error", async () => {
  const memory = memoryStore();
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted })).get("/", (c) => {
    c.var.session.update((s) => ({ ...s, count: 5 }));
    c.var.session.update((s) => ({ ...s, count: 6 }));
    return c.redirect("/next");
  });
  const response = await app.request("/");
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("Retry-After"), "1");
  await memory.close();
});

Deno.test("a call that nobody awaited and that failed early is the request's error, not the end of the process", async () => {
  const memory = memoryStore();
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted }))
    .get("/forgotten", async (c) => {
      c.var.session.update((s) => ({ ...s, count: 5 }));
      await delay(20);
      return c.text("");
    })
    .get("/awaited-late", async (c) => {
      const update = c.var.session.update((s) => ({ ...s, count: 5 }));
      await delay(20);
      return c.text(await update.then(() => "done", () => "failed"));
    });
  assertEquals((await app.request("/forgotten")).status, 503);
  assertEquals(await (await app.request("/awaited-late")).text(), "failed");
  await memory.close();
});

Deno.test("read can be told to go on without a session", async () => {
  const memory = memoryStore();
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
    const data = await c.var.session.read().catch(() => null);
    return c.json(data);
  });
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  const response = await app.request("/", { headers });
  assertEquals(response.status, 200);
  assertEquals(await response.json(), null);
  await memory.close();
});

Deno.test("a page costs one call to the store in the steady state", async () => {
  const memory = memoryStore();
  let calls = 0;
  const count = () => {
    calls++;
    return false;
  };
  const browser = new Browser(
    testApp({ store: new KeyValueSessionStore(brokenStore(memory, count)) }),
  );
  await browser.post("/count");
  calls = 0;
  for (let i = 0; i < 10; i++) await browser.post("/count");
  assertEquals(calls, 10);
  calls = 0;
  await browser.get("/untouched").catch(() => {});
  assertEquals(calls, 0);
  // Another process has changed the session: reading it is enough to know.
  const other = new Browser(testApp({ store: new KeyValueSessionStore(memory) }));
  other.cookie = browser.cookie;
  await other.post("/count");
  await browser.get("/read");
  assertEquals(calls, 1);
  await browser.post("/count");
  assertEquals(calls, 2);
  await memory.close();
});

// ---- The cookie's attributes ----------------------------------------------------------------

Deno.test("sessions() sets Secure when the request came by https", async () => {
  const store = new CookieSessionStore(KEY);
  const setCookie = async (options: Partial<SessionsOptions<object>>, url: string, proto = "") => {
    const headers = proto ? { "X-Forwarded-Proto": proto } : {};
    const app = testApp({ store, ...options });
    const response = await app.request(`${url}/count`, { method: "POST", headers });
    return response.headers.get("Set-Cookie") ?? "";
  };
  assertNotMatch(await setCookie({}, "http://x"), /Secure/);
  assertMatch(await setCookie({}, "https://x"), /; Secure/);
  assertNotMatch(await setCookie({}, "http://x", "https"), /Secure/);
  assertMatch(await setCookie({ trustProxy: true }, "http://x", "https, http"), /; Secure/);
  assertMatch(await setCookie({ trustProxy: true }, "http://x", "HTTPS"), /; Secure/);
  assertNotMatch(await setCookie({ trustProxy: true }, "https://x", "http"), /Secure/);
  assertNotMatch(await setCookie({ trustProxy: true }, "https://x", "http, https"), /Secure/);
  assertMatch(await setCookie({ cookie: { secure: true } }, "http://x"), /; Secure/);
  assertNotMatch(await setCookie({ cookie: { secure: false } }, "https://x"), /Secure/);
});

Deno.test("sessions() gives the cookie the name and attributes of its options", async () => {
  const app = testApp({
    store: new CookieSessionStore(KEY),
    cookie: {
      name: "id",
      domain: "example.org",
      path: "/app",
      sameSite: "None",
      secure: true,
      partitioned: true,
    },
  });
  const response = await app.request("/count", { method: "POST" });
  assertMatch(
    response.headers.get("Set-Cookie") ?? "",
    /^id=[^;]+; Domain=example\.org; Path=\/app; HttpOnly; Secure; SameSite=None; Partitioned$/,
  );
});

Deno.test("sessions() lets no option show the cookie to scripts", async () => {
  const cookie = { name: "id", httpOnly: false };
  const app = testApp({ store: new CookieSessionStore(KEY), cookie });
  const response = await app.request("/count", { method: "POST" });
  assertMatch(response.headers.get("Set-Cookie") ?? "", /; HttpOnly;/);
});

Deno.test("sessions() refuses a cookie that breaks its rules, at the start", () => {
  const store = new CookieSessionStore(KEY);
  const bad: [SessionsOptions<object>["cookie"], RegExp][] = [
    [{ name: "a b" }, /Cannot use the cookie "a b": Invalid cookie name/],
    [{ name: "" }, /Cannot use the cookie ""/],
    [{ path: "/;x" }, /path must not contain/],
    [{ domain: "x;y" }, /domain must not contain/],
    [{ name: "__Host-session" }, /its prefix asks for Secure to be true/],
    [{ name: "__Secure-session", secure: false }, /Secure/],
    [{ name: "__Host-session", secure: true, path: "/app" }, /Path/],
    [{ name: "__Host-session", secure: true, domain: "x" }, /Domain/],
    [{ path: "/\u20ac" }, /Cannot use the cookie "session": .*ByteString/],
    [{ partitioned: true, secure: false }, /Partitioned/],
    [{ partitioned: true }, /Partitioned asks for Secure to be true/],
    [{ sameSite: "None", secure: false }, /SameSite=None asks for Secure/],
    [{ sameSite: "None" }, /SameSite=None asks for Secure to be true/],
  ];
  for (const [cookie, message] of bad) {
    assertMatch(String(assertThrows(() => testApp({ store, ...cookie && { cookie } }))), message);
  }
  testApp({ store, cookie: { name: "__Host-session", secure: true } });
});

Deno.test("sessions() refuses a permanent cookie that would outlive what browsers allow", async () => {
  class EndlessStore extends CookieSessionStore {
    override readonly lifetime = 500 * 24 * 60 * 60;
  }
  const store = new EndlessStore(KEY);
  assertMatch(
    String(assertThrows(() => testApp({ store, permanent: true }))),
    /Cannot use the cookie.*400 days/,
  );
  const response = await testApp({ store }).request("/count", { method: "POST" });
  assertEquals(response.status, 200);
});

Deno.test("sessions() refuses a schema without defaults", () => {
  const store = new CookieSessionStore(KEY);
  const schema = z.object({ count: z.number() });
  assertMatch(
    String(assertThrows(() => sessions({ store, schema }))),
    /Cannot use the schema: expected one that accepts/,
  );
});

Deno.test("an asynchronous schema that fails at the start fails the requests, not the process", async () => {
  const validate = () => Promise.reject(new Error("no database"));
  const schema = { "~standard": { version: 1, vendor: "test", validate } } as const;
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema }))
    .get("/", async (c) => c.json(await c.var.session.read()));
  const logged = captureErrors();
  assertEquals((await app.request("/")).status, 500);
  assertMatch(logged.end(), /no database/);
});

Deno.test("sessions() types what a handler may do", () => {
  const store = new CookieSessionStore(KEY);
  // @ts-expect-error: without the middleware there is no session
  new Hono().get("/", async (c) => c.text(await c.var.session.read()));
  new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
    const { count } = await c.var.session.read();
    // @ts-expect-error: the schema says that it is a number
    count.trim();
    // @ts-expect-error: an update gives all the data
    await c.var.session.update(() => ({}));
    // @ts-expect-error: an update only computes, so that it may run again
    await c.var.session.update(async (s) => await Promise.resolve(s));
    return c.text(String(count));
  });
  // @ts-expect-error: a schema of what is no object
  assertThrows(() => sessions({ store, schema: z.string() }), TypeError);
});

Deno.test("sessions() leaves the app's other cookies and Vary alone", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => s);
      c.header("Set-Cookie", "theme=dark");
      c.header("Vary", "Accept");
      return c.text("");
    });
  const { headers } = await app.request("/");
  assertEquals(headers.getSetCookie().length, 2);
  assertEquals(headers.get("Vary"), "Accept, Cookie");
});

Deno.test("a response whose headers cannot be changed carries the cookie, too", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => s);
      return Response.redirect("http://localhost/elsewhere", 303);
    });
  const { status, headers } = await app.request("/");
  assertEquals(status, 303);
  assertEquals(headers.get("Location"), "http://localhost/elsewhere");
  assertMatch(headers.get("Set-Cookie") ?? "", /^session=/);
  assertEquals(headers.get("Vary"), "Cookie");
  assertEquals(headers.get("Cache-Control"), "no-store");
});

Deno.test("a response that a handler gives to all requests carries nobody else's cookie", async () => {
  const done = new Response(null, { status: 204 });
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/read", async (c) => {
      await c.var.session.read();
      return done;
    })
    .get("/count", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
      return done;
    });
  for (const [path, cookies] of [["/count", 1], ["/count", 1], ["/read", 0]] as const) {
    const { headers } = await app.request(path);
    assertEquals(headers.getSetCookie().length, cookies, path);
    assertEquals(headers.get("Vary"), "Cookie");
  }
});

Deno.test("an error page still carries the cookie of an update that was done", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 3 }));
      throw new Error("a defect behind the update");
    });
  const logged = captureErrors();
  const response = await app.request("/");
  logged.end();
  assertEquals(response.status, 500);
  assertMatch(response.headers.get("Set-Cookie") ?? "", /^session=/);
});

Deno.test("the error of a call that nobody awaited leaves the cookie of the calls before it", async () => {
  const app = testApp({ store: new CookieSessionStore(KEY) }).post("/forgotten", async (c) => {
    await c.var.session.update((s) => ({ ...s, count: 7 }));
    c.var.session.update((s) => ({ ...s, count: 0.5 }));
    return c.text("");
  });
  const browser = new Browser(app);
  const logged = captureErrors();
  assertEquals((await browser.request("POST", "/forgotten")).status, 500);
  logged.end();
  assertEquals(await browser.get("/read"), { count: 7 });
});

// ---- Stores that misbehave ------------------------------------------------------------------

/** A store that does something before each call. */
function storeWith(store: Store, before: () => unknown): Store {
  return {
    ...store,
    async get(...args) {
      await before();
      return await store.get(...args);
    },
    async set(...args) {
      await before();
      return await store.set(...args);
    },
    async delete(...args) {
      await before();
      return await store.delete(...args);
    },
  };
}

/** A store whose calls fail while `isBroken` says so. */
function brokenStore(store: Store, isBroken: () => boolean): Store {
  return storeWith(store, () => {
    if (isBroken()) throw new StoreUnavailable("It is gone", { outcome: "unchanged" });
  });
}

/** A store whose calls take a turn of the event loop, as over a network. */
function slowStore(store: Store): Store {
  return storeWith(store, () => new Promise((resolve) => setImmediate(resolve)));
}
