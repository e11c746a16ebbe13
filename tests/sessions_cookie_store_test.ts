/** Sessions in a signed cookie. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { deflateSync } from "node:zlib";
import { Hono } from "hono";
import { z } from "zod";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  sessions,
  SessionTooLarge,
} from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { sessionsConformance } from "./conformance/sessions.ts";
import { testClock } from "./helpers/clock.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { flaskCookie } from "./helpers/flask_cookie.ts";
import { Browser, KEY, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

sessionsConformance("CookieSessionStore", {
  open: (options) => ({
    store: new CookieSessionStore(KEY, options),
    close: () => Promise.resolve(),
  }),
});

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
    return (await new CookieSessionStore(key).create({ count: 1 })).cookie;
  };
  const store = new CookieSessionStore(KEY, { fallbacks: ["an older secret key"] });
  assertEquals((await store.load(await cookieOf(KEY)))?.data, { count: 1 });
  assertEquals((await store.load(await cookieOf("an older secret key")))?.data, { count: 1 });
  assertEquals(await store.load(await cookieOf("another secret key")), null);
  const updated = await store.update(
    await cookieOf("an older secret key"),
    async () => ({ count: 2 }),
  );
  const cookie = updated?.cookie ?? "";
  assertEquals((await new CookieSessionStore(KEY).load(cookie))?.data, { count: 2 });
});

Deno.test("CookieSessionStore takes one digest, not the other", async () => {
  const sha1 = new CookieSessionStore(KEY, { digest: "sha1" });
  const sha256 = new CookieSessionStore(KEY);
  const { cookie } = await sha1.create({ count: 1 });
  assertNotEquals(await sha1.load(cookie), null);
  assertEquals(await sha256.load(cookie), null);
});

Deno.test("CookieSessionStore refuses a key that is too short", () => {
  assertMatch(
    String(assertThrows(() => new CookieSessionStore("short"))),
    /5 characters: expected 16 characters or bytes at least/,
  );
  assertThrows(() => new CookieSessionStore(KEY, { fallbacks: ["short"] }), TypeError);
  new CookieSessionStore("of 16 characters");
});

Deno.test("both session stores refuse an invalid lifetime", async () => {
  await using memory = scoped(memoryStore());
  for (const lifetime of [0, -1, 1.5, NaN, Infinity, 401 * 86400]) {
    assertMatch(
      String(assertThrows(() => new CookieSessionStore(KEY, { lifetime }))),
      /expected whole seconds/,
    );
    assertThrows(() => new KeyValueSessionStore(memory, { absoluteLifetime: lifetime }), TypeError);
    const each = new KeyValueSessionStore(memory).withLifetime(() => lifetime);
    await assertRejects(() => each.create({}), TypeError, "expected whole seconds");
  }
  for (const lifetime of [1, 400 * 86400]) new CookieSessionStore(KEY, { lifetime });
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
  let longest = 0;
  for (let size = 2980; size < 3010; size++) {
    await browser.request("POST", "/", { body: JSON.stringify({ size }) });
    longest = Math.max(longest, browser.setCookie?.length ?? 0);
  }
  assertEquals(longest, 4093);
  const response = await browser.request("POST", "/", { body: '{"size":3100}' });
  assertMatch(await response.text(), /: 4\d\d\d bytes, expected 4093 at most$/);
  assertEquals(browser.setCookie, null);
});

Deno.test("a cookie that Flask has compressed, too large as ours, is read and not sent again", async () => {
  const bytes = deflateSync(JSON.stringify({ count: 5, text: "x".repeat(5000) }));
  const store = new CookieSessionStore(KEY, { digest: "sha1" });
  const browser = new Browser(testApp({ store }));
  browser.cookie = flaskCookie(`.${bytes.toString("base64url")}`, 8 * 24 * 60 * 60, KEY);
  assertEquals((await browser.get("/read") as { count: number }).count, 5);
  assertEquals(browser.setCookie, null);
  assertEquals((await browser.request("POST", "/unchanged")).status, 200);
  assertEquals(browser.setCookie, null);
  const logged = captureErrors();
  assertEquals((await browser.request("POST", "/rotate")).status, 500);
  assertMatch(logged.end(), /SessionTooLarge/);
  assertEquals(browser.setCookie, null);
});

Deno.test("a session too large to rotate stays, also for what follows in the request", async () => {
  const { cookie } = await new CookieSessionStore(KEY).create({ count: 5, text: "x".repeat(2990) });
  const store = new CookieSessionStore(KEY, { encrypt: "read-signed" }); // which takes more room
  const browser = new Browser(
    testApp({ store }).post("/login", async ({ json, var: { session } }) => {
      await assertRejects(() => session.rotate(), SessionTooLarge);
      const { count } = await session.read();
      return json([count, (await session.update((s) => ({ ...s, text: "" }))).count]);
    }),
  );
  browser.cookie = cookie;
  assertEquals(await browser.post("/login"), [5, 5]);
  assertEquals(await browser.get("/read"), { count: 5, text: "" });
});

Deno.test("a secret key may be bytes that are no text, as Flask's own example", async () => {
  const key = Uint8Array.from('_5#y2L"F4Q8z\n\xec]/', (char) => char.charCodeAt(0));
  const signed = new CookieSessionStore(key, { digest: "sha1" });
  const payload = Buffer.from('{"count":5}').toString("base64url");
  assertEquals((await signed.load(flaskCookie(payload, 5, key)))?.data, { count: 5 });
  const encrypted = new CookieSessionStore(key, { encrypt: true });
  const { cookie } = await encrypted.create({ count: 6 });
  const later = new CookieSessionStore(KEY, { encrypt: true, fallbacks: [key] });
  assertEquals((await later.load(cookie))?.data, { count: 6 });
  assertThrows(() => new CookieSessionStore(key.slice(1)), TypeError, "a secret key of 15 bytes");
});

Deno.test("a compressed cookie is not inflated beyond 64 KiB", async () => {
  const store = new CookieSessionStore(KEY, { digest: "sha1" });
  for (const [size, isRead] of [[60_000, true], [3_000_000, false]] as const) {
    const bytes = deflateSync(JSON.stringify({ count: 5, text: "x".repeat(size) }));
    const cookie = flaskCookie(`.${bytes.toString("base64url")}`, 5, KEY);
    assert(cookie.length < 4093);
    // What is not inflated is data that no schema accepts.
    assertEquals(typeof (await store.load(cookie))?.data, isRead ? "object" : "string");
  }
});

Deno.test("a cookie longer than browsers send is not verified", async () => {
  for (const encrypt of [false, true]) {
    for (const [size, isRead] of [[2900, true], [3100, false]] as const) {
      const { cookie } = await new CookieSessionStore(KEY, { encrypt })
        .create({ text: "x".repeat(size) });
      const session = await new CookieSessionStore(KEY, { encrypt }).load(cookie);
      assertEquals(session !== null, isRead, `${cookie.length} characters`);
    }
  }
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

Deno.test("an absolute lifetime ends a session from before it was set, even if it is only read", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const limited = { absoluteLifetime: 100, now };
  for (
    const [before, store] of [
      [new CookieSessionStore(KEY, { now }), new CookieSessionStore(KEY, limited)],
      [new KeyValueSessionStore(memory, { now }), new KeyValueSessionStore(memory, limited)],
    ] as const
  ) {
    const { cookie } = await before.create({ count: 1 });
    const loaded = await store.load(cookie);
    assertEquals(loaded?.data, { count: 1 });
    pass(101);
    assertEquals(await store.load(loaded?.cookie ?? ""), null);
  }
});

/** What a browser sends that has both cookies, in the order of their creation. */
const both = (...cookies: (string | null)[]) => ({
  Cookie: cookies.map((cookie) => `session=${cookie}`).join("; "),
});

Deno.test("of several cookies of one name the youngest signature counts, wherever it stands", async () => {
  const { now, pass } = testClock();
  const store = new CookieSessionStore(KEY, { lifetime: 1000, now });
  const app = testApp({ store });
  const cookies: string[] = [];
  for (const count of [1, 2, 3]) {
    cookies.push((await store.create({ count })).cookie);
    pass(1);
  }
  const [one = "", two = "", three = ""] = cookies;
  for (const order of [[one, two, three], [three, two, one], [two, three, one, "x.y.z"]]) {
    const read = await app.request("/read", { headers: both(...order) });
    assertEquals(await read.json(), { count: 3 });
  }
});

Deno.test("after a deploy changed the cookie's path, updates, logins and logouts take effect", async () => {
  const { now, pass } = testClock();
  const store = new CookieSessionStore(KEY, { now });
  const before = new Browser(testApp({ store }));
  await before.post("/set", { count: 1, user: "ada" });
  pass(60);
  // The new cookie is another one, so the browser sends both, the older one first.
  const after = new Browser(testApp({ store, cookie: { path: "/app" } }));
  const send = async (method: string, path: string) => {
    const cookies = [before.cookie, after.cookie].filter((cookie) => cookie !== null);
    return await (await after.request(method, path, { headers: both(...cookies) })).text();
  };
  assertEquals(await send("POST", "/count"), '{"count":2}');
  pass(1);
  assertEquals(await send("POST", "/count"), '{"count":3}');
  pass(1);
  const { headers } = await after.request("POST", "/destroy", {
    headers: both(before.cookie, after.cookie),
  });
  const cleared = headers.getSetCookie();
  assert(cleared.every((it) => it.startsWith("session=; Max-Age=0; ")));
  assertEquals(cleared.map((it) => /Path=(.*)$/.exec(it)?.[1]), ["/app", "/"]);
});

Deno.test("a login that ends the session before clears its cookie at the path before, too", async () => {
  const store = new CookieSessionStore(KEY);
  const { cookie } = await store.create({ count: 1 });
  for (const calls of ["update", "update twice", "update and rotate"]) {
    const app = testApp({ store, cookie: { path: "/app" } }).post("/login", async (c) => {
      await c.var.session.destroy();
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      if (calls === "update twice") await c.var.session.update((s) => ({ ...s, count: 6 }));
      if (calls === "update and rotate") await c.var.session.rotate();
      return c.var.session.response("Welcome");
    });
    const init = { method: "POST", headers: { Cookie: `session=${cookie}` } };
    const set = (await app.request("/login", init)).headers.getSetCookie();
    assertEquals(set.map((it) => /=(e?).*; Path=(.*)$/.exec(it)?.slice(1)), [["e", "/app"], [
      "",
      "/",
    ]]);
  }
});
