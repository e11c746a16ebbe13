/**
 * What sessions promise in both modes, through the middleware, as a browser sees it.
 * `sessionsConformance()` registers the tests for one session store.
 */
import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { Hono } from "hono";
import { z } from "zod";
import { SessionRotated, sessions, type SessionStore } from "../../sessions.ts";
import { captureErrors } from "../helpers/captured_errors.ts";
import { testWith } from "../helpers/programs.ts";
import { Browser, Counted, testApp } from "../helpers/session_app.ts";
import { testClock } from "../helpers/clock.ts";

export interface SessionsConformanceOptions {
  open(options: {
    lifetime?: number;
    absoluteLifetime?: number;
    now?: () => number;
  }): { store: SessionStore; close(): Promise<void> };
  /** Whether the store takes the time from the test's clock; without it no test lets time pass. */
  clock?: boolean;
  /** Programs of the machine that `open` needs: without them the tests are reported as ignored. */
  needs?: string[];
}

const increment = async (data: unknown) => {
  await delay(1);
  return { count: Counted.parse(data).count + 1 };
};
const countOf = async (store: SessionStore, cookie: string) => {
  const stored = await store.load(cookie);
  return stored && Counted.parse(stored.data).count;
};

/** What a store on a server promises of calls at the same time. A cookie cannot. */
export const RACES: Record<string, (store: SessionStore) => Promise<void>> = {
  async "no update of many at once is lost"(store) {
    const { cookie } = await store.create({ count: 0 });
    await Promise.all(Array.from({ length: 20 }, () => store.update(cookie, increment)));
    assertEquals(await countOf(store, cookie), 20);
  },

  async "an update does not bring back a session that is destroyed meanwhile"(store) {
    const { cookie } = await store.create({ count: 0 });
    await Promise.all([store.update(cookie, increment), store.destroy(cookie)]);
    assertEquals(await store.load(cookie), null);
  },

  async "an update that meets a rotation is in the session under its new id, or fails"(store) {
    const { cookie } = await store.create({ count: 0 });
    const [updated, rotated] = await Promise.allSettled([
      store.update(cookie, increment),
      store.rotate(cookie),
    ]);
    assert(rotated.status === "fulfilled" && rotated.value);
    const isUpdated = updated.status === "fulfilled" && updated.value !== null;
    assertEquals(await countOf(store, rotated.value.cookie), isUpdated ? 1 : 0);
    const old = await store.load(cookie).catch((error) => {
      if (error instanceof SessionRotated) return null;
      throw error;
    });
    assertEquals(old, null);
  },
};

export function sessionsConformance(name: string, options: SessionsConformanceOptions): void {
  const { open, clock: hasClock = true, needs = [] } = options;
  type Lifetimes = Parameters<typeof open>[0];
  const test = (
    promise: string,
    check: (store: SessionStore, clock: ReturnType<typeof testClock>) => Promise<void>,
    lifetimes: Lifetimes = {},
  ) =>
    testWith(needs, `${name}: ${promise}`, async () => {
      const clock = testClock();
      const { store, close } = open({ now: clock.now, ...lifetimes });
      try {
        await check(store, clock);
      } finally {
        await close();
      }
    });

  for (const [promise, check] of Object.entries(RACES)) {
    test(promise, async (store) => {
      if (!store.dataInCookie) await check(store);
    });
  }

  test("two browsers count separately", async (store) => {
    const app = testApp({ store });
    const [one, two] = [new Browser(app), new Browser(app)];
    for (const count of [1, 2, 3]) assertEquals(await one.post("/count"), { count });
    for (const count of [1, 2]) assertEquals(await two.post("/count"), { count });
    assertEquals(await one.post("/count"), { count: 4 });
    assertNotEquals(one.cookie, two.cookie);
  });

  test("a request that does not use its session gets no header", async (store) => {
    const browser = new Browser(testApp({ store }));
    await browser.post("/count");
    const response = await browser.request("GET", "/untouched");
    for (const header of ["Set-Cookie", "Vary", "Cache-Control"]) {
      assertEquals(response.headers.get(header), null, header);
    }
  });

  test("reading gives the defaults, creates no session and varies by cookie", async (store) => {
    const browser = new Browser(testApp({ store }));
    const response = await browser.request("GET", "/read");
    assertEquals(await response.json(), { count: 0 });
    assertEquals(response.headers.get("Set-Cookie"), null);
    assertEquals(response.headers.get("Vary"), "Cookie");
  });

  test("a changed session comes with its cookie, and is not to be cached", async (store) => {
    const browser = new Browser(testApp({ store }));
    for (let i = 0; i < 2; i++) {
      const { headers } = await browser.request("POST", "/count");
      assertMatch(
        headers.get("Set-Cookie") ?? "",
        /^session=[\w.-]+; HttpOnly; SameSite=Lax; Path=\/$/,
      );
      assertEquals(headers.get("Vary"), "Cookie");
      assertEquals(headers.get("Cache-Control"), "no-store");
    }
  });

  test("a cookie that is none of ours reads as no session", async (store) => {
    const app = testApp({ store });
    const owner = new Browser(app);
    await owner.post("/set", { count: 7 });
    const cookie = owner.cookie ?? "";
    const bad = [
      "",
      "x",
      "x".repeat(100_000),
      cookie.slice(0, -1),
      cookie.slice(1),
      `${cookie}x`,
      cookie.toUpperCase(),
      `${cookie}.${cookie}`,
      "a.b.c",
      "..",
      "%00",
      "%E0%A4%A",
      "%F0%9F%98%80",
      "__proto__",
      "eyJjb3VudCI6OTk5fQ.ZVBFAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
      "00000000-0000-0000-0000-000000000000",
      "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
      crypto.randomUUID(),
    ];
    for (const value of bad) {
      const headers = { Cookie: `session=${value}` };
      const read = await app.request("/read", { headers });
      assertEquals(read.status, 200, value);
      assertEquals(await read.json(), { count: 0 }, value);
      const counted = await app.request("/count", { method: "POST", headers });
      assertEquals(await counted.json(), { count: 1 }, value);
      const given = /^session=([^;]*)/.exec(counted.headers.get("Set-Cookie") ?? "")?.[1];
      assert(given && given !== value, `a cookie of our own making for ${value}`);
    }
    assertEquals(await owner.get("/read"), { count: 7 });
  });

  test("of two cookies of one name the first counts, or the last if they hold the data", async (store) => {
    const app = testApp({ store });
    const [one, two] = [new Browser(app), new Browser(app)];
    await one.post("/set", { count: 1 });
    await two.post("/set", { count: 2 });
    const headers = { Cookie: `session=${one.cookie}; other=x; session=${two.cookie}` };
    const count = store.dataInCookie ? 2 : 1;
    assertEquals(await (await app.request("/read", { headers })).json(), { count });
  });

  test("updates of one request follow each other", async (store) => {
    const app = new Hono()
      .use(sessions({ store, schema: Counted }))
      .get("/", async (c) => {
        const count = () => c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
        await Promise.all([count(), count(), count()]);
        return c.json(await c.var.session.read());
      });
    const response = await app.request("/");
    assertEquals(await response.json(), { count: 3 });
    assertEquals(response.headers.getSetCookie().length, 1);
  });

  test("an update that nobody awaited is done before the headers", async (store) => {
    const app = new Hono()
      .use(sessions({ store, schema: Counted }))
      .get("/", (c) => {
        c.var.session.update((s) => ({ ...s, count: 5 }));
        return c.redirect("/next");
      });
    const browser = new Browser(app);
    assertEquals((await browser.request("GET", "/")).status, 302);
    assertEquals(await new Browser(testApp({ store })).get("/read"), { count: 0 });
    const after = new Browser(testApp({ store }));
    after.cookie = browser.cookie;
    assertEquals(await after.get("/read"), { count: 5 });
  });

  test(
    "destroy clears the cookie, and the next update creates a new session",
    async (store, clock) => {
      const browser = new Browser(testApp({ store }));
      await browser.post("/count");
      const before = browser.cookie;
      const response = await browser.request("POST", "/destroy");
      assertEquals(response.status, 303);
      assertEquals(
        response.headers.get("Set-Cookie"),
        "session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax; Path=/",
      );
      clock.pass(1);
      assertEquals(await browser.post("/count"), { count: 1 });
      assertNotEquals(browser.cookie, before);
    },
  );

  if (hasClock) {
    test("an idle session ends, and one in use stays", async (store, clock) => {
      const app = testApp({ store });
      const [idle, used] = [new Browser(app), new Browser(app)];
      await idle.post("/count");
      await used.post("/count");
      for (let i = 0; i < 3; i++) {
        clock.pass(40);
        assertEquals(await used.get("/read"), { count: 1 });
      }
      assertEquals(await idle.get("/read"), { count: 0 });
      clock.pass(101);
      assertEquals(await used.get("/read"), { count: 0 });
    }, { lifetime: 100 });

    test("an absolute lifetime ends a session that is in use", async (store, clock) => {
      const browser = new Browser(testApp({ store }));
      await browser.post("/set", { count: 1 });
      for (let i = 0; i < 4; i++) {
        clock.pass(50);
        assertEquals(await browser.post("/count"), { count: i + 2 });
      }
      await browser.post("/rotate");
      clock.pass(51);
      assertEquals(await browser.get("/read"), { count: 0 });
    }, { lifetime: 100, absoluteLifetime: 250 });
  }

  test("rotate keeps the data under another cookie", async (store, clock) => {
    const browser = new Browser(testApp({ store }));
    await browser.post("/set", { count: 3 });
    const before = browser.cookie;
    clock.pass(1);
    assertEquals(await browser.post("/rotate"), { count: 3 });
    assertNotEquals(browser.cookie, before);
    assertEquals(await browser.post("/count"), { count: 4 });
  });

  test("rotate without a session does nothing", async (store) => {
    const browser = new Browser(testApp({ store }));
    assertEquals(await browser.post("/rotate"), { count: 0 });
    assertEquals(browser.setCookie, null);
  });

  test("data that does not fit the schema is an error, and stays", async (store) => {
    const loose = new Browser(
      new Hono().use(sessions({ store, schema: z.looseObject({}) })).post("/", async (c) => {
        return c.json(await c.var.session.update(() => ({ count: "many" })));
      }),
    );
    await loose.post("/");
    const logged = captureErrors();
    const strict = new Browser(testApp({ store }));
    strict.cookie = loose.cookie;
    for (const [method, path] of [["GET", "/read"], ["POST", "/count"]] as const) {
      assertEquals((await strict.request(method, path)).status, 500);
      assertEquals(strict.setCookie, null);
    }
    assertMatch(logged.end(), /The session's data, what is stored, does not fit the schema: count/);
    const migrated = new Browser(
      testApp({ store, migrate: (data) => ({ ...data as object, count: 12 }) }),
    );
    migrated.cookie = loose.cookie;
    assertEquals(await migrated.get("/read"), { count: 12 });
    assertEquals(await migrated.post("/count"), { count: 13 });
  });

  test("an update that gives what does not fit changes nothing", async (store) => {
    const browser = new Browser(testApp({ store }));
    await browser.post("/count");
    const logged = captureErrors();
    const response = await browser.request("POST", "/set", { body: '{"count":"x"}' });
    assertEquals(response.status, 500);
    assertEquals(browser.setCookie, null);
    assertMatch(logged.end(), /what update\(.*\) gave, does not fit the schema: count/);
    assertEquals(await browser.get("/read"), { count: 1 });
  });

  test("an update by an async function changes nothing, and is an error that says what to do", async (store) => {
    const change = async (s: object) => ({ ...s, count: 5 });
    const app = testApp({ store }).post("/async", async (c) => {
      // Deno runs what does not type-check.
      return c.json(await c.var.session.update(change as unknown as <T>(data: T) => T));
    });
    const browser = new Browser(app);
    await browser.post("/count");
    const logged = captureErrors();
    assertEquals((await browser.request("POST", "/async")).status, 500);
    assertMatch(logged.end(), /is a promise: await what update needs before/);
    assertEquals(await browser.get("/read"), { count: 1 });
  });

  test("a call that needs a header after the response is an error that says what to do", async (store) => {
    for (const call of ["rotate", "update"] as const) {
      let late: Promise<unknown> | undefined;
      const app = new Hono().use(sessions({ store, schema: Counted })).get("/", (c) => {
        const { session } = c.var;
        late = delay(0).then(async () => {
          if (call === "rotate") await session.rotate();
          else await session.update(() => ({ count: 1 }));
        });
        return c.text("");
      });
      await app.request("/");
      assertMatch(
        String(await assertRejects(() => late ?? Promise.resolve())),
        /await it before the handler returns/,
      );
    }
  });

  test("a permanent session's cookie has the lifetime", async (store) => {
    const browser = new Browser(testApp({ store, permanent: true }));
    await browser.post("/count");
    assertMatch(browser.setCookie ?? "", /; Max-Age=100;/);
  }, { lifetime: 100 });
}
