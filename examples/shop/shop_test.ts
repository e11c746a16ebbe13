/** The shop, as its visitors see it. No test needs a server or waits. */
import { CookieSessionStore, KeyValueSessionStore } from "@counter/sessions";
import { StoreUnavailable } from "@counter/sessions/stores";
import { memoryStore } from "@counter/sessions/stores/memory";
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import type { Hono } from "hono";
import type { Env } from "./session.ts";
import { shop } from "./shop.tsx";

/** Keeps cookies and follows redirects, as a browser does. */
class Browser {
  readonly cookies = new Map<string, string>();
  readonly #app: Hono<Env>;

  constructor(app: Hono<Env>) {
    this.#app = app;
  }

  async request(
    path: string,
    init: RequestInit & { headers?: Record<string, string> } = {},
  ): Promise<Response> {
    const headers = new Headers({ Origin: "http://localhost", ...init.headers });
    headers.set(
      "Cookie",
      Array.from(this.cookies, ([name, value]) => `${name}=${value}`).join("; "),
    );
    const response = await this.#app.request(path, { ...init, headers });
    for (const header of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(header) ?? [];
      this.cookies.set(name, value);
    }
    return response;
  }

  async get(path: string): Promise<string> {
    return await (await this.request(path)).text();
  }

  /** Sends a form, and returns the page that the redirect leads to. */
  async post(path: string, form: Record<string, string> = {}): Promise<string> {
    const response = await this.request(path, { method: "POST", body: new URLSearchParams(form) });
    assertEquals(response.status, 303);
    return await this.get(response.headers.get("Location") ?? "");
  }

  async json(path: string, body?: unknown): Promise<unknown> {
    const put = {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    };
    return await (await this.request(path, body === undefined ? {} : put)).json();
  }
}

function testShop(name: string, run: (browser: Browser) => Promise<void>): void {
  Deno.test(`shop() ${name}`, async () => {
    const memory = memoryStore();
    const preferences = new CookieSessionStore("a secret key of 16 characters or more");
    await run(new Browser(shop({ visits: new KeyValueSessionStore(memory), preferences })));
    await memory.close();
  });
}

const ADA = { user: "ada", password: "analytical" };

testShop("shows a message once", async (browser) => {
  assertMatch(await browser.post("/basket/tea"), /Green tea is in your basket/);
  assertNotMatch(await browser.get("/"), /is in your basket/);
});

testShop(
  "keeps the basket at a login, under a new id, and drops it at the logout",
  async (browser) => {
    await browser.post("/basket/tea");
    const id = browser.cookies.get("session");
    assertMatch(await browser.post("/login", ADA), /Welcome, ada/);
    assert(browser.cookies.get("session") !== id);
    assertEquals(await browser.json("/api/basket"), { basket: { tea: 1 }, total: 450 });
    assertMatch(await browser.post("/logout"), /Log in/);
    assertEquals(await browser.json("/api/basket"), { basket: {}, total: 0 });
  },
);

testShop("rejects a wrong password", async (browser) => {
  const page = await browser.post("/login", { ...ADA, password: "synthetic" });
  assertMatch(page, /The name or the password is wrong/);
});

testShop("remembers only who asks for it after the browser is closed", async (browser) => {
  const login = async (form: Record<string, string>) => {
    const body = new URLSearchParams(form);
    return (await browser.request("/login", { method: "POST", body })).headers.get("Set-Cookie");
  };
  assertNotMatch(await login(ADA) ?? "", /Max-Age/);
  assertMatch(await login({ ...ADA, remember: "on" }) ?? "", /Max-Age=2678400/);
});

testShop("keeps the theme after a logout", async (browser) => {
  await browser.post("/login", ADA);
  assertMatch(await browser.post("/theme"), /color-scheme: dark/);
  assertMatch(await browser.post("/logout"), /color-scheme: dark/);
});

testShop("counts two clicks at the same time", async (browser) => {
  await browser.post("/basket/cup");
  await Promise.all([browser.post("/basket/cup"), browser.post("/basket/cup")]);
  assertEquals(await browser.json("/api/basket"), { basket: { cup: 3 }, total: 3750 });
});

testShop("takes an order from a user only, and then empties the basket", async (browser) => {
  await browser.post("/basket/pot");
  assertMatch(await browser.post("/basket/order"), /Please log in to order/);
  await browser.post("/login", ADA);
  assertMatch(await browser.post("/basket/order"), /You ordered for €39.00/);
  assertEquals(await browser.json("/api/basket"), { basket: {}, total: 0 });
});

testShop("changes the basket by JSON, and says what is wrong with a request", async (browser) => {
  assertEquals(await browser.json("/api/basket/tea", 2), { basket: { tea: 2 }, total: 900 });
  assertEquals(await browser.json("/api/basket/tea", 0), { basket: {}, total: 0 });
  const error = "Expected a product and a number from 0 to 99";
  assertEquals(await browser.json("/api/basket/tea", "many"), { error });
  assertEquals(await browser.json("/api/basket/car", 1), { error });
});

testShop("rejects the forms of other sites", async (browser) => {
  const headers = { Origin: "https://evil.example" };
  const response = await browser.request("/logout", { method: "POST", headers });
  assertEquals(response.status, 403);
});

Deno.test("shop() asks to wait if the store is down, and leaves the cookie alone", async () => {
  const down = () =>
    Promise.reject(new StoreUnavailable("The store is down", { outcome: "unchanged" }));
  const visits = new KeyValueSessionStore({ get: down, set: down, delete: down });
  const preferences = new CookieSessionStore("a secret key of 16 characters or more");
  const log = console.error;
  const logged: unknown[] = [];
  console.error = (error) => logged.push(error);
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  const response = await shop({ visits, preferences }).request("/", { headers });
  console.error = log;
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("Set-Cookie"), null);
  assertMatch(await response.text(), /Your basket is safe/);
  assert(logged[0] instanceof StoreUnavailable);
});
