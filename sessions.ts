/**
 * Sessions for Hono: in a signed cookie, or in a store with only an id in the cookie.
 *
 * ```ts
 * import { Hono } from "hono";
 * import { z } from "zod";
 * import { CookieSessionStore, sessions } from "./sessions.ts";
 *
 * const store = new CookieSessionStore("a secret key of 16 characters or more");
 * const schema = z.object({ count: z.number().int().default(0) });
 *
 * const app = new Hono().use(sessions({ store, schema })).get("/", async (c) => {
 *   const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
 *   return c.text(`Count: ${count}`);
 * });
 * ```
 *
 * With `new KeyValueSessionStore(await openStore("kv.db"))` instead, the same program keeps its
 * sessions on the server, and `update` is atomic over any number of requests and processes.
 *
 * A request that does not use its session costs no call to the store, and no header except the
 * `Vary` of a stream.
 *
 * @module
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Context, MiddlewareHandler } from "hono";
import { type CookieOptions, SessionCookie } from "./sessions/cookie_header.ts";
import { DataSchema, isPromise } from "./sessions/data_schema.ts";
import { checkMethods, checkOptions } from "./sessions/options.ts";
import { RequestSession, type SessionSettings } from "./sessions/request_session.ts";
import { splitNote } from "./sessions/session_record.ts";
import type { Session } from "./sessions/session.ts";
import type { SessionStore } from "./sessions/session_store.ts";

export type { CookieOptions } from "./sessions/cookie_header.ts";
export { type CookieSessionOptions, CookieSessionStore } from "./sessions/cookie_store.ts";
export {
  RotationUnknown,
  SessionDataInvalid,
  SessionRotated,
  SessionTooLarge,
  SessionUnavailable,
} from "./sessions/errors.ts";
export { type KeyValueSessionOptions, KeyValueSessionStore } from "./sessions/key_value_store.ts";
export type { SessionEntries } from "./sessions/rotation.ts";
export { StoreFull, StoreUnavailable } from "./stores/store.ts";
export type { LifetimeOf, LifetimeOptions } from "./sessions/lifetimes.ts";
export type { ResponseBody, Session, SessionResponseInit } from "./sessions/session.ts";
export type { DataChange, SessionStore, StoredSession } from "./sessions/session_store.ts";

/** What {@linkcode sessions} takes. */
export interface SessionsOptions<T extends object, Name extends string = "session"> {
  /** Where sessions are kept. */
  store: SessionStore;
  /**
   * The name of the session's variable and of its cookie: by default `session`. An app can have
   * several sessions with different names. A cookie of one is never valid for another, even with the
   * same store or key. Another `cookie.name` alone separates nothing.
   */
  name?: Name;
  /**
   * The data: a zod schema, or any other Standard Schema, that accepts `{}`, with a default for each
   * key. A stored key that it drops is gone after the next update. See https://standardschema.dev
   */
  schema: StandardSchemaV1<unknown, T>;
  /**
   * Turns older data, which does not fit the schema, into data that does; it may return a promise.
   * Note that unknown keys fit a `z.object`, but not a `z.strictObject`.
   */
  migrate?: (data: unknown) => unknown;
  /** The cookie's name and attributes. */
  cookie?: CookieOptions;
  /**
   * Whether the cookie outlives the browser, as long as the session does: for every session, or by
   * its data ("remember me"). By default only if a Flask app has said so (`_permanent`, which is
   * stored beside the data).
   */
  permanent?: boolean | ((data: NoInfer<T>) => boolean);
  /**
   * Seconds after which an unused session ends, by its data: by default the store's `lifetime`, for
   * every session. The schema and `migrate` then have to be synchronous.
   */
  lifetime?: (data: NoInfer<T>) => number;
  /** Whether `X-Forwarded-Proto` or `Forwarded` has the scheme: only behind a proxy that sets them. */
  trustProxy?: boolean;
}

/**
 * Gives every request its session, as `c.var.session`.
 *
 * @throws {TypeError} If the cookie's name or an attribute is invalid, if the schema has no defaults,
 * or at the first request if the variable is set already, or another session has the cookie
 *
 * @example
 * ```ts
 * import { Hono } from "hono";
 * import { z } from "zod";
 * import { KeyValueSessionStore, sessions } from "./sessions.ts";
 * import { memoryStore } from "./stores/memory.ts";
 *
 * const memory = memoryStore();
 * const store = new KeyValueSessionStore(memory);
 * const schema = z.object({ user: z.string().nullable().default(null) });
 * const app = new Hono()
 *   .use(sessions({ store, schema }))
 *   .post("/login", async (c) => {
 *     await c.var.session.rotate();
 *     const { user } = await c.var.session.update((s) => ({ ...s, user: "ada" }));
 *     return c.text(`Hello, ${user}`);
 *   });
 *
 * const response = await app.request("/login", { method: "POST" });
 * console.log(response.headers.get("Set-Cookie")); // session=…; HttpOnly; SameSite=Lax; Path=/
 * await memory.close();
 * ```
 */
export function sessions<T extends object, const Name extends string = "session">(
  options: SessionsOptions<T, Name>,
): MiddlewareHandler<{ Variables: Record<Name, Session<T>> }> {
  checkOptions("sessions()", options, {
    store: "object",
    schema: "object or function",
    name: "string",
    migrate: "function",
    cookie: "object",
    permanent: "boolean or function",
    lifetime: "function",
    trustProxy: "boolean",
  });
  checkMethods(options?.store, ["load", "create", "update", "rotate", "destroy"], SESSION_STORE);
  const { permanent, trustProxy = false } = options;
  const name = options.name ?? "session" as Name;
  const schema = new DataSchema(options.schema, options.migrate);
  const store = storeFor(options, name, schema);
  const maxAge = permanent ? store.lifetime : 0;
  const cookie = new SessionCookie({ name, ...options.cookie }, maxAge, trustProxy);
  const isPermanent = permanence<T>(permanent);
  const settings: SessionSettings<T> = { store, schema, cookie, isPermanent };
  return async function sessions(c, next) {
    const existing: unknown = c.get(name);
    if (existing instanceof RequestSession && existing.settings === settings) {
      return void await next();
    }
    if (existing !== undefined) {
      const hint = "register sessions() once, or give each a name of its own";
      throw new TypeError(`Cannot set c.var.${name}, it is set already: ${hint}`);
    }
    takeCookieName(c, cookie.name, name);
    const session = new RequestSession(settings, c);
    c.set(name, session as never);
    try {
      await next();
    } catch (error) {
      // Within Hono's every() or except(). Elsewhere Hono has made the response of it.
      await session.finish(c, true);
      throw error;
    }
    await session.finish(c);
  };
}

const SESSION_STORE =
  "a session store, as in sessions({ store: new CookieSessionStore(secretKey), " +
  "schema }), or new KeyValueSessionStore(await openStore(url))";

/** @throws {TypeError} If the store lacks a method that a name or a lifetime needs */
function storeFor<T extends object>(
  { store, lifetime }: Pick<SessionsOptions<T>, "store" | "lifetime">,
  name: string,
  schema: DataSchema<T>,
): SessionStore {
  const lacks = (method: string) =>
    new TypeError(`Cannot keep the session "${name}": its store has no method "${method}"`);
  if (name !== "session") {
    if (!store.named) throw lacks("named");
    store = store.named(name);
  }
  if (lifetime === undefined) return store;
  if (!store.withLifetime) throw lacks("withLifetime");
  return store.withLifetime((stored) => {
    const data = schema.parse(splitNote(stored, "_permanent").others);
    if (!isPromise(data)) return lifetime(data);
    throw new TypeError("Cannot wait for the schema or migrate: a lifetime is needed at once");
  });
}

/** Returns the rule that says which cookies outlive the browser. */
function permanence<T extends object>(
  permanent: SessionsOptions<T>["permanent"],
): SessionSettings<T>["isPermanent"] {
  if (typeof permanent !== "function") return (_, was) => permanent ?? was;
  return function isPermanent(data, was) {
    const given: unknown = data === null ? was : permanent(data);
    if (typeof given === "boolean") return given;
    const what = isPromise(given) ? "a promise" : `"${given}"`;
    throw new TypeError(`Cannot use ${what} as what permanent() returns: expected true or false`);
  };
}

/** The variable of a request for its cookies' names, each with its session's: `c.var` is slow. */
const NAMES = Symbol("cookies") as unknown as string;

/** @throws {TypeError} If another session of this request has the cookie */
function takeCookieName(c: Context, cookieName: string, name: string): void {
  const names: Map<string, string> = c.get(NAMES) ?? new Map();
  const other = names.get(cookieName);
  if (other !== undefined) {
    throw new TypeError(
      `Cannot keep c.var.${name} in the cookie "${cookieName}", which has c.var.${other}: ` +
        "give each session a cookie.name of its own",
    );
  }
  c.set(NAMES, names.set(cookieName, name));
}
