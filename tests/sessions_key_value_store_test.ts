/** Sessions in a store. */
import {
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertNotMatch,
  assertRejects,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { inspect } from "node:util";
import { CookieSessionStore, KeyValueSessionStore, SessionRotated } from "../sessions.ts";
import { MAX_TASKS } from "../sessions/keyed_queue.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json/text.ts";
import { type JsonText, StoreUnavailable } from "../stores/store.ts";
import { sessionsConformance } from "./conformance/sessions.ts";
import { testClock } from "./helpers/clock.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { brokenStore, countingStore, slowStore, storeWith } from "./helpers/faulty_stores.ts";
import { flaskCookie } from "./helpers/flask_cookie.ts";
import { Browser, Counted, KEY, testApp, withMemory } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";
import { UUID4 } from "./helpers/http.ts";
import { replaced } from "./helpers/replaced.ts";

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

Deno.test("KeyValueSessionStore keeps the data under the id, and the cookie holds the id alone", () =>
  withMemory(async (app, memory) => {
    const browser = new Browser(app);
    await browser.post("/count");
    const id = browser.cookie ?? "";
    assertMatch(id, new RegExp(`^${UUID4}$`));
    assertEquals((await memory.get(id))?.value, '{"count":1}');
    await browser.post("/count");
    assertEquals(browser.setCookie, `session=${id}; HttpOnly; SameSite=Lax; Path=/`);
    assertEquals((await memory.get(id))?.value, '{"count":2}');
    await browser.request("POST", "/destroy");
    assertEquals((await memory.list("")).keys, []);
  }));

Deno.test("KeyValueSessionStore asks its store nothing for a cookie that is not an id", async () => {
  await using memory = scoped(memoryStore());
  let calls = 0;
  const store = new KeyValueSessionStore(storeWith(memory, () => calls++));
  const version1 = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
  for (const cookie of ["", "x", "__proto__", version1, "../../admin"]) {
    assertEquals(await store.load(cookie), null);
    assertEquals(await store.update(cookie, () => Promise.resolve({})), null);
    assertEquals(await store.rotate(cookie), null);
    await store.destroy(cookie);
  }
  assertEquals(calls, 0);
});

Deno.test("KeyValueSessionStore forgets a session that was ended or moved, and writes nothing for it", async () => {
  await using memory = scoped(memoryStore());
  const counting = countingStore(memory);
  const store = new KeyValueSessionStore(counting);
  const [ended, moved] = [await store.create({ count: 1 }), await store.create({ count: 2 })];
  await store.destroy(ended.cookie);
  await store.rotate(moved.cookie);
  counting.writes = 0;
  assertEquals(await store.update(ended.cookie, () => Promise.resolve({})), null);
  await assertRejects(() => store.update(moved.cookie, () => Promise.resolve({})), SessionRotated);
  assertEquals(counting.writes, 0);
});

Deno.test("an absolute lifetime leaves values that are not objects as they are", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 100 });
  for (const value of ["5", "[1,2]", "[12345678901234567890]", '"text"', "null"]) {
    const id = crypto.randomUUID();
    await memory.set(id, value as JsonText);
    await store.load(id);
    assertEquals((await memory.get(id))?.value, value);
  }
});

Deno.test("an absolute lifetime counts from the first read if the creation time is invalid", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 100, now });
  const id = crypto.randomUUID();
  await memory.set(id, json({ count: 1, _created: "yesterday" }), { ttl: store.lifetime });
  assertEquals((await store.load(id))?.data, { count: 1 });
  pass(101);
  assertEquals(await store.load(id), null);
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
  const flasks = flaskCookie(Buffer.from(text).toString("base64url"), 0, KEY);
  const updated = await cookies.update(flasks, change);
  assertEquals(atob(updated?.cookie.split(".")[0] ?? ""), wanted);
});

Deno.test("a new session that a proxy writes twice is an error that shows nothing of it", async () => {
  await using memory = scoped(memoryStore());
  const set: typeof memory.set = async (...args) => {
    await memory.set(...args);
    return await memory.set(...args);
  };
  const app = testApp({ store: new KeyValueSessionStore({ ...memory, set }) });
  const errors: unknown[] = [];
  app.onError((error, c) => {
    errors.push(error);
    return c.text("", 503);
  });
  await app.request("/count", { method: "POST" });
  const [id = "none"] = (await memory.list("")).keys;
  const shown = inspect(errors, { depth: 9 });
  assertMatch(shown, /A new session was written twice/);
  assertNotMatch(shown, new RegExp(`${id}|"count"`));
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

Deno.test("update over a store lets one session have 250 calls at once", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const { cookie } = await store.create({ count: 0 });
  const other = await store.create({ count: 0 });
  const count = async (data: unknown) => ({ count: (data as { count: number }).count + 1 });
  const updates = Array.from({ length: MAX_TASKS }, () => store.update(cookie, count));
  const error = await assertRejects(() => store.update(cookie, count), StoreUnavailable);
  assertEquals([error.message, error.outcome], ["The session has too many requests", "unchanged"]);
  assertEquals((await store.update(other.cookie, count))?.data, { count: 1 });
  await Promise.all(updates);
  assertEquals((await store.update(cookie, count))?.data, { count: MAX_TASKS + 1 });
});

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

Deno.test("an update that is overtaken tries again at once, with the entry that was faster", async () => {
  await using memory = scoped(memoryStore());
  const elsewhere = new KeyValueSessionStore(memory);
  const { cookie } = await elsewhere.create({ count: 0 });
  const increment = async (data: unknown) => ({ count: Counted.parse(data).count + 1 });
  const calls: string[] = [];
  const here = new KeyValueSessionStore({
    ...memory,
    get: (key) => (calls.push("get"), memory.get(key)),
    async set(...args) {
      if (calls.push("set") <= 20) await elsewhere.update(cookie, increment);
      return await memory.set(...args);
    },
  });
  using _setTimeout = replaced(globalThis, {
    setTimeout: (run: () => void) => {
      calls.push("wait");
      queueMicrotask(run);
    },
  });
  assertEquals((await here.update(cookie, increment))?.data, { count: 20 });
  assertEquals(calls, ["get", ...Array(20).fill("set")]);
});

Deno.test("an update that refuses what another process has changed meanwhile is tried on that", async () => {
  await using memory = scoped(memoryStore());
  const [one, other] = [new KeyValueSessionStore(memory), new KeyValueSessionStore(memory)];
  const { cookie } = await one.create({ count: 0 });
  await other.update(cookie, () => Promise.resolve({ count: 1 }));
  const take = async (data: unknown) => {
    const { count } = Counted.parse(data);
    if (count === 0) throw new RangeError("nothing left");
    return { count: count - 1 };
  };
  assertEquals((await one.update(cookie, take))?.data, { count: 0 });
  assertMatch(String(await assertRejects(() => one.update(cookie, take))), /nothing left/);
});

Deno.test("an update is tried once, however long its first read took", async () => {
  await using memory = scoped(memoryStore());
  const { cookie } = await new KeyValueSessionStore(memory).create({ count: 1 });
  let time = 0;
  using _ = replaced(performance, { now: () => time });
  const slow = storeWith(memory, () => time += 6000);
  const updated = await new KeyValueSessionStore(slow).update(cookie, async () => ({ count: 2 }));
  assertEquals(updated?.data, { count: 2 });
});

Deno.test("a destroyed session is not brought back by an update under way", async () => {
  await using memory = scoped(memoryStore());
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
});

Deno.test("an update during which the session's absolute lifetime ends creates a new one", async () => {
  const clock = testClock();
  await using memory = scoped(memoryStore(clock));
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 10, now: clock.now });
  const app = testApp({ store }).post("/slow", async (c) => {
    return c.json(
      await c.var.session.update((s) => {
        if (s.count > 0) clock.pass(1);
        return { ...s, count: s.count + 1 };
      }),
    );
  });
  const browser = new Browser(app);
  await browser.post("/count");
  const { cookie } = browser;
  clock.pass(9);
  assertEquals(await browser.post("/slow"), { count: 1 });
  assertNotEquals(browser.cookie, cookie);
});

Deno.test("a page costs one call to the store in the steady state", async () => {
  await using memory = scoped(memoryStore());
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
});

Deno.test("KeyValueSessionStore reads first after an update that met another process", async () => {
  await using memory = scoped(memoryStore());
  const others = new KeyValueSessionStore(memory);
  const calls: string[] = [];
  let isMet = false;
  const store = new KeyValueSessionStore({
    ...memory,
    async get(...args) {
      calls.push("get");
      return await memory.get(...args);
    },
    async set(...args) {
      if (isMet) await others.update(cookie, count);
      isMet = false;
      calls.push("set");
      return await memory.set(...args);
    },
  });
  const count = (data: unknown) => {
    const { n } = data as { n: number };
    return Promise.resolve({ n: n + 1 });
  };
  const { cookie } = await store.create({ n: 0 });
  isMet = true;
  for (let i = 0; i < 3; i++) await store.update(cookie, count);
  assertEquals(
    calls.join(" "),
    "set set set get set set",
    "create; conflict and update; the others",
  );
  assertEquals((await others.load(cookie))?.data, { n: 4 });
});
