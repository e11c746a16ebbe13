/** An app with sessions, and browsers that visit it. */
import { assertEquals } from "@std/assert";
import { Hono } from "hono";
import { z } from "zod";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  type LifetimeOptions,
  sessions,
  type SessionsOptions,
} from "../../sessions.ts";
import { memoryStore } from "../../stores/memory.ts";
import type { Store } from "../../stores/store.ts";

/** The secret key of the tests. */
export const KEY = "a secret key for tests alone";

/** What a session of the tests holds. */
export const Counted = z.looseObject({ count: z.number().int().default(0) });

/** An app with one route for each thing that a session can do. */
export function testApp(options: Omit<SessionsOptions<object>, "schema">) {
  return new Hono()
    .use(sessions({ ...options, schema: Counted }))
    .get("/untouched", (c) => c.text("hello"))
    .get("/read", async (c) => c.json(await c.var.session.read()))
    .post("/count", async (c) => {
      const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
      return c.json({ count });
    })
    .post("/set", async (c) => {
      const body = await c.req.json<Record<string, unknown>>();
      return c.json(await c.var.session.update((s) => ({ ...s, ...body })));
    })
    .post("/unchanged", async (c) => c.json(await c.var.session.update((s) => s)))
    .post("/rotate", async (c) => {
      await c.var.session.rotate();
      return c.json(await c.var.session.read());
    })
    .post("/destroy", async (c) => {
      await c.var.session.destroy();
      return c.redirect("/", 303);
    });
}

/** A browser that keeps one cookie and sends it. */
export class Browser {
  cookie: string | null = null;
  /** The last response's `Set-Cookie`. */
  setCookie: string | null = null;

  constructor(
    readonly app: { request(url: string, init?: RequestInit): Response | Promise<Response> },
    readonly origin = "http://localhost",
  ) {}

  async request(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.cookie !== null && !headers.has("Cookie")) {
      headers.set("Cookie", `session=${this.cookie}`);
    }
    const response = await this.app.request(this.origin + path, { ...init, method, headers });
    this.setCookie = response.headers.get("Set-Cookie");
    if (this.setCookie !== null) {
      this.cookie = /^session=([^;]*)/.exec(this.setCookie)?.[1] || null;
    }
    return response;
  }

  async get(path: string): Promise<unknown> {
    return await (await this.request("GET", path)).json();
  }

  async post(path: string, body?: unknown): Promise<unknown> {
    const init = body === undefined ? {} : { body: JSON.stringify(body) };
    return await (await this.request("POST", path, init)).json();
  }
}

/** Checks that every use of the session is a 503 that leaves the cookie, and that other pages work. */
export async function assertUnavailable(browser: Browser): Promise<void> {
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
    assertEquals(response.headers.get("Set-Cookie"), null, "never a new identity");
    await response.body?.cancel();
  }
  assertEquals((await browser.request("GET", "/untouched")).status, 200);
}

/** The two ways to keep sessions, for tests that hold for both. */
export const KINDS = ["cookie", "store"] as const;

/** Returns a session store of this kind, which keeps its sessions in a cookie or in `memory`. */
export function sessionStore(
  kind: typeof KINDS[number],
  memory: Store,
  options: LifetimeOptions = {},
) {
  return kind === "cookie"
    ? new CookieSessionStore(KEY, options)
    : new KeyValueSessionStore(memory, options);
}

/** Runs `check` with an app whose sessions are kept in memory, and with that memory. */
export async function withMemory(
  check: (app: ReturnType<typeof testApp>, memory: Store) => Promise<void>,
  { hashIds = false, ...options }: Partial<SessionsOptions<object>> & { hashIds?: boolean } = {},
): Promise<void> {
  const memory = memoryStore();
  const store = new KeyValueSessionStore(memory, { hashIds });
  try {
    await check(testApp({ store, ...options }), memory);
  } finally {
    await memory.close();
  }
}
