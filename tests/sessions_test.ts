/** The middleware: its options, its schema and its types. */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Hono } from "hono";
import { z } from "zod";
import { CookieSessionStore, KeyValueSessionStore, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { openStore } from "../stores/open.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { Counted, KEY } from "./helpers/session_app.ts";

Deno.test("sessions() refuses a schema without defaults", () => {
  const store = new CookieSessionStore(KEY);
  const schema = z.object({ count: z.number() });
  assertMatch(
    String(assertThrows(() => sessions({ store, schema }))),
    /Cannot use the schema: expected one that accepts/,
  );
});

Deno.test("sessions() and the stores say what to write instead of what plain JavaScript gives", async () => {
  const store = new CookieSessionStore(KEY);
  const schema = Counted;
  const memory = memoryStore();
  const opening = openStore(":memory:");
  // deno-lint-ignore no-explicit-any -- as plain JavaScript is typed
  const [anySessions, Signed, Kept] = [sessions, CookieSessionStore, KeyValueSessionStore] as any[];
  const wrong: [() => unknown, RegExp][] = [
    [() => new Signed(), /secret key that is undefined: expected 16 characters or bytes at least$/],
    [() => new Signed(5), /secret key that is neither text nor bytes: expected 16/],
    [
      () => new Signed(KEY, { fallbacks: "an older key of the app" }),
      /^Cannot use these fallbacks in new Cookie/,
    ],
    [
      () => new Signed([KEY, KEY]),
      /^Cannot use a secret key that is neither text nor bytes: expected 16/,
    ],
    [() => new Signed(KEY, { digest: "md5" }), /"md5" as digest .*: expected "sha1" or "sha256"$/],
    [
      () => new Signed(KEY, { maxAge: 60 }),
      /option "maxAge" of new CookieSessionStore\(\): expected/,
    ],
    [() => new Signed(KEY, { lifetime: "1h" }), /"1h" as lifetime .*: expected number$/],
    [() => new Kept(), /Cannot keep sessions in undefined: expected a store, as await openStore/],
    [() => new Kept(opening), /in a promise: expected a store, as await openStore/],
    [() => new Kept(memory, { ttl: 60 }), /option "ttl" of new KeyValueSessionStore\(\)/],
    [() => anySessions(), /sessions in undefined: expected a session store/],
    [
      () => anySessions({ store }),
      /expected a zod schema or another, as in sessions\(\{ store, sch/,
    ],
    [() => anySessions({ store, schema: {} }), /expected a zod schema or another/],
    [
      () => anySessions({ schema }),
      /sessions in undefined: expected a session store, as in session/,
    ],
    [
      () => anySessions({ store: memory, schema }),
      /sessions in this object: expected a session store/,
    ],
    [
      () => anySessions({ store: "x", schema }),
      /Cannot use a text as store of sessions\(\): expected/,
    ],
    [
      () => anySessions({ store, schema, rolling: true }),
      /"rolling" of sessions\(\): expected one of/,
    ],
    [() => anySessions({ store, schema, lifetime: 60 }), /Cannot use 60 as lifetime of sessions/],
    [() => anySessions({ store, schema, permanent: "yes" }), /"yes" as permanent of sessions/],
  ];
  for (const [make, message] of wrong) {
    assertMatch(assertThrows(make, TypeError).message, message, String(make));
  }
  const withoutTime = new Signed(KEY, { now: async () => 5 });
  await assertRejects(() => withoutTime.create({}), TypeError, "Cannot tell the time by now()");
  await memory.close();
  await (await opening).close();
});

Deno.test("a session says what to write instead of what plain JavaScript does with it", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/assign", (c) => {
      Object.assign(c.var.session, { user: "ada" });
      return c.text("");
    })
    .get("/update", async (c) => {
      await c.var.session.update({ count: 1 } as unknown as () => { count: number });
      return c.text("");
    })
    .onError((error, c) => c.text(error.message, 500));
  const text = async (path: string) => await (await app.request(path)).text();
  assertMatch(
    await text("/assign"),
    /^Cannot assign to session\.user: expected session\.update\(\(s\) /,
  );
  assertMatch(
    await text("/update"),
    /^Cannot update the session by object: expected a function from/,
  );
});

Deno.test("an asynchronous schema that fails at the start fails the requests, not the process", async () => {
  const validate = () => Promise.reject(new Error("no database"));
  const schema = { "~standard": { version: 1, vendor: "test", validate } } as const;
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema }))
    .get("/", async (c) => c.json(await c.var.session.read()));
  const logged = captureErrors();
  assertEquals((await app.request("/")).status, 500);
  assertMatch(logged.end(), /no database/);
});

Deno.test("sessions() types what a handler may do", () => {
  const store = new CookieSessionStore(KEY);
  // @ts-expect-error: without the middleware there is no session
  new Hono().get("/", async (c) => c.text(await c.var.session.read()));
  new Hono().use(sessions({ store, schema: Counted })).get("/", async (c) => {
    const { count } = await c.var.session.read();
    // @ts-expect-error: the schema says that it is a number
    count.trim();
    // @ts-expect-error: an update gives all the data
    await c.var.session.update(() => ({}));
    // @ts-expect-error: an update only computes, so that it may run again
    await c.var.session.update(async (s) => await Promise.resolve(s));
    return c.text(String(count));
  });
  // @ts-expect-error: a schema of what is no object
  assertThrows(() => sessions({ store, schema: z.string() }), TypeError);
});
