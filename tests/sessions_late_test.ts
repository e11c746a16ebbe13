/** Calls after the response has begun, and calls that nobody awaits. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { Hono } from "hono";
import { stream } from "hono/streaming";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  type Session,
  sessions,
  SessionUnavailable,
} from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { testClock } from "./helpers/clock.ts";
import { brokenStore, countingStore } from "./helpers/faulty_stores.ts";
import { Browser, Counted, KEY, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

Deno.test("a stream reads its session afresh, and changes it on a store", async () => {
  await using memory = scoped(memoryStore());
  const app = testApp({ store: new KeyValueSessionStore(memory) }).get("/stream", async (c) => {
    const { session } = c.var;
    await session.read();
    return stream(c, async (out) => {
      await delay(5);
      await browser.post("/count"); // another request, meanwhile
      const { count } = await session.read();
      const updated = await session.update((s) => ({ ...s, count: s.count + 10 }));
      await out.write(`${count} ${updated.count}`);
    });
  });
  const browser = new Browser(app);
  await browser.post("/count");
  const response = await browser.request("GET", "/stream");
  assertEquals(await response.text(), "2 12");
  assertEquals(response.headers.get("Set-Cookie"), null);
  assertEquals(await browser.get("/read"), { count: 12 });
});

Deno.test("a stream that reads its session leaves the renewal to a page, which sends the cookie", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const store = new KeyValueSessionStore(memory, { lifetime: 100, now });
  let late: Session<object> | undefined;
  const app = testApp({ store, permanent: true }).get("/late", (c) => {
    late = c.var.session;
    return c.text("");
  });
  const browser = new Browser(app);
  await browser.post("/count");
  await browser.request("GET", "/late");
  pass(20);
  assertEquals(await late?.read(), { count: 1 });
  await browser.get("/read");
  assertMatch(browser.setCookie ?? "", /; Max-Age=100;/);
  pass(99);
  assertEquals(await late?.update((s) => s), { count: 1 });
  pass(88);
  assertEquals(await late?.read(), { count: 1 });
  pass(1);
  assertEquals(await late?.read(), { count: 0 }, "nothing but the stream has read it");
});

Deno.test("a signed cookie ends in a stream that reads it, as it does in the browser", async () => {
  const { now, pass } = testClock();
  const store = new CookieSessionStore(KEY, { lifetime: 100, now });
  let late: Session<{ count: number }> | undefined;
  const app = testApp({ store }).get("/late", (c) => {
    late = c.var.session;
    return c.text("");
  });
  const browser = new Browser(app);
  await browser.post("/count");
  await browser.request("GET", "/late");
  for (let i = 0; i < 5; i++) {
    pass(20);
    assertEquals(await late?.read(), { count: 1 });
  }
  pass(1);
  assertEquals(await late?.read(), { count: 0 });
});

Deno.test("a stream that changes its session lets the next page send the cookie, and seldom", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore({ now }));
  const counting = countingStore(memory);
  const store = new KeyValueSessionStore(counting, { lifetime: 1000, now });
  let late: Session<{ count: number }> | undefined;
  const app = testApp({ store, permanent: true }).get("/late", (c) => {
    late = c.var.session;
    return c.text("");
  });
  const changes: [(s: { count: number }) => { count: number }, number][] = [
    [(s) => ({ ...s }), 300],
    [(s) => s, 0],
  ];
  for (const [change, writes] of changes) {
    const browser = new Browser(app);
    await browser.post("/count");
    await browser.request("GET", "/late");
    counting.writes = 0;
    let renewals = 0;
    let end = now() + 1000_000;
    for (let i = 0; i < 300; i++) {
      pass(10);
      assert(now() < end, "the browser still has the cookie");
      await late?.update(change);
      assertEquals(await browser.get("/read"), { count: 1 });
      const maxAge = /; Max-Age=(\d+);/.exec(browser.setCookie ?? "")?.[1];
      if (maxAge === undefined) continue;
      renewals++;
      end = now() + Number(maxAge) * 1000;
    }
    assertEquals(renewals, 27);
    assertEquals(counting.writes - renewals, writes);
  }
});

Deno.test("a session can be ended after the response, and not be created again", async () => {
  await using memory = scoped(memoryStore());
  let late: Session<{ count: number }> | undefined;
  const app = testApp({ store: new KeyValueSessionStore(memory) }).get("/late", (c) => {
    late = c.var.session;
    return c.text("");
  });
  const browser = new Browser(app);
  await browser.post("/count");
  await browser.request("GET", "/late");
  await late?.destroy();
  assertEquals((await memory.list("")).keys, []);
  const update = () => late?.update(() => ({ count: 1 })) ?? Promise.resolve();
  assertMatch(String(await assertRejects(update)), /Cannot create the session, its cookie can no/);
  assertEquals((await memory.list("")).keys, []);
  assertEquals(await late?.read(), { count: 0 });
});

Deno.test("a signed cookie cannot be removed after the response", async () => {
  let late: Session<{ count: number }> | undefined;
  const app = testApp({ store: new CookieSessionStore(KEY) }).get("/late", (c) => {
    late = c.var.session;
    return c.text("");
  });
  await app.request("/late");
  const destroy = () => late?.destroy() ?? Promise.resolve();
  await assertRejects(
    destroy,
    Error,
    "Cannot destroy the session, its cookie can no longer be sent",
  );
});

Deno.test("a call that follows one which nobody awaits is done before the headers, too", async () => {
  const app = testApp({ store: new CookieSessionStore(KEY) }).get("/forgotten", (c) => {
    const count = () => c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
    count().then(count);
    return c.text("");
  });
  const browser = new Browser(app);
  await browser.request("GET", "/forgotten");
  assertEquals(await browser.get("/read"), { count: 2 });
});

Deno.test("a call that nobody awaits and that fails after the response is logged, and ends nothing", async () => {
  await using memory = scoped(memoryStore());
  let isBroken = false;
  const stores = [
    new CookieSessionStore(KEY),
    new KeyValueSessionStore(brokenStore(memory, () => isBroken)),
  ];
  for (const store of stores) {
    const app = testApp({ store }).get("/forgotten", (c) => {
      setTimeout(() => {
        isBroken = true;
        c.var.session.update((s) => ({ ...s, count: 5 }));
      }, 0);
      return c.text("hello");
    });
    const browser = new Browser(app);
    await browser.post("/count");
    const logged = captureErrors();
    const response = await browser.request("GET", "/forgotten");
    assertEquals([response.status, await response.text()], [200, "hello"]);
    await delay(20);
    assertMatch(logged.end(), /A session's call failed, and nothing awaited it: (Error|Http|Sess)/);
    isBroken = false;
    assertEquals(await browser.get("/read"), { count: 1 });
  }
});

Deno.test("reading in onError, after a call that nobody awaited has failed, leaves the first error", async () => {
  await using memory = scoped(memoryStore());
  let isBroken = false;
  const store = new KeyValueSessionStore(brokenStore(memory, () => isBroken));
  const seen: unknown[] = [];
  const app = new Hono<{ Variables: { session: Session<{ count: number }> } }>()
    .use(sessions({ store, schema: Counted }))
    .get("/", (c) => {
      isBroken = true;
      c.var.session.update((s) => ({ ...s, count: 5 }));
      return c.text("");
    });
  app.onError(async (error, c) => {
    seen.push(error);
    isBroken = false;
    const { count } = await c.var.session.read();
    return c.text(`${count}`, 503);
  });
  const response = await app.request("/");
  assertEquals([response.status, await response.text()], [503, "0"]);
  assertEquals(seen.map((error) => error instanceof SessionUnavailable), [true]);
});
