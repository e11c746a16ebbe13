/** Several sessions in one app, several cookies of one name, and what a session says of itself. */
import { assert, assertEquals, assertMatch, assertNotEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { CookieSessionStore, KeyValueSessionStore, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { testClock } from "./helpers/clock.ts";
import { brokenStore, storeWith } from "./helpers/faulty_stores.ts";
import { Browser, Counted, KEY, KINDS, sessionStore, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

const Prefs = z.object({ theme: z.string().default("light") });

for (const kind of KINDS) {
  Deno.test(`two sessions of one app are independent, kept in a ${kind}`, async () => {
    await using memory = scoped(memoryStore());
    const store = sessionStore(kind, memory);
    const app = new Hono()
      .use(sessions({ store, schema: Counted }))
      .use(sessions({ store, schema: Prefs, name: "prefs" }))
      .get("/", async (c) => {
        const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
        const { theme } = await c.var.prefs.update((s) => ({ ...s, theme: `${s.theme}!` }));
        // @ts-expect-error: each has the type of its own schema
        (await c.var.prefs.read()).count;
        return c.json({ count, theme });
      });
    const first = await app.request("/");
    assertEquals(await first.json(), { count: 1, theme: "light!" });
    assertEquals(first.headers.get("Vary"), "Cookie");
    const cookies = first.headers.getSetCookie().map((header) => header.split(";")[0] ?? "");
    assertEquals(cookies.map((cookie) => cookie.split("=")[0]).sort(), ["prefs", "session"]);
    const again = await app.request("/", { headers: { Cookie: cookies.join("; ") } });
    assertEquals(await again.json(), { count: 2, theme: "light!!" });
    // Each value under the other's name.
    const swapped = cookies.map((cookie) =>
      cookie.startsWith("prefs=")
        ? cookie.replace("prefs", "session")
        : cookie.replace(/^\w+/, "prefs")
    );
    const strange = await app.request("/", { headers: { Cookie: swapped.join("; ") } });
    assertEquals(await strange.json(), { count: 1, theme: "light!" });
  });
}

for (const kind of KINDS) {
  Deno.test(`a cookie of one session is not one of another with the same data, kept in a ${kind}`, async () => {
    await using memory = scoped(memoryStore());
    const store = sessionStore(kind, memory);
    const app = new Hono()
      .use(sessions({ store, schema: Counted }))
      .use(sessions({ store, schema: Counted, name: "other" }))
      .get("/", async (c) => {
        const [one, other] = [await c.var.session.read(), await c.var.other.read()];
        return c.json([one.count, other.count]);
      })
      .post("/", async (c) => {
        await c.var.session.update(() => ({ count: 1 }));
        await c.var.other.update(() => ({ count: 2 }));
        return c.text("");
      });
    const set = (await app.request("/", { method: "POST" })).headers.getSetCookie();
    const cookies = set.map((header) => header.split(";")[0]).join("; ");
    const counts = async (Cookie: string) =>
      await (await app.request("/", { headers: { Cookie } })).json();
    assertEquals(await counts(cookies), [1, 2]);
    const swapped = cookies.replace("session=", "x=").replace("other=", "session=")
      .replace("x=", "other=");
    assertEquals(await counts(swapped), [0, 0]);
  });
}

Deno.test("a second session has the settings of its store", async () => {
  await using memory = scoped(memoryStore());
  const hashed = new KeyValueSessionStore(memory, { hashIds: true, lifetime: 100 }).named("prefs");
  const { cookie, ttl } = await hashed.create({ count: 1 });
  assertEquals([ttl, (await memory.list("")).keys.join().includes(cookie)], [100, false]);
  const options = { fallbacks: ["an older key of the tests"], lifetime: 100 };
  const signed = new CookieSessionStore(KEY, options).named("prefs");
  const old = new CookieSessionStore("an older key of the tests").named("prefs");
  assertEquals((await signed.create({ count: 1 })).ttl, 100);
  assertEquals((await signed.load((await old.create({ count: 2 })).cookie))?.data, { count: 2 });
});

Deno.test("a second session needs a store that keeps it apart", () => {
  const { load, create, update, rotate, destroy, lifetime } = new CookieSessionStore(KEY);
  const store = { load, create, update, rotate, destroy, lifetime };
  assertMatch(
    String(assertThrows(() => sessions({ store, schema: Prefs, name: "prefs" }))),
    /Cannot keep the session "prefs": its store has no method "named"/,
  );
});

Deno.test("the same middleware registered twice gives one session", async () => {
  const middleware = sessions({ store: new CookieSessionStore(KEY), schema: Counted });
  const app = new Hono().use(middleware).use("/sub/*", middleware).get("/sub/count", async (c) => {
    await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
    const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
    return c.json({ count });
  });
  const response = await app.request("/sub/count");
  assertEquals(await response.json(), { count: 2 });
  assertEquals(response.headers.getSetCookie().length, 1);
});

Deno.test("two sessions with one cookie name are an error at the first request", async () => {
  const store = new CookieSessionStore(KEY);
  const app = new Hono()
    .use(sessions({ store, schema: Counted }))
    .use(sessions({ store, schema: Prefs, name: "prefs", cookie: { name: "session" } }))
    .get("/", (c) => c.text(""));
  const logged = captureErrors();
  assertEquals((await app.request("/")).status, 500);
  assertMatch(
    logged.end(),
    /TypeError: Cannot keep c\.var\.prefs in the cookie "session", which has c\.var\.session: give/,
  );
});

Deno.test("two sessions send Vary: Cookie once, however the response is made", async () => {
  const store = new CookieSessionStore(KEY);
  const app = new Hono()
    .use(sessions({ store, schema: Counted }))
    .use(sessions({ store, schema: Prefs, name: "prefs" }))
    .use(async (c, next) => {
      await c.var.session.update((s) => ({ ...s, count: 1 }));
      await c.var.prefs.update((s) => ({ ...s, theme: "dark" }));
      await next();
    })
    .get("/text", (c) => c.text(""))
    .get("/session", (c) => c.var.session.response(""))
    .get("/prefs", (c) => c.var.prefs.response(""))
    .get("/error", () => {
      throw new HTTPException(404);
    });
  for (const path of ["/text", "/session", "/prefs", "/error"]) {
    const { headers } = await app.request(path);
    assertEquals(headers.get("Vary"), "Cookie", path);
    assertEquals(headers.getSetCookie().length, 2, path);
  }
});

Deno.test("the error of one session leaves the other's cookie, and that no cache may keep it", async () => {
  const store = new CookieSessionStore(KEY);
  const app = new Hono()
    .use(sessions({ store, schema: Counted }))
    .use(sessions({ store, schema: Prefs, name: "prefs" }))
    .get("/", async (c) => {
      c.var.session.update(() => ({ count: 0.5 }));
      await c.var.prefs.update(() => ({ theme: "dark" }));
      return c.text("");
    })
    .onError((_, c) => c.text("", 410));
  const { status, headers } = await app.request("/");
  assertEquals([status, headers.get("Cache-Control")], [410, "no-store"]);
  assertMatch(headers.get("Set-Cookie") ?? "", /^prefs=/);
});

Deno.test("two sessions of one name are an error at the first request", async () => {
  const store = new CookieSessionStore(KEY);
  const app = new Hono()
    .use(sessions({ store, schema: Counted }))
    .use(sessions({ store, schema: Counted }))
    .get("/", (c) => c.text(""));
  const logged = captureErrors();
  assertEquals((await app.request("/")).status, 500);
  assertMatch(logged.end(), /Cannot set c\.var\.session, it is set already: .* a name of its own/);
});

for (const kind of KINDS) {
  Deno.test(`of two cookies of one name the living one is used, kept in a ${kind}`, async () => {
    await using memory = scoped(memoryStore());
    const app = testApp({ store: sessionStore(kind, memory) });
    const owner = new Browser(app);
    await owner.post("/count");
    for (const dead of [crypto.randomUUID(), "expired.or.forged", ""]) {
      const headers = { Cookie: `theme=x; session=${dead}; session=${owner.cookie}` };
      const read = await app.request("/read", { headers });
      assertEquals(await read.json(), { count: 1 }, dead);
      const counted = await app.request("/count", { method: "POST", headers });
      assertEquals(await counted.json(), { count: 2 }, dead);
      const [cookie] = counted.headers.getSetCookie();
      if (kind === "store") {
        assertMatch(cookie ?? "", new RegExp(`^session=${owner.cookie};`));
        await owner.post("/set", { count: 1 });
      }
    }
    assertEquals((await memory.list("")).keys.length, kind === "store" ? 1 : 0);
  });
}

/** An app whose `/logout` reads before, as a middleware does that looks who is logged in. */
function readingFirst(memory: Store) {
  return testApp({ store: new KeyValueSessionStore(memory) }).post("/logout", async (c) => {
    await c.var.session.read();
    await c.var.session.destroy();
    return c.redirect("/", 303);
  });
}

Deno.test("a logout ends the sessions of all cookies that the browser sent", async () => {
  await using memory = scoped(memoryStore());
  const app = readingFirst(memory);
  for (const path of ["/destroy", "/logout"]) {
    const [one, two] = [new Browser(app), new Browser(app)];
    await one.post("/count");
    await two.post("/count");
    const dead = crypto.randomUUID();
    const headers = { Cookie: `session=${dead}; session=${one.cookie}; session=${two.cookie}` };
    assertEquals((await app.request(path, { method: "POST", headers })).status, 303);
    assertEquals((await memory.list("")).keys, [], path);
  }
});

Deno.test("a cookie whose name begins with what a browser does not trim is another one", async () => {
  const store = new CookieSessionStore(KEY);
  const app = testApp({ store });
  const [mine, planted] = [await store.create({ count: 1 }), await store.create({ count: 9 })];
  const read = async (Cookie: string) =>
    (await (await app.request("/read", { headers: { Cookie } })).json()).count;
  // A browser accepts this name from a subdomain, also with __Host- after it.
  assertEquals(await read(`\u00a0session=${planted.cookie}; session=${mine.cookie}`), 1);
  assertEquals(await read(`session=${mine.cookie}; \u00a0session=${planted.cookie}`), 1);
  assertEquals(await read(` \t session=${planted.cookie}`), 9);
});

Deno.test("a logout finds its session behind many cookies that are the same", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const { cookie } = await store.create({ count: 1 });
  const headers = { Cookie: `${"session=x; ".repeat(20)}session=${cookie}` };
  const response = await testApp({ store }).request("/destroy", { method: "POST", headers });
  assertEquals(response.status, 303);
  assertEquals(await store.load(cookie), null);
});

Deno.test("a permanent session found among several cookies is renewed in the browser, too", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const store = new KeyValueSessionStore(memory, { lifetime: 1000, now });
  const app = testApp({ store, permanent: true });
  const browser = new Browser(app);
  await browser.post("/count");
  pass(500);
  const headers = { Cookie: `session=${crypto.randomUUID()}; session=${browser.cookie}` };
  const response = await app.request("/read", { headers });
  assertEquals(await response.json(), { count: 1 });
  assertMatch(response.headers.get("Set-Cookie") ?? "", /; Max-Age=1000;/);
});

Deno.test("a logout ends the living session also after an id that was rotated away", async () => {
  await using memory = scoped(memoryStore());
  const app = testApp({ store: new KeyValueSessionStore(memory) });
  const [rotated, living] = [new Browser(app), new Browser(app)];
  for (const browser of [rotated, living]) await browser.post("/count");
  const headers = { Cookie: `session=${rotated.cookie}; session=${living.cookie}` };
  await rotated.post("/rotate");
  assertEquals((await app.request("/destroy", { method: "POST", headers })).status, 409);
  assertEquals(await memory.get(living.cookie ?? ""), null);
});

Deno.test("a logout after a read takes no offence at an id that was rotated away", async () => {
  await using memory = scoped(memoryStore());
  const app = readingFirst(memory);
  for (const rotatedFirst of [true, false]) {
    const [rotated, living] = [new Browser(app), new Browser(app)];
    for (const browser of [rotated, living]) await browser.post("/count");
    const cookies = [`session=${rotated.cookie}`, `session=${living.cookie}`];
    await rotated.post("/rotate");
    const headers = { Cookie: (rotatedFirst ? cookies : cookies.reverse()).join("; ") };
    const response = await app.request("/logout", { method: "POST", headers });
    assertEquals(response.status, 303);
    assertMatch(response.headers.get("Set-Cookie") ?? "", /^session=; Max-Age=0/);
    assertEquals(await memory.get(living.cookie ?? ""), null);
  }
});

Deno.test("an id that was rotated away, beside the living one, is not used", async () => {
  await using memory = scoped(memoryStore());
  const app = testApp({ store: new KeyValueSessionStore(memory) });
  const browser = new Browser(app);
  await browser.post("/count");
  const old = browser.cookie;
  await browser.post("/rotate");
  const headers = { Cookie: `session=${old}; session=${browser.cookie}` };
  assertEquals(await (await app.request("/read", { headers })).json(), { count: 1 });
});

Deno.test("of two ids that were both rotated away none begins a new session", async () => {
  await using memory = scoped(memoryStore());
  const app = testApp({ store: new KeyValueSessionStore(memory) });
  const browsers = [new Browser(app), new Browser(app)];
  for (const browser of browsers) await browser.post("/count");
  const headers = { Cookie: browsers.map(({ cookie }) => `session=${cookie}`).join("; ") };
  for (const browser of browsers) await browser.post("/rotate");
  const response = await app.request("/count", { method: "POST", headers });
  assertEquals([response.status, response.headers.get("Set-Cookie")], [409, null]);
});

Deno.test("of a hundred cookies of one name only a few cost a call to the store", async () => {
  await using memory = scoped(memoryStore());
  let calls = 0;
  const store = new KeyValueSessionStore(storeWith(memory, () => calls++));
  const cookies = Array.from({ length: 100 }, () => `session=${crypto.randomUUID()}`);
  const headers = { Cookie: cookies.join("; ") };
  const response = await testApp({ store }).request("/read", { headers });
  assertEquals(await response.json(), { count: 0 });
  assert(calls > 0 && calls <= 16, `${calls} calls`);
});

Deno.test("a session says what was sent, what will be, which one it is and until when", async () => {
  await using memory = scoped(memoryStore());
  const { now } = testClock();
  const store = new KeyValueSessionStore(memory, { lifetime: 100, now });
  const app = new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
    const { session } = c.var;
    const before = [session.setCookie, session.handle, session.expires];
    await session.update((s) => ({ ...s, count: s.count + 1 }));
    const { cookie, setCookie, handle, expires } = session;
    return c.json({ before, cookie, setCookie, handle, expires });
  });
  const browser = new Browser(app);
  await browser.get("/");
  const id = browser.cookie ?? "";
  const { before, cookie, setCookie, handle, expires } = await browser.get("/") as {
    [key: string]: unknown;
  };
  assertEquals(before, [null, null, null]);
  assertEquals(cookie, id);
  assertEquals(setCookie, browser.setCookie);
  assertEquals(handle, createHash("sha256").update(id).digest("hex"));
  assertEquals(expires, new Date(now() + 100_000).toISOString());
});

Deno.test("a session has no handle and no end before a call has found it", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
    await c.var.session.read().catch(() => {});
    return c.json([c.var.session.handle, c.var.session.expires]);
  });
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  assertEquals(await (await app.request("/", { headers })).json(), [null, null]);
});

Deno.test("a session in a signed cookie has no handle, and rotation changes a store's", async () => {
  await using memory = scoped(memoryStore());
  for (const store of [new CookieSessionStore(KEY), new KeyValueSessionStore(memory)]) {
    const app = new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
      const { session } = c.var;
      await session.update((s) => ({ ...s }));
      const first = session.handle;
      await session.rotate();
      const second = session.handle;
      await session.destroy();
      return c.json([first, second, session.handle, session.expires]);
    });
    const [first, second, ...after] = await (await app.request("/")).json();
    assertEquals(after, [null, null]);
    if (store instanceof CookieSessionStore) assertEquals([first, second], [null, null]);
    else assertNotEquals(first, second);
  }
});
