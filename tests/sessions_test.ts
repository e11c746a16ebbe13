/** The middleware: its options, its schema and its types. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Hono } from "hono";
import { z } from "zod";
import { CookieSessionStore, sessions } from "../sessions.ts";
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
