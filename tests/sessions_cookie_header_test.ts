/** The cookie's name and attributes. */
import { assertEquals, assertMatch, assertNotMatch, assertThrows } from "@std/assert";
import { CookieSessionStore, type SessionsOptions } from "../sessions.ts";
import { KEY, testApp } from "./helpers/session_app.ts";

/** What plain JavaScript can give. */
const unchecked = (cookie: object) => cookie as SessionsOptions<object>["cookie"];

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

Deno.test("sessions() takes the scheme from Forwarded behind a trusted proxy", async () => {
  const store = new CookieSessionStore(KEY);
  const setCookie = async (trustProxy: boolean, headers: Record<string, string>) => {
    const app = testApp({ store, trustProxy });
    const response = await app.request("http://x/count", { method: "POST", headers });
    return response.headers.get("Set-Cookie") ?? "";
  };
  for (
    const forwarded of [
      "for=192.0.2.60;proto=https;by=x",
      'Proto="https"',
      "proto=https, proto=http",
    ]
  ) {
    assertMatch(await setCookie(true, { Forwarded: forwarded }), /; Secure/, forwarded);
    assertNotMatch(await setCookie(false, { Forwarded: forwarded }), /Secure/);
  }
  const mixed = { Forwarded: "proto=https", "X-Forwarded-Proto": "http" };
  for (const headers of [{ Forwarded: "proto=http, proto=https" }, { Forwarded: "x" }, mixed]) {
    assertNotMatch(await setCookie(true, headers), /Secure/);
  }
});

Deno.test("sessions() takes what a proxy says of WebSockets for secure, and an empty word for none", async () => {
  const store = new CookieSessionStore(KEY);
  const app = testApp({ store, trustProxy: true });
  const cases: [headers: Record<string, string>, isSecure: boolean][] = [
    [{ "X-Forwarded-Proto": "wss" }, true],
    [{ "X-Forwarded-Proto": "WSS, ws" }, true],
    [{ "X-Forwarded-Proto": "ws" }, false],
    [{ "X-Forwarded-Proto": "httpsx" }, false],
    [{ Forwarded: "proto=wss" }, true],
    [{ Forwarded: 'for="[2001:db8::1]";proto="wss"' }, true],
    [{ Forwarded: "proto=ws" }, false],
    [{ Forwarded: "for=x;x-proto=https" }, false],
    [{ "X-Forwarded-Proto": "", Forwarded: "proto=https" }, true],
    [{ "X-Forwarded-Proto": " ", Forwarded: "proto=wss" }, true],
    [{ "X-Forwarded-Proto": ", http", Forwarded: "proto=https" }, true],
    [{ "X-Forwarded-Proto": "http", Forwarded: "proto=https" }, false],
  ];
  for (const [headers, isSecure] of cases) {
    const response = await app.request("http://x/count", { method: "POST", headers });
    const setCookie = response.headers.get("Set-Cookie") ?? "";
    assertEquals(/; Secure/.test(setCookie), isSecure, JSON.stringify(headers));
  }
  const headers = { "X-Forwarded-Proto": "" };
  const direct = await app.request("https://x/count", { method: "POST", headers });
  assertMatch(direct.headers.get("Set-Cookie") ?? "", /; Secure/);
});

Deno.test("a logout clears each cookie of the name that it can name", async () => {
  const store = new CookieSessionStore(KEY);
  const cleared = async (cookie: SessionsOptions<object>["cookie"]) => {
    const app = testApp({ store, ...cookie && { cookie } });
    const { headers } = await app.request("/destroy", { method: "POST" });
    const attributes = /^session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; (.*)$/;
    return headers.getSetCookie().map((it) => attributes.exec(it)?.[1]);
  };
  const [http, https] = ["HttpOnly", "Secure; HttpOnly"];
  assertEquals(await cleared(undefined), [`${http}; SameSite=Lax; Path=/`]);
  assertEquals(await cleared({ domain: "example.org", path: "/app" }), [
    `${http}; Domain=example.org; SameSite=Lax; Path=/app`,
    `${http}; SameSite=Lax; Path=/app`,
    `${http}; Domain=example.org; SameSite=Lax; Path=/`,
    `${http}; SameSite=Lax; Path=/`,
  ]);
  assertEquals(await cleared({ secure: true, partitioned: true }), [
    `${https}; Partitioned; SameSite=Lax; Path=/`,
    `${https}; SameSite=Lax; Path=/`,
  ]);
});

Deno.test("a logout says in session.response() too what it clears", async () => {
  const app = testApp({ store: new CookieSessionStore(KEY), cookie: { path: "/app" } })
    .post("/made", async (c) => {
      await c.var.session.destroy();
      return c.var.session.response("bye", { headers: { "Vary": "Accept" } });
    })
    .post("/plain", async (c) => {
      await c.var.session.destroy();
      return c.var.session.response("bye");
    });
  for (const path of ["/made", "/plain"]) {
    const { headers } = await app.request(path, { method: "POST" });
    assertEquals(headers.getSetCookie().length, 2, path);
    assertEquals(headers.get("Cache-Control"), "no-store", path);
  }
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
    /^id=[^;]+; Secure; HttpOnly; Partitioned; Domain=example\.org; SameSite=None; Path=\/app$/,
  );
});

Deno.test("sessions() refuses a cookie that breaks its rules, at the start", () => {
  const store = new CookieSessionStore(KEY);
  const bad: [SessionsOptions<object>["cookie"], RegExp][] = [
    [{ name: "a b" }, /Cannot use the cookie "a b": Invalid cookie name/],
    [{ name: "" }, /Cannot use the cookie "": expected a name/],
    [{ path: "app" }, /its path is "app": expected a leading "\/"/],
    [{ path: "/;x" }, /path .*(must not contain|invalid character)/],
    [{ domain: "x;y" }, /domain (must not contain|is "x;y")/],
    [{ domain: "example.org:8000" }, /its domain is "example.org:8000": expected a host name/],
    [{ domain: "https://example.org" }, /its domain is "https/],
    [{ domain: "example.org " }, /its domain is "example.org "/],
    [{ name: "__Host-session" }, /its prefix asks for Secure to be true/],
    [{ name: "__Secure-session", secure: false }, /Secure/],
    [{ name: "__Http-session" }, /its prefix asks for Secure to be true/],
    [{ name: "__Host-session", secure: true, path: "/app" }, /Path/],
    [{ name: "__Host-session", secure: true, domain: "x" }, /Domain/],
    [{ path: "/\u20ac" }, /Cannot use the cookie "session": Cookie path .* invalid character/],
    [{ name: "n".repeat(4000) }, /its name and attributes take \d+ bytes: expected 4000 at most/],
    [{ partitioned: true, secure: false }, /Partitioned/],
    [{ partitioned: true }, /Partitioned asks for Secure to be true/],
    [{ sameSite: "None", secure: false }, /SameSite=None asks for Secure/],
    [{ sameSite: "None" }, /SameSite=None asks for Secure to be true/],
    [
      unchecked({ httpOnly: false }),
      /Cannot use the option "httpOnly" of cookie: expected one of name/,
    ],
    [unchecked({ maxAge: 60 }), /Cannot use the option "maxAge" of cookie/],
    [
      unchecked({ sameSite: "lax" }),
      /Cannot use "lax" as sameSite of cookie: expected "Strict" or/,
    ],
    [
      unchecked({ secure: "yes" }),
      /Cannot use "yes" as secure of cookie: expected boolean or "auto"/,
    ],
  ];
  for (const [cookie, message] of bad) {
    assertMatch(String(assertThrows(() => testApp({ store, ...cookie && { cookie } }))), message);
  }
  testApp({ store, cookie: { name: "__Host-session", secure: true } });
  testApp({ store, cookie: { name: "n".repeat(3900) } });
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
