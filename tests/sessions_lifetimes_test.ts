/** How long sessions and their cookies live. */
import { assert, assertEquals, assertMatch, assertNotMatch, assertThrows } from "@std/assert";
import { Hono } from "hono";
import { z } from "zod";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  sessions,
  type SessionsOptions,
} from "../sessions.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { testClock } from "./helpers/clock.ts";
import { logged } from "./helpers/captured_errors.ts";
import { countingStore } from "./helpers/faulty_stores.ts";
import { flaskCookie } from "./helpers/flask_cookie.ts";
import { Browser, Counted, KEY, KINDS, sessionStore, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

const MINUTES = 60_000;

for (const ahead of [-15 * MINUTES, 15 * MINUTES]) {
  Deno.test(`a session in use is renewed, and seldom, where the store's clock is ${ahead} ms ahead`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore({ now: () => now() + ahead }));
    const counting = countingStore(memory);
    const lifetime = 600;
    const { cookie } = await new KeyValueSessionStore(memory, { lifetime, now }).create({ a: 1 });
    const store = new KeyValueSessionStore(counting, { lifetime, now });
    for (let i = 0; i < 40; i++) {
      pass(30);
      assertEquals((await store.load(cookie))?.data, { a: 1 });
    }
    const { writes } = counting;
    assert(writes >= 10 && writes <= 21, `${writes} writes in 20 minutes`);
    pass(601);
    assertEquals(await store.load(cookie), null);
  });
}

Deno.test("a session in use is renewed after its server's clock was set back", async () => {
  const { now, pass } = testClock();
  let ahead = 60 * MINUTES;
  await using memory = scoped(memoryStore({ now }));
  const lifetime = 600;
  const store = new KeyValueSessionStore(memory, { lifetime, now: () => now() + ahead });
  const { cookie } = await store.create({ a: 1 });
  ahead = 0;
  for (let i = 0; i < 40; i++) {
    pass(30);
    assertEquals((await store.load(cookie))?.data, { a: 1 }, `after ${i} uses`);
  }
});

for (const kind of KINDS) {
  Deno.test(`reading renews at most once in a tenth of the lifetime, kept in a ${kind}`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore({ now }));
    const store = sessionStore(kind, memory, { lifetime: 100, now });
    const browser = new Browser(testApp({ store }));
    await browser.post("/count");
    let renewals = 0;
    for (let i = 0; i < 30; i++) {
      pass(1);
      await browser.get("/read");
      if (browser.setCookie !== null) renewals++;
    }
    assertEquals(renewals, 2);
  });
}

for (const kind of KINDS) {
  Deno.test(`a session has ended when its absolute lifetime is over, kept in a ${kind}`, async () => {
    const { now, pass } = testClock();
    const memory = memoryStore(); // whose clock stands still beside the test's
    const store = sessionStore(kind, memory, { absoluteLifetime: 10, now });
    const { cookie, ttl } = await store.create({ count: 1 });
    assertEquals(ttl, 10);
    pass(9);
    assertEquals((await store.load(cookie))?.ttl, 1);
    pass(1);
    assertEquals(await store.load(cookie), null);
    assertEquals(await store.update(cookie, () => Promise.resolve({ count: 2 })), null);
    await memory.close();
  });
}

for (const kind of KINDS) {
  Deno.test(`a session in use lasts as long as its absolute lifetime, kept in a ${kind}`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore({ now }));
    const store = sessionStore(kind, memory, { lifetime: 1000, absoluteLifetime: 1090, now });
    const browser = new Browser(testApp({ store, permanent: true }));
    await browser.post("/count");
    let renewals = 0;
    for (let i = 0; i < 108; i++) {
      pass(10);
      assertEquals(await browser.get("/read"), { count: 1 }, `after ${i} uses`);
      if (browser.setCookie !== null) renewals++;
    }
    assertEquals(renewals, 1);
    pass(10);
    assertEquals(await browser.get("/read"), { count: 0 });
  });
}

Deno.test("a server whose clock is behind does not renew what another has just written", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const counting = countingStore(memory);
  const options = { lifetime: 1000, absoluteLifetime: 600 };
  const ahead = new KeyValueSessionStore(counting, { ...options, now });
  const behind = new KeyValueSessionStore(counting, { ...options, now: () => now() - 3000 });
  await behind.create({}); // its first write tells how far the store's clock is ahead
  const { cookie } = await ahead.create({ count: 0 });
  counting.writes = 0;
  for (let count = 1; count <= 10; count++) {
    pass(10);
    await ahead.update(cookie, async () => ({ count }));
    await behind.load(cookie);
  }
  assertEquals(counting.writes, 10);
});

for (const kind of KINDS) {
  Deno.test(`an app without an absolute lifetime keeps the start of a session, in a ${kind}`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore());
    const store = sessionStore(kind, memory, { absoluteLifetime: 10, now });
    const other = sessionStore(kind, memory, { now });
    const { cookie } = await store.create({ count: 1 });
    pass(5);
    const updated = await other.update(cookie, () => Promise.resolve({ count: 2 }));
    pass(4);
    assertEquals((await store.load(updated?.cookie ?? ""))?.data, { count: 2 });
    pass(1);
    assertEquals(await store.load(updated?.cookie ?? ""), null);
  });
}

Deno.test("a cookie dated in the future does not outlive its lifetime", async () => {
  const { now } = testClock();
  const future = new CookieSessionStore(KEY, { lifetime: 100, now: () => now() + 61_000 });
  const store = new CookieSessionStore(KEY, { lifetime: 100, now });
  assertEquals(await store.load((await future.create({ count: 1 })).cookie), null);
  const ahead = new CookieSessionStore(KEY, { lifetime: 100, now: () => now() + 60_000 });
  const loaded = await store.load((await ahead.create({ count: 1 })).cookie);
  assertEquals([loaded?.data, loaded?.ttl], [{ count: 1 }, 100], "a clock may be a little ahead");
});

const Remembered = z.object({
  user: z.string().default(""),
  remember: z.boolean().default(false),
});

for (const kind of KINDS) {
  Deno.test(`"remember me" follows from a session's data, kept in a ${kind}`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore({ now }));
    const store = sessionStore(kind, memory, { now });
    const app = new Hono()
      .use(sessions({
        store,
        schema: Remembered,
        permanent: ({ remember }) => remember,
        lifetime: ({ remember }) => remember ? 3000 : 100,
      }))
      .get("/read", async (c) => c.json(await c.var.session.read()))
      .post("/rotate", async (c) => {
        await c.var.session.rotate();
        return c.json({});
      })
      .post("/login", async (c) => {
        const { remember } = await c.req.json<{ remember: boolean }>();
        return c.json(await c.var.session.update(() => ({ user: "ada", remember })));
      });

    const [remembered, other] = [new Browser(app), new Browser(app)];
    await remembered.post("/login", { remember: true });
    assertMatch(remembered.setCookie ?? "", /; Max-Age=3000;/);
    await other.post("/login", { remember: false });
    assertNotMatch(other.setCookie ?? "", /Max-Age/);

    pass(99);
    assertEquals(await other.get("/read"), { user: "ada", remember: false });
    assertNotMatch(other.setCookie ?? "", /Max-Age/);
    pass(301);
    assertEquals(await other.get("/read"), { user: "", remember: false });
    assertEquals(await remembered.get("/read"), { user: "ada", remember: true });
    assertMatch(remembered.setCookie ?? "", /; Max-Age=3000;/, "a page that renews keeps it");
    const made = new Browser(app);
    made.cookie = (await store.create({ user: "ada", remember: true })).cookie;
    await made.post("/rotate");
    assertMatch(made.setCookie ?? "", /; Max-Age=3000;/, "by the data, though nothing is noted");
    await remembered.post("/rotate");
    assertMatch(remembered.setCookie ?? "", /; Max-Age=3000;/, "a rotation keeps it");
    pass(2999);
    assertEquals(await remembered.get("/read"), { user: "ada", remember: true });
    pass(3001);
    assertEquals(await remembered.get("/read"), { user: "", remember: false });
  });
}

for (const kind of KINDS) {
  Deno.test(`permanent and lifetime that return a promise are an error, kept in a ${kind}`, async () => {
    await using memory = scoped(memoryStore());
    const store = sessionStore(kind, memory);
    const later = () => Promise.reject(new Error("no database"));
    const options: [Partial<SessionsOptions<object>>, RegExp][] = [
      [
        { permanent: later as unknown as () => boolean },
        /Cannot use a promise as what permanent\(\) /,
      ],
      [{ permanent: (() => "yes") as unknown as () => boolean }, /Cannot use "yes" as what perm/],
      [
        { lifetime: later as unknown as () => number },
        /Cannot wait for a lifetime: expected whole/,
      ],
      [{ lifetime: () => 0.5 }, /Cannot keep sessions for "0.5" seconds: expected whole seconds/],
    ];
    for (const [option, message] of options) {
      const errors = await logged(async () => {
        const response = await testApp({ store, ...option }).request("/count", { method: "POST" });
        assertEquals([response.status, response.headers.get("Set-Cookie")], [500, null]);
      });
      assertMatch(errors, message);
    }
    assertEquals((await memory.list("")).keys, []);
  });
}

for (const kind of KINDS) {
  Deno.test(`a lifetime follows from data as migrate converts it, or says why not, kept in a ${kind}`, async () => {
    await using memory = scoped(memoryStore());
    const store = sessionStore(kind, memory);
    const { cookie } = await store.create({ remembered: 1 });
    const schema = z.strictObject({ remember: z.boolean().default(false) });
    const seconds = async (options: Pick<SessionsOptions<object>, "migrate">) => {
      const app = new Hono()
        .use(sessions({ store, schema, ...options, lifetime: (s) => s.remember ? 3000 : 100 }))
        .get("/", async (c) => {
          await c.var.session.read();
          return c.text("");
        })
        .onError((error, c) => c.text(error.message, 500));
      return await (await app.request("/", { headers: { Cookie: `session=${cookie}` } })).text();
    };
    assertEquals(await seconds({ migrate: () => ({ remember: true }) }), "");
    assertMatch(await seconds({}), /what is stored, does not fit the schema/);
    const late = async () => ({ remember: true });
    assertMatch(
      await seconds({ migrate: late }),
      /Cannot wait for the schema or migrate: a lifetime/,
    );
  });
}

for (const kind of KINDS) {
  Deno.test(`a page asks once for a lifetime that may parse the data, kept in a ${kind}`, async () => {
    const { now, pass } = testClock();
    await using memory = scoped(memoryStore({ now }));
    let asked = 0;
    const lifetime = () => {
      asked++;
      return 100;
    };
    const browser = new Browser(testApp({ store: sessionStore(kind, memory, { now }), lifetime }));
    await browser.post("/count");
    for (const seconds of [0, 5, 50]) {
      pass(seconds);
      asked = 0;
      await browser.get("/read");
      assertEquals(asked, 1, `after ${seconds} s`);
    }
  });
}

Deno.test("a lifetime of its own needs a store that can give one", () => {
  const { load, create, update, rotate, destroy, lifetime } = new CookieSessionStore(KEY);
  const store = { load, create, update, rotate, destroy, lifetime };
  assertThrows(
    () => testApp({ store, lifetime: () => 100 }),
    TypeError,
    'Cannot keep the session "session": its store has no method "withLifetime"',
  );
});

Deno.test("a permanent session is stored as Flask stores it, and Flask's stays permanent", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const ours = new Browser(testApp({ store, permanent: true }));
  await ours.post("/count");
  assertEquals((await memory.get(ours.cookie ?? ""))?.value, '{"count":1,"_permanent":true}');

  const flasks = new Browser(testApp({ store }));
  flasks.cookie = crypto.randomUUID();
  await memory.set(flasks.cookie, json({ _permanent: true, count: 4 }));
  assertEquals(await flasks.post("/count"), { count: 5 });
  assertMatch(flasks.setCookie ?? "", /Max-Age=2678400/);
  assertEquals((await memory.get(flasks.cookie))?.value, '{"count":5,"_permanent":true}');

  const ending = new Browser(testApp({ store, permanent: false }));
  ending.cookie = flasks.cookie;
  await ending.post("/count");
  assertNotMatch(ending.setCookie ?? "", /Max-Age/);
  assertEquals((await memory.get(flasks.cookie))?.value, '{"count":6}');

  const signed = new Browser(testApp({ store: new CookieSessionStore(KEY, { digest: "sha1" }) }));
  signed.cookie = flaskCookie(btoa('{"_permanent":true,"count":1}').replaceAll("=", ""), 5, KEY);
  assertEquals(await signed.post("/count"), { count: 2 });
  assertMatch(signed.setCookie ?? "", /Max-Age=2678400/);
});

for (
  const [name, open] of [["memory", memoryStore], [
    "SQLite",
    () => sqliteStore(":memory:"),
  ]] as const
) {
  Deno.test(`a clock that a test puts in place after the stores are made reaches them, on ${name}`, async () => {
    const store = open();
    const [signed, kept] = [new CookieSessionStore(KEY), new KeyValueSessionStore(store)];
    const cookies = [(await signed.create({})).cookie, (await kept.create({})).cookie] as const;
    await store.set("brief", json(1), { ttl: 10 });
    const RealDate = Date;
    let passed = 11;
    globalThis.Date = class extends RealDate {
      static override now = () => RealDate.now() + passed * 1000;
    } as DateConstructor;
    try {
      assertEquals(await store.get("brief"), null);
      assertEquals((await signed.load(cookies[0]))?.data, {});
      assertEquals((await kept.load(cookies[1]))?.data, {});
      passed = 2 * signed.lifetime;
      assertEquals(await signed.load(cookies[0]), null);
      assertEquals(await kept.load(cookies[1]), null);
    } finally {
      globalThis.Date = RealDate;
    }
    await store.close();
  });
}

for (const kind of KINDS) {
  Deno.test(`session.expires is by the store's clock, as of the last call, kept in a ${kind}`, async () => {
    let time = 1e12;
    await using memory = scoped(memoryStore());
    const store = sessionStore(kind, memory, { lifetime: 100, now: () => time });
    const app = new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 1 }));
      time += 60_000;
      return c.json(c.var.session.expires);
    });
    assertEquals(await (await app.request("/")).json(), new Date(1e12 + 100_000).toISOString());
  });
}
