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
 * A request that does not touch its session costs no call to the store and no header.
 *
 * @module
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Context, MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import { HTTPException } from "hono/http-exception";
import { type CookieOptions as CookieAttributes, serialize } from "hono/utils/cookie";
import { RotationUnknown, SessionRotated, type SessionStore } from "./sessions/session_store.ts";
import { StoreFull, StoreUnavailable, ValueTooLarge } from "./stores/store.ts";

export { CookieSessionStore, type CookieStoreOptions } from "./sessions/cookie_store.ts";
export { KeyValueSessionStore, type KeyValueStoreOptions } from "./sessions/key_value_store.ts";
export {
  type LifetimeOptions,
  RotationUnknown,
  SessionRotated,
  type SessionStore,
  type StoredSession,
} from "./sessions/session_store.ts";

/** The longest `Set-Cookie`, in bytes, as in Flask: browsers drop what is over 4,096. */
const MAX_COOKIE_BYTES = 4093;

/**
 * The session of one request. Any of its calls throws a {@linkcode SessionUnavailable} if the store
 * does not answer, and a {@linkcode SessionRotated} if the session has just got a new id elsewhere.
 */
export interface Session<T extends object> {
  /**
   * The data, as the schema gives it. The first call loads it; a session that does not exist yet
   * reads as the schema's defaults, and is not begun by reading.
   *
   * @throws {SessionUnavailable} If the store does not answer: never a new session instead
   * @throws {SessionDataInvalid} If what is stored does not fit the schema
   */
  read(): Promise<T>;
  /**
   * Replaces the data by what `change` makes of it, and gives that. On a store this is atomic:
   * `change` runs again on the newer data if another request was faster, so it should only compute, and
   * leave what it is given as it is: a schema may give one default to every session. No update is lost.
   * A session that does not exist, or no longer does, begins under a new id.
   *
   * @throws {SessionUnavailable} If the store does not answer, and the session may have been changed;
   * or if the store is full
   * @throws {SessionDataInvalid} If the data, or what `change` gives, does not fit the schema
   * @throws {SessionTooLarge} If the cookie would be over 4,093 bytes, or the store's value over 1 MiB;
   * nothing is changed
   */
  update(change: (data: T) => T): Promise<T>;
  /**
   * Gives the session a new id and ends the old one: to be called when a user logs in, so that nobody
   * who knew the old id shares the login (OWASP, session fixation). Without a session it does nothing.
   * In a signed cookie there is no id, and the old cookie stays valid.
   *
   * @throws {SessionTooLarge} If the cookie would be over 4,093 bytes, where Flask had compressed it
   */
  rotate(): Promise<void>;
  /**
   * Ends the session at the store and clears the cookie. Requests under way cannot bring it back:
   * their `update` begins a new one.
   */
  destroy(): Promise<void>;
}

/** What {@linkcode sessions} takes. */
export interface SessionsOptions<T extends object> {
  store: SessionStore;
  /**
   * What the data is: a zod schema, or any other Standard Schema, that accepts `{}`, with a default for
   * each key. What it leaves out is gone at the next update. See https://standardschema.dev
   */
  schema: StandardSchemaV1<unknown, T>;
  /**
   * Turns older data, which no longer fits the schema, into data that does. A key that the schema does
   * not know fits a `z.object`, and not a `z.strictObject`.
   */
  migrate?: (data: unknown) => unknown;
  cookie?: CookieOptions;
  /** Whether the cookie outlives the browser, as long as the session does. By default it does not. */
  permanent?: boolean;
  /** Whether `X-Forwarded-Proto` tells the scheme of a request: only behind a proxy that sets it. */
  trustProxy?: boolean;
}

/** The cookie's name and attributes. It is always `HttpOnly`. */
export interface CookieOptions {
  /** By default `session`. */
  name?: string;
  domain?: string;
  /** By default `/`. */
  path?: string;
  /** By default `auto`: when the request came by https. */
  secure?: boolean | "auto";
  /** By default `Lax`. */
  sameSite?: "Strict" | "Lax" | "None";
  partitioned?: boolean;
}

/**
 * The store does not answer, or is full (a {@linkcode StoreFull} as `cause`): a 503 that says when to
 * try again. The cookie stays as it is, but where a {@linkcode RotationUnknown} is the `cause`.
 */
export class SessionUnavailable extends HTTPException {
  constructor(cause: unknown) {
    const message = "The sessions are not available. Please try again in a moment";
    const headers = { "Content-Type": "text/plain", "Retry-After": "1" };
    super(503, { message, cause, res: new Response(message, { headers }) });
    this.name = "SessionUnavailable";
  }
}

/** Data that does not fit the schema: in the store, or given by an update. Nothing was changed. */
export class SessionDataInvalid extends TypeError {
  override readonly name = "SessionDataInvalid";
}

/** The session does not fit into a cookie, or into a value of the store. Nothing was changed. */
export class SessionTooLarge extends RangeError {
  override readonly name = "SessionTooLarge";
}

/**
 * Gives every request its session, as `c.var.session`.
 *
 * @throws {TypeError} If the cookie's name or attributes break their rules, or the schema has no
 * defaults
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
 * console.log(response.headers.get("Set-Cookie")); // session=…; Path=/; HttpOnly; SameSite=Lax
 * await memory.close();
 * ```
 */
export function sessions<T extends object>(
  options: SessionsOptions<T>,
): MiddlewareHandler<{ Variables: { session: Session<T> } }> {
  const { store, schema, migrate, permanent = false, trustProxy = false } = options;
  const { name = "session", secure = "auto", ...others } = options.cookie ?? {};
  const attributes: CookieAttributes = {
    path: "/",
    sameSite: "Lax",
    ...others,
    httpOnly: true,
    ...permanent && { maxAge: store.lifetime },
  };
  checkCookie(name, attributes, secure);
  checkDefaults(schema);
  const setCookie = (c: Context, value: string): string => {
    const isSecure = secure === "auto" ? isHttps(c, trustProxy) : secure;
    const end = value === "" && { maxAge: 0, expires: new Date(0) };
    return serialize(name, value, { ...attributes, secure: isSecure, ...end });
  };
  const fit = async (data: unknown, what: string) => await validate(schema, data, what);
  const load = async (data: unknown) => {
    if (!migrate) return await fit(data, "what is stored");
    const result = await schema["~standard"].validate(data);
    return result.issues ? await fit(await migrate(data), "what migrate gave") : result.value;
  };

  return async function sessions(c, next) {
    const session = new RequestSession<T>({
      store,
      load,
      fit,
      cookie: getCookie(c, name) ?? null,
      setCookie: (value) => setCookie(c, value),
    });
    c.set("session", session);
    await next();
    await session.end(c);
  };
}

interface RequestSessionOptions<T> {
  store: SessionStore;
  load(data: unknown): Promise<T>;
  fit(data: unknown, what: string): Promise<T>;
  /** What the browser sent. */
  cookie: string | null;
  /** The `Set-Cookie` for a value, or for `""`: none any more. */
  setCookie(value: string): string;
}

/** A request's session: what it has loaded, and what the response has to tell the browser. */
class RequestSession<T extends object> implements Session<T> {
  readonly #options: RequestSessionOptions<T>;
  #cookie: string | null;
  #data: T | undefined;
  readonly #calls: Call<unknown>[] = [];
  #setCookie: string | null = null;
  #ended = false;

  constructor(options: RequestSessionOptions<T>) {
    this.#options = options;
    this.#cookie = options.cookie;
  }

  read(): Promise<T> {
    return this.#call(async ({ store, load, setCookie }) => {
      if (this.#data !== undefined) return this.#data;
      const stored = this.#cookie === null ? null : await store.load(this.#cookie);
      if (stored === null) this.#cookie = null;
      // What Flask has compressed may be too large as ours, and stays valid as it is.
      else if (stored.renewed && setCookie(stored.cookie).length <= MAX_COOKIE_BYTES) {
        this.#keep(stored.cookie);
      }
      return this.#data = await load(stored?.data ?? {});
    });
  }

  update(change: (data: T) => T): Promise<T> {
    return this.#call(async ({ store, load, fit }) => {
      let changed: T | undefined;
      const { cookie } = await store.update(this.#cookie, async (data) => {
        changed = await fit(change(await load(data ?? {})), "what update was given");
        return changed;
      });
      this.#keep(cookie);
      return this.#data = changed as T;
    });
  }

  rotate(): Promise<void> {
    return this.#call(async ({ store }) => {
      const stored = this.#cookie === null ? null : await store.rotate(this.#cookie);
      if (stored === null) this.#cookie = null;
      else this.#keep(stored.cookie);
      this.#data = undefined;
    });
  }

  destroy(): Promise<void> {
    return this.#call(async ({ store, setCookie }) => {
      if (this.#cookie !== null) await store.destroy(this.#cookie);
      this.#cookie = null;
      this.#data = undefined;
      this.#setCookie = setCookie("");
    });
  }

  /**
   * Forbids further calls, waits for those that nobody awaited, and gives the response its headers.
   * What nobody awaited throws here.
   */
  async end(c: Context): Promise<void> {
    this.#ended = true;
    if (this.#calls.length === 0) return;
    await this.#calls.at(-1)?.over;
    // Copies the response, which the handler may give to other requests, too.
    c.header("Vary", "Cookie", { append: true });
    if (this.#setCookie !== null) {
      c.res.headers.append("Set-Cookie", this.#setCookie);
      c.res.headers.set("Cache-Control", "no-store");
    }
    // At last, since what other calls have done is done.
    await Promise.all(this.#calls.filter(({ isAwaited }) => !isAwaited));
  }

  /** @throws {SessionTooLarge} If a browser would drop the cookie */
  #keep(cookie: string): void {
    const header = this.#options.setCookie(cookie);
    if (header.length > MAX_COOKIE_BYTES) {
      throw new SessionTooLarge(
        `Cannot keep the session in its cookie: ${header.length} bytes, ` +
          `expected ${MAX_COOKIE_BYTES} at most`,
      );
    }
    this.#cookie = cookie;
    this.#setCookie = header;
  }

  #call<R>(run: (options: RequestSessionOptions<T>) => Promise<R>): Promise<R> {
    if (this.#ended) {
      const hint = "await it before the handler returns the response";
      return Promise.reject(new Error(`Cannot use the session, its headers are sent: ${hint}`));
    }
    const call = new Call(this.#run(run, this.#calls.at(-1)?.over));
    this.#calls.push(call);
    return call;
  }

  /** Runs one call after the one before. */
  async #run<R>(
    run: (options: RequestSessionOptions<T>) => Promise<R>,
    before: Promise<void> | undefined,
  ): Promise<R> {
    await before;
    try {
      return await run(this.#options);
    } catch (error) {
      // A cookie of before the rotation would take the place of the new one.
      if (error instanceof SessionRotated) this.#setCookie = null;
      if (error instanceof RotationUnknown) this.#keep(error.cookie);
      if (error instanceof ValueTooLarge) {
        throw new SessionTooLarge(error.message, { cause: error });
      }
      const isUnavailable = error instanceof StoreUnavailable || error instanceof StoreFull;
      throw isUnavailable ? new SessionUnavailable(error) : error;
    }
  }
}

/**
 * What a handler gets of a call. It knows whether anybody awaits it: where nobody does, its error is
 * the request's, and not an unhandled rejection, which would end the process.
 */
class Call<R> extends Promise<R> {
  /** What is made of it is of no concern to the request. */
  static override readonly [Symbol.species] = Promise;
  /** Resolves when the call has ended, in whatever way: its error is its caller's concern. */
  readonly over: Promise<void>;
  isAwaited = false;

  constructor(running: Promise<R>) {
    super((resolve) => resolve(running));
    this.over = super.then(() => {}, () => {});
  }

  override then<A = R, B = never>(...handlers: Parameters<Promise<R>["then"]>): Promise<A | B> {
    this.isAwaited = true;
    return super.then(...handlers) as Promise<A | B>;
  }
}

async function validate<T>(
  schema: StandardSchemaV1<unknown, T>,
  data: unknown,
  what: string,
): Promise<T> {
  if (data instanceof Promise) {
    // To a schema it is an object without keys. Its own error, if any, is of no use beside this one.
    data.catch(() => {});
    const hint = "await what update needs before it is called";
    throw new SessionDataInvalid(`The session's data, ${what}, is a promise: ${hint}`);
  }
  const result = await schema["~standard"].validate(data);
  if (!result.issues) return result.value;
  const issues = result.issues.map(({ path = [], message }) => {
    const keys = path.map((part) => String(typeof part === "object" ? part.key : part));
    return [keys.join("."), message].filter((text) => text !== "").join(": ");
  });
  throw new SessionDataInvalid(
    `The session's data, ${what}, does not fit the schema: ${issues.join("; ")}`,
  );
}

function isHttps(c: Context, trustProxy: boolean): boolean {
  const forwarded = trustProxy ? c.req.header("X-Forwarded-Proto") : undefined;
  return forwarded ? /^https\s*(,|$)/i.test(forwarded) : c.req.url.startsWith("https:");
}

/** Has the name and the attributes checked once, at the start, and not at the first request. */
function checkCookie(
  name: string,
  attributes: CookieAttributes,
  secure: boolean | "auto",
): void {
  try {
    new Headers({ "Set-Cookie": serialize(name, "", { ...attributes, secure: true }) });
  } catch (cause) {
    throw new TypeError(`Cannot use the cookie "${name}": ${(cause as Error).message}`, { cause });
  }
  // Browsers drop these without Secure, so that `auto` would break at the first plain request.
  const asking = [
    attributes.partitioned && "Partitioned",
    attributes.sameSite === "None" && "SameSite=None",
    /^__(host|secure)-/i.test(name) && "its prefix",
  ].find(Boolean);
  if (!asking || secure === true) return;
  throw new TypeError(`Cannot use the cookie "${name}": ${asking} asks for Secure to be true`);
}

function checkDefaults(schema: StandardSchemaV1): void {
  const result = schema["~standard"].validate({});
  // An asynchronous schema is checked at the first request, which gets its error, too.
  if (result instanceof Promise) return void result.catch(() => {});
  if (!result.issues) return;
  const wanted = "expected one that accepts {}, with a default for each key";
  throw new TypeError(`Cannot use the schema: ${wanted}: ${result.issues[0]?.message}`);
}
