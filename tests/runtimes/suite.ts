/**
 * What the npm package promises on Node and Bun: `tests/e2e/runtimes_test.ts` copies this file beside
 * an installed package, and runs it there. The services are served by what the runtime has.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Hono } from "hono";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { kv } from "../../kv.ts";
import { CookieSessionStore, KeyValueSessionStore, sessions } from "../../sessions.ts";
import { httpStore } from "../../stores/http/store.ts";
import { json } from "../../stores/json/text.ts";
import { memoryStore } from "../../stores/memory.ts";
import { openStore } from "../../stores/open.ts";
import { sqliteStore } from "../../stores/sqlite/store.ts";
import { type Store, StoreUnavailable } from "../../stores/store.ts";
import { sessionsConformance } from "../conformance/sessions.ts";
import { openWithClock, storeConformance } from "../conformance/store.ts";
import { runTests, testWith } from "./programs.ts";
import { serve } from "./serve.ts";

const test = (name: string, run: () => Promise<void>) => testWith([], name, run);
const KEY = "a secret key for tests alone";

storeConformance("memoryStore", {
  ordered: true,
  open: () => openWithClock((now) => memoryStore({ now })),
});
storeConformance("sqliteStore", {
  ordered: true,
  open: () => openWithClock((now) => sqliteStore(":memory:", { now })),
});
storeConformance("httpStore over kv()", {
  ordered: true,
  async open() {
    const below = await openWithClock((now) => memoryStore({ now }));
    const server = await serve(kv(below.store).fetch);
    const store = httpStore(server.url, { deadline: 600_000 });
    return {
      store,
      pass: below.pass,
      async [Symbol.asyncDispose]() {
        await store.close();
        await server.close();
        await below[Symbol.asyncDispose]();
      },
    };
  },
});
const redis = process.env["REDIS_URL"];
if (redis !== undefined) {
  let opened = 0;
  storeConformance("redisStore", {
    ordered: false,
    async open() {
      const store = await openStore(`${redis}?prefix=test${opened++}:`);
      return {
        store,
        pass: (seconds) => delay(seconds * 1000 + 50),
        [Symbol.asyncDispose]: () => store.close(),
      };
    },
  });
}
sessionsConformance("CookieSessionStore", {
  open: (options) => ({
    store: new CookieSessionStore(KEY, options),
    close: () => Promise.resolve(),
  }),
});
sessionsConformance("KeyValueSessionStore", {
  open({ now = Date.now, ...options }) {
    const store = memoryStore({ now });
    return {
      store: new KeyValueSessionStore(store, { now, ...options }),
      close: () => store.close(),
    };
  },
});

test("a service outlives clients that abort large bodies and responses", async () => {
  const store = memoryStore();
  for (let i = 0; i < 100; i++) await store.set(`key${i}`, json("x".repeat(100_000)));
  const server = await serve(kv(store).fetch);
  const { hostname, port } = new URL(server.url);
  const requests = [
    "PUT /key HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n",
    "POST / HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
    "POST / HTTP/1.1\r\nContent-Type: application/x-ndjson\r\nContent-Length: 90000000\r\n",
    "GET / HTTP/1.1\r\nAccept: application/x-ndjson\r\n",
    "GET / HTTP/1.1\r\nAccept: text/event-stream\r\n",
  ];
  for (let i = 0; i < 100; i++) {
    const socket = connect(Number(port), hostname);
    socket.on("error", () => {});
    socket.write(`${requests[i % requests.length]}Host: localhost:${port}\r\n\r\n`);
    if (!requests[i % requests.length]?.startsWith("GET")) socket.write('"'.padEnd(200_000, "x"));
    await delay(i % 7);
    socket.destroy();
  }
  for (let tries = 0;; tries++) {
    const text = await (await fetch(`${server.url}/?metrics`)).text();
    const held = /^kv_held_bytes (\d+)$/m.exec(text)?.[1];
    const watchers = /^kv_watchers (\d+)$/m.exec(text)?.[1];
    if (held === "0" && watchers === "0") break;
    if (tries > 600) assertEquals({ held, watchers }, { held: "0", watchers: "0" });
    await delay(50);
  }
  assertEquals(await (await fetch(`${server.url}/key`)).json(), { key: null });
  await server.close();
  await store.close();
});

test("a quiet stream of changes stays open", async () => {
  const store = memoryStore();
  const server = await serve(kv(store).fetch);
  const response = await fetch(server.url, { headers: { Accept: "text/event-stream" } });
  let received = "";
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  while (!/position[^]*position[^]*\n\n$/.test(received)) {
    const { done = true, value } = await reader?.read() ?? {};
    assert(!done, `The stream has ended after ${JSON.stringify(received)}`);
    received += decoder.decode(value);
  }
  await store.set("a", json(1));
  while (!/"a"/.test(received)) received += decoder.decode((await reader?.read())?.value);
  await reader?.cancel();
  await server.close();
  await store.close();
});

test("an app of another version of Hono uses the sessions", async () => {
  const { Hono: OldHono }: typeof import("hono") = await import(process.env["OLD_HONO"] ?? "");
  const schema = z.object({ count: z.number().int().default(0) });
  const down: Store = {
    ...memoryStore(),
    get: async () => {
      throw new StoreUnavailable("The store is away", { outcome: "unchanged" });
    },
  };
  interface Counting {
    update(change: (data: { count: number }) => { count: number }): Promise<{ count: number }>;
  }
  const counting = (store: Store) =>
    new OldHono<{ Variables: { session: Counting } }>()
      // The types differ, too.
      .use(sessions({ store: new KeyValueSessionStore(store), schema }) as never)
      .get("/", async (c) => {
        const { count } = await c.var.session.update((s) => ({ count: s.count + 1 }));
        return c.text(`Count: ${count}`);
      });
  assert(OldHono as unknown !== Hono, "they are two versions");
  const store = memoryStore();
  const app = counting(store);
  const first = await app.request("/");
  assertEquals([first.status, await first.text()], [200, "Count: 1"]);
  const Cookie = first.headers.get("Set-Cookie")?.split(";")[0] ?? "";
  assertMatch(Cookie, /^session=[\w-]{36}$/);
  assertEquals(await (await app.request("/", { headers: { Cookie } })).text(), "Count: 2");
  const unavailable = await counting(down).request("/", { headers: { Cookie } });
  assertEquals(unavailable.status, 503);
  assertEquals(unavailable.headers.get("Retry-After"), "1");
  assertEquals(unavailable.headers.get("Set-Cookie"), null);
  await store.close();
});

test("a text, a stream and a response of many requests keep their type", async () => {
  const schema = z.object({ count: z.number().int().default(0) });
  const shared = new Response(null, { status: 202 });
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema }))
    .use(async (c, next) => {
      await c.var.session.update((s) => ({ count: s.count + 1 }));
      await next();
    })
    .get("/text", (c) => c.text("text"))
    .get("/plain", () => new Response("text"))
    .get("/plain/own", (c) => c.get("session").response("text"))
    .get("/stream", () => new Response(new Blob(["text"]).stream()))
    .get("/shared", () => shared);
  const server = await serve(app.fetch);
  for (const path of ["/text", "/plain", "/plain/own", "/stream", "/shared", "/shared"]) {
    const response = await fetch(server.url + path);
    const type = response.headers.get("Content-Type") ?? "";
    const expected = path === "/shared" ? "" : "text";
    assertEquals(await response.text(), expected, path);
    if (/text|plain/.test(path)) assertMatch(type, /^text\/plain/, path);
    assertEquals(response.headers.getSetCookie().length, 1, path);
  }
  assertEquals([...shared.headers], [], "what the handler gives again");
  await server.close();
});

await runTests();
