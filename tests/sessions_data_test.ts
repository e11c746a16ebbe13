/** What session data may be. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Hono } from "hono";
import { z } from "zod";
import {
  CookieSessionStore,
  KeyValueSessionStore,
  SessionDataInvalid,
  sessions,
  type SessionStore,
} from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json/text.ts";
import { testClock } from "./helpers/clock.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { brokenStore, countingStore } from "./helpers/faulty_stores.ts";
import { flaskCookie } from "./helpers/flask_cookie.ts";
import { Browser, KEY, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

/** The error of an update that returns `data`. */
async function refusal(
  store: SessionStore,
  data: object,
  schema: z.ZodType<object> = z.looseObject({}),
) {
  let error: unknown;
  const app = new Hono().use(sessions({ store, schema })).get("/", async (c) => {
    try {
      await c.var.session.update(() => data);
    } catch (caught) {
      error = caught;
    }
    return c.text("");
  });
  const { headers } = await app.request("/");
  assertEquals(headers.get("Set-Cookie"), error === undefined ? headers.get("Set-Cookie") : null);
  return error;
}

Deno.test("update refuses what JSON does not give back as it is, with its path", async () => {
  class Basket {}
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  const bad: [object, RegExp][] = [
    [{ user: { since: new Date(0) } }, /"user\.since" is a Date$/],
    [{ items: [1, { tags: new Set() }] }, /"items\.1\.tags" is a Set$/],
    [{ map: new Map() }, /"map" is a Map$/],
    [{ price: NaN }, /"price" is NaN$/],
    [{ price: Infinity }, /"price" is Infinity$/],
    [{ list: [1, undefined] }, /"list\.1" is undefined$/],
    [{ basket: new Basket() }, /"basket" is a Basket$/],
    [{ id: 5n }, /"id" is bigint$/],
    [{ run: () => 1 }, /"run" is function$/],
    [{ bytes: new Uint8Array(2) }, /"bytes" is a Uint8Array$/],
    [cyclic, /nested over 500 levels/],
    [{ _permanent: true }, /Cannot keep "_permanent" in a session: the name is reserved/],
    [{ _created: 5 }, /Cannot keep "_created" in a session: the name is reserved/],
  ];
  for (const [data, message] of bad) {
    const error = await refusal(new CookieSessionStore(KEY), data);
    assert(error instanceof SessionDataInvalid, String(message));
    assertMatch(error.message, message);
  }
});

Deno.test("both stores keep data that is nested 500 levels deep, and refuse it one level deeper", async () => {
  await using memory = scoped(memoryStore());
  for (const store of [new KeyValueSessionStore(memory), new CookieSessionStore(KEY)]) {
    let list: unknown = [];
    for (let level = 2; level < 500; level++) list = [list];
    assertEquals(await refusal(store, { list }), undefined);
    const error = await refusal(store, { list: [list] });
    assert(error instanceof SessionDataInvalid, String(error));
    assertMatch(error.message, /nested over 500 levels/);
  }
});

Deno.test("both stores refuse the name under which they note the creation", async () => {
  await using memory = scoped(memoryStore());
  for (const store of [new KeyValueSessionStore(memory), new CookieSessionStore(KEY)]) {
    const create = () => store.create({ _created: "2020-01-01" });
    await assertRejects(create, SessionDataInvalid, 'Cannot keep "_created" in a session');
  }
});

Deno.test("update keeps what JSON gives back", async () => {
  const data = { a: null, b: [1, "x", { c: true }], d: undefined, e: Object.create(null), f: -1.5 };
  assertEquals(await refusal(new CookieSessionStore(KEY), data), undefined);
  const nested = { a: JSON.parse("[".repeat(499) + "]".repeat(499)) };
  assertEquals(await refusal(new CookieSessionStore(KEY), nested), undefined);
  // An object that looks like any note of the store's is data like other data.
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const { cookie } = await store.create({ _rotated: true });
  assertEquals((await store.load(cookie))?.data, { _rotated: true });
});

Deno.test("data that does not fit names the path, the schema's words and the app's code", async () => {
  const schema = z.looseObject({ basket: z.array(z.number("A number, please")).default([]) });
  const error = await refusal(new CookieSessionStore(KEY), { basket: [1, "two"] }, schema);
  assert(error instanceof SessionDataInvalid);
  assertMatch(
    error.message,
    /what update\(\(\) ?=> ?data\) gave, does not fit .* basket\.1: A number, please$/,
  );
});

Deno.test("update that returns its argument stores nothing and sends nothing", async () => {
  await using memory = scoped(memoryStore());
  const counting = countingStore(memory);
  for (const store of [new KeyValueSessionStore(counting), new CookieSessionStore(KEY)]) {
    const app = testApp({ store }).post("/same", async (c) => {
      return c.json(await c.var.session.update((s) => s));
    });
    const browser = new Browser(app);
    assertEquals(await browser.post("/same"), { count: 0 });
    assertEquals(browser.setCookie, null, "no session is created");
    await browser.post("/count");
    const { cookie } = browser;
    counting.writes = 0;
    assertEquals(await browser.post("/same"), { count: 1 });
    assertEquals([browser.setCookie, counting.writes], [null, 0]);
    assertEquals(browser.cookie, cookie);
  }
});

Deno.test("update that returns its argument has seen what other processes stored", async () => {
  await using memory = scoped(memoryStore());
  const [here, there] = [new KeyValueSessionStore(memory), new KeyValueSessionStore(memory)];
  const { cookie } = await here.create({ messages: [] });
  await there.update(cookie, () => Promise.resolve({ messages: ["Saved"] }));
  const seen: unknown[] = [];
  const same = (data: unknown) => {
    seen.push(data);
    return Promise.resolve(null);
  };
  assertEquals((await here.update(cookie, same))?.data, { messages: ["Saved"] });
  assertEquals(seen.at(-1), { messages: ["Saved"] });
});

const Items = z.object({ items: z.array(z.string()).default([]) });
for (
  const [promise, schema] of [
    ["update gives frozen data, so that a change in place is an error", Items],
    ["data that the schema has frozen at the outside is frozen within", Items.readonly()],
  ] as const
) {
  Deno.test(promise, async () => {
    const app = new Hono()
      .use(sessions({ store: new CookieSessionStore(KEY), schema }))
      .get("/", async (c) => {
        await c.var.session.update((s) => {
          assertThrows(() => s.items.push("x"), TypeError, "not extensible");
          return s;
        });
        return c.text("");
      });
    const response = await app.request("/");
    assertEquals([response.status, response.headers.get("Set-Cookie")], [200, null]);
  });
}

Deno.test("what read and update return is frozen, so that nobody assigns in vain", async () => {
  const schema = z.object({ user: z.string().default(""), tags: z.array(z.string()).default([]) });
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema }))
    .get("/", async (c) => {
      const read = await c.var.session.read();
      const tags = ["x"];
      const updated = await c.var.session.update((s) => ({ ...s, tags }));
      const again = await c.var.session.read();
      for (const data of [read, updated, again]) {
        // @ts-expect-error: what read and update return is Readonly
        assertThrows(() => data.user = "ada", TypeError, "read only");
        assertThrows(() => data.tags.push("y"), TypeError, "not extensible");
      }
      tags.push("the app's own array stays its own");
      return c.text("");
    });
  assertEquals((await app.request("/")).status, 200);
});

Deno.test("a change in place says what to write instead", async () => {
  const schema = z.object({ user: z.string().default(""), tags: z.array(z.string()).default([]) });
  type Data = { user: string; tags: string[] };
  const inPlace: ((data: Data) => unknown)[] = [
    (s) => s.tags.push("x"),
    (s) => s.user = "ada",
    (s) => delete (s as Partial<Data>).user,
  ];
  const errors: Error[] = [];
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema }))
    .get("/", async (c) => {
      for (const change of inPlace) {
        await c.var.session.update((s) => {
          change(s as Data);
          return s;
        }).catch((error) => errors.push(error));
      }
      return c.text("");
    });
  assertEquals((await app.request("/")).headers.get("Set-Cookie"), null);
  assertEquals(errors.length, 3);
  for (const error of errors) {
    assert(error instanceof SessionDataInvalid);
    assertMatch(
      error.message,
      /in place, in update\(\(s\).*: return new data, as in update\(\(s\) => /,
    );
    assert(error.cause instanceof TypeError);
  }
});

Deno.test("an update that adds a key which the schema drops is an error that names it", async () => {
  const schema = z.object({
    count: z.number().default(0),
    user: z.object({ name: z.string().default("") }).default({ name: "" }),
    basket: z.array(z.object({ id: z.number() })).default([]),
  });
  const bad: [object, RegExp][] = [
    [{ cuont: 1 }, /what update\(.*\) gave, has "cuont", which is not in the schema$/],
    [{ count: 1, toString: 5 }, /has "toString"/],
    [{ user: { name: "ada", nick: "a" } }, /has "user\.nick"/],
    [{ basket: [{ id: 1 }, { id: 2, number: 3 }] }, /has "basket\.1\.number"/],
    [{ Count: 1 }, /has "Count"/],
    [{ cuont: 0 }, /has "cuont"/],
  ];
  for (const [data, message] of bad) {
    const error = await refusal(new CookieSessionStore(KEY), data, schema);
    assert(error instanceof SessionDataInvalid, String(message));
    assertMatch(error.message, message);
  }
  const fine = [{ count: 1, cuont: undefined }, { basket: [{ id: 1 }] }];
  for (const data of fine) {
    assertEquals(await refusal(new CookieSessionStore(KEY), data, schema), undefined);
  }
});

Deno.test("an update may leave a key that its data had before to the schema to drop", async () => {
  const schema = z.union([
    z.object({ kind: z.literal("user"), name: z.string() }),
    z.object({ kind: z.literal("guest").default("guest") }),
  ]);
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema }))
    .get("/", async (c) => {
      await c.var.session.update(() => ({ kind: "user" as const, name: "ada" }));
      return c.json(await c.var.session.update((s) => ({ ...s, kind: "guest" as const })));
    });
  assertEquals(await (await app.request("/")).json(), { kind: "guest" });
});

Deno.test("what Flask stores and JSON does not have is a SessionDataInvalid that says so", async () => {
  const store = new CookieSessionStore(KEY, { digest: "sha1" });
  for (const number of ["NaN", "Infinity", "-Infinity"]) {
    const browser = new Browser(testApp({ store }));
    const payload = btoa(`{"count": ${number}}`).replaceAll("=", "");
    browser.cookie = flaskCookie(payload, 5, KEY);
    const logged = captureErrors();
    assertEquals((await browser.request("GET", "/read")).status, 500);
    assertMatch(
      logged.end(),
      /what is stored \(text that is not a JSON object, as NaN of Flask, .*\), does not fit/,
    );
  }
});

Deno.test("a signed payload that is not JSON is a SessionDataInvalid, after migrate", async () => {
  const store = new CookieSessionStore(KEY, { digest: "sha1" });
  for (const payload of [btoa('{"count": NaN}').replaceAll("=", ""), ".bm90LWRlZmxhdGVk"]) {
    const browser = new Browser(testApp({ store }));
    browser.cookie = flaskCookie(payload, 5, KEY);
    const logged = captureErrors();
    assertEquals((await browser.request("GET", "/read")).status, 500);
    assertMatch(logged.end(), /SessionDataInvalid: The session's data, what is stored/);
    const texts: unknown[] = [];
    const migrate = async (data: unknown) => {
      texts.push(data);
      return { count: 7 };
    };
    const migrated = new Browser(testApp({ store, migrate }));
    migrated.cookie = browser.cookie;
    assertEquals(await migrated.get("/read"), { count: 7 });
    assertEquals(typeof texts[0], "string");
  }
});

Deno.test("a migrate that fails is a SessionDataInvalid with its error as the cause", async () => {
  const failure = new Error("no such version");
  const failing = [() => Promise.reject(failure), () => {
    throw failure;
  }];
  for (const migrate of failing) {
    const store = new CookieSessionStore(KEY);
    const app = testApp({ store, migrate });
    app.onError((error, c) => c.json([error.name, error.cause === failure, error.message]));
    const browser = new Browser(app);
    browser.cookie = (await store.create({ count: "many" })).cookie;
    assertEquals(await browser.get("/read"), [
      "SessionDataInvalid",
      true,
      "The stored session data does not fit the schema, and migrate failed: Error: no such version",
    ]);
  }
});

Deno.test("a creation time that is not one, or lies in the future, counts from now", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 100 });
  for (const created of ["yesterday", null, 1.5, {}, 9e15, Date.now() / 1000 + 3600]) {
    const id = crypto.randomUUID();
    await memory.set(id, json({ count: 1, _created: created }));
    const loaded = await store.load(id);
    assertEquals(loaded?.data, { count: 1 }, String(created));
    assert((loaded?.ttl ?? 0) <= 100, String(created));
  }
});

Deno.test("a creation time of another machine's clock, a minute ahead at most, is kept", async () => {
  const { now, pass } = testClock();
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory, { absoluteLifetime: 100, now });
  const id = crypto.randomUUID();
  await memory.set(id, json({ count: 1, _created: Math.floor(now() / 1000) + 60 }));
  assertEquals((await store.load(id))?.ttl, 160);
  pass(159);
  assertEquals((await store.load(id))?.ttl, 1);
});

Deno.test("a store of one's own needs get, set and delete only", async () => {
  const { get, set, delete: remove, ...rest } = brokenStore(memoryStore(), () => false);
  const store = new KeyValueSessionStore({ get, set, delete: remove });
  const browser = new Browser(testApp({ store }));
  await browser.post("/count");
  assertEquals(await browser.post("/rotate"), { count: 1 });
  assertEquals(await browser.post("/count"), { count: 2 });
  await browser.request("POST", "/destroy");
  assertEquals(await browser.get("/read"), { count: 0 });
  browser.cookie = crypto.randomUUID(); // of no session
  assertEquals(await browser.post("/count"), { count: 1 });
  await rest.close();
});

Deno.test("a change that throws changes nothing", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const { cookie } = await store.create({ count: 1 });
  const fail = () => Promise.reject(new RangeError("no"));
  await assertRejects(() => store.update(cookie, fail), RangeError);
  assertEquals((await store.load(cookie))?.data, { count: 1 });
});
