/** The session of one request: what it has loaded, and the headers of the response. */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import type { Context } from "hono";
import type { CookieTexts, SessionCookie } from "./cookie_header.ts";
import { type DataSchema, freeze } from "./data_schema.ts";
import { appError, RotationUnknown, SessionRotated, SessionTooLarge } from "./errors.ts";
import {
  dropBody,
  isStream,
  sessionHeaders,
  setNextHeaders,
  setResponseHeaders,
} from "./response.ts";
import type { ResponseBody, Session, SessionResponseInit } from "./session.ts";
import { splitNote, withNote } from "./session_record.ts";
import type { SessionStore, StoredSession } from "./session_store.ts";

/** What the sessions of all requests share. */
export interface SessionSettings<T extends object> {
  readonly store: SessionStore;
  readonly schema: DataSchema<T>;
  readonly cookie: SessionCookie;
  /** Whether the cookie outlives the browser. Without the data, it stays as it was. */
  isPermanent(data: T | null, was: boolean): boolean;
}

/**
 * The sessions that have set the cookies of a response; an app within another one may have made it. With
 * a WeakMap in place of a member, collecting garbage would take a sixth of a page's time.
 */
const SETTERS = Symbol("sessions");
type Marked = Response & { [SETTERS]?: RequestSession<object>[] };
/** How many times a session has changed its cookie, which tells the later of two. */
let changes = 0;

type SentCookie = Pick<StoredSession, "cookie" | "ttl">;

/** A session begins unmodified; `update` and `rotate` modify it, `destroy` destroys it. */
export class RequestSession<T extends object> implements Session<T> {
  readonly #context: Context;
  // Read at once: a WebSocket's request can no longer be read, nor that of a stream that was left.
  readonly #sentCookies: readonly string[];
  readonly #cookieTexts: CookieTexts;
  /** The cookies that may name the session: as the browser sent them, then as they were set. */
  #cookies: readonly string[];
  /** Those that were left out when one was found living. They end with it. */
  #otherCookies: readonly string[] = [];
  /** Whether the session was renewed when it was found among them. */
  #isRenewed = false;
  #data: T | undefined;
  /** When the session ends unless it is used, in milliseconds since 1970; null: there is none. */
  #expires: number | null = null;
  /** Unmodified: none. Modified or destroyed: the `Set-Cookie` headers that say so. */
  #setCookies: readonly string[] = [];
  /** When it was modified or destroyed, by {@linkcode changes}. */
  #changedAt = 0;
  /** Whether there was a response by then, with the cookie of an app within this one. */
  #isChangedLast = false;
  #isPermanent = false;
  #lastCall: SessionCall<unknown> | null = null;
  readonly #failed: { call: SessionCall<unknown>; error: unknown }[] = [];
  /** Whether the response may depend on the session: it says so, for caches. */
  #isUsed = false;
  /** The response that was made with the session's headers. */
  #response: Response | null = null;
  #isFinished = false;

  constructor(readonly settings: SessionSettings<T>, context: Context) {
    const { raw } = context.req;
    this.#context = context;
    this.#sentCookies = settings.cookie.values(raw.headers.get("Cookie"));
    this.#cookies = this.#sentCookies;
    this.#cookieTexts = settings.cookie.textsFor(raw);
  }

  get cookie(): string | null {
    this.#isUsed = true;
    return this.#sentCookies[0] ?? null;
  }

  get setCookie(): string | null {
    return this.#setCookies[0] ?? null;
  }

  get handle(): string | null {
    const id = this.#expires === null ? undefined : this.#cookies[0];
    if (id === undefined || this.settings.store.dataInCookie) return null;
    return bytesToHex(sha256(utf8ToBytes(id)));
  }

  get expires(): Date | null {
    return this.#expires === null ? null : new Date(this.#expires);
  }

  read(): Promise<Readonly<T>> {
    return this.#call(async () => {
      if (this.#data !== undefined && !this.#isFinished) return this.#data;
      const cookie = await this.#livingCookie();
      const stored = cookie === null ? null : await this.#load(cookie);
      const data = await this.#parse(stored?.data ?? {});
      this.#take(stored, true);
      return this.#data = data;
    });
  }

  update(change: (data: Readonly<T>) => T): Promise<Readonly<T>> {
    return this.#call(async () => {
      const { store, schema } = this.settings;
      if (store.dataInCookie) this.#requireResponse("change");
      let data: T | undefined;
      let isUnchanged = false;
      const apply = async (stored: unknown): Promise<object | null> => {
        const before = await this.#parse(stored ?? {});
        data = await schema.change(before, change);
        this.#isPermanent = this.settings.isPermanent(data, this.#isPermanent);
        isUnchanged = data === before;
        if (isUnchanged) return null;
        return withNote(data, "_permanent", this.#isPermanent || undefined);
      };
      const cookie = await this.#livingCookie();
      let stored = cookie === null ? null : await store.update(cookie, apply, this.#isFinished);
      if (stored === null) {
        const created = await apply(null);
        if (created !== null) {
          this.#requireResponse("create");
          stored = await store.create(created);
        }
      }
      this.#take(stored, isUnchanged);
      return this.#data = data as T;
    });
  }

  rotate(): Promise<void> {
    return this.#call(async () => {
      this.#requireResponse("rotate");
      const { store } = this.settings;
      let stored: StoredSession | null = null;
      try {
        const cookie = await this.#livingCookie();
        if (cookie !== null) {
          stored = await store.rotate(cookie);
          // Another request was faster: a cookie from before would replace the one that it sends.
          if (stored === null) this.#setCookies = [];
        }
      } catch (error) {
        if (error instanceof RotationUnknown) await this.#sendMoved(error.session);
        // A login whose first answer was lost has to work, with nothing of what has moved.
        if (!(error instanceof SessionRotated)) throw error;
      }
      if (stored === null) return this.#forget();
      await this.#sendMoved(stored);
      this.#data = undefined;
    });
  }

  destroy(): Promise<void> {
    return this.#call(async () => {
      const { store } = this.settings;
      if (store.dataInCookie) this.#requireResponse("destroy");
      // Each of them, also after one that has just moved to another id.
      const ends = await Promise.allSettled([
        ...this.#cookies.map((it) => store.destroy(it)),
        ...this.#otherCookies.map((it) => store.destroy(it).catch(ignoreRotated)),
      ]);
      for (const end of ends) if (end.status === "rejected") throw end.reason;
      this.#forget();
      this.#setNext(this.#cookieTexts.clearing);
    });
  }

  response(body: ResponseBody, init: SessionResponseInit = {}): Response {
    const { headers = {} } = init;
    // Otherwise finish() sets them.
    const isKnown = this.#lastCall?.isSettled && this.#setCookies.length < 2;
    const names = Object.keys(headers).map((name) => name.toLowerCase());
    // Another spelling would be a second header. JavaScript may give Headers, without any members.
    const isOther = "Vary" in headers || "Set-Cookie" in headers || Symbol.iterator in headers ||
      this.setCookie !== null && names.includes("cache-control") && !("Cache-Control" in headers);
    if (!isKnown || isOther) return new Response(body, init);
    const all = { ...headers, ...sessionHeaders(this.setCookie) };
    // Node's server types a text only if it has no headers.
    if (typeof body === "string" && !names.includes("content-type")) {
      all["Content-Type"] = "text/plain;charset=UTF-8";
    }
    this.#response = new Response(body, { ...init, headers: all });
    this.#isFinished = true;
    return this.#response;
  }

  /**
   * The response phase: waits for all calls, then sets the headers. Throws the first error that
   * nothing awaited, unless the handler has failed by an error of its own.
   */
  async finish(c: Context, hasThrown = false): Promise<void> {
    for (let call = null; call !== this.#lastCall;) {
      call = this.#lastCall;
      await call?.settled;
    }
    this.#isFinished = true;
    if (!this.#isUsed && !isStream(c)) return;
    if (c.finalized && this.#isOutdated(c.res)) this.#setCookies = [];
    const failed = this.#failed.filter(({ call }) => !call.isAwaited);
    // The handler's own error is the request's.
    const first = c.error || hasThrown ? undefined : failed.shift();
    for (const { error } of failed) logError(error);
    if (first) dropBody(c);
    // Without a response, Hono makes that of an error.
    if (hasThrown || !c.finalized) setNextHeaders(c, this.#setCookies);
    else if (c.res !== this.#response) setResponseHeaders(c, this.#setCookies);
    if (c.finalized && this.#setCookies.length > 0) ((c.res as Marked)[SETTERS] ??= []).push(this);
    if (first) throw first.error;
  }

  /**
   * Returns the cookie that may name the session. Of several with one name, which a browser sends for
   * ever, it is the first that names a living session, or the youngest if they hold the data.
   */
  #livingCookie(): string | null | Promise<string | null> {
    return this.#cookies.length < 2 ? this.#cookies[0] ?? null : this.#firstLiving();
  }

  async #firstLiving(): Promise<string | null> {
    let living: string | null = null;
    let youngest = Infinity;
    let rotated: SessionRotated | null = null;
    for (const cookie of this.#cookies) {
      try {
        const stored = await this.#load(cookie);
        const age = stored?.age ?? 0;
        if (stored === null || age > youngest) continue;
        [living, youngest] = [cookie, age];
        this.#isRenewed = stored.renewed;
        if (stored.age === undefined) break;
      } catch (error) {
        if (!(error instanceof SessionRotated)) throw error;
        rotated = error;
      }
    }
    if (living !== null) {
      this.#otherCookies = this.#cookies.filter((it) => it !== living);
      this.#cookies = [living];
    } else if (rotated !== null) throw rotated;
    return living;
  }

  #load(cookie: string): Promise<StoredSession | null> {
    return this.settings.store.load(cookie, this.#isFinished);
  }

  async #parse(stored: unknown): Promise<T> {
    const { note, others } = splitNote(stored, "_permanent");
    const parsed = freeze(await this.settings.schema.parse(others));
    this.#isPermanent = this.settings.isPermanent(parsed, note === true);
    return parsed;
  }

  /** Takes over the session that a call has returned. */
  #take(stored: StoredSession | null, isUnchanged: boolean): void {
    if (stored === null) return this.#forget();
    if (!stored.renewed && !this.#isRenewed) return this.#keep(stored);
    try {
      this.#send(stored);
    } catch (error) {
      // A cookie that Flask has compressed may be too large as ours. Unless it has to change, it stays.
      if (!isUnchanged || !(error instanceof SessionTooLarge)) throw error;
      this.#keep(stored);
    }
  }

  async #sendMoved(stored: StoredSession): Promise<void> {
    try {
      await this.#parse(stored.data);
    } catch {
      // The next read says what is wrong; the browser needs the new id all the same.
      const { note } = splitNote(stored.data, "_permanent");
      this.#isPermanent = this.settings.isPermanent(null, note === true);
    }
    this.#send(stored);
  }

  #keep({ cookie, ttl }: SentCookie): void {
    this.#cookies = [cookie];
    this.#expires = (this.settings.store.now?.() ?? Date.now()) + ttl * 1000;
  }

  #forget(): void {
    this.#cookies = [];
    this.#expires = null;
    this.#data = undefined;
  }

  /** @throws {SessionTooLarge} If a browser would drop the cookie */
  #send(stored: SentCookie): void {
    const maxAge = this.#isPermanent ? stored.ttl : null;
    const header = this.settings.cookie.header(stored.cookie, this.#cookieTexts, maxAge);
    this.#keep(stored);
    // After destroy(): what clears the cookie at other paths and domains stays.
    this.#setNext([header, ...this.#setCookies.slice(1)]);
  }

  #setNext(setCookies: readonly string[]): void {
    if (this.#isFinished) return;
    this.#setCookies = setCookies;
    this.#changedAt = ++changes;
    this.#isChangedLast = this.#context.finalized;
  }

  /** Whether another session has set the same cookie, by a later change. */
  #isOutdated(response: Marked): boolean {
    if (this.#setCookies.length === 0 || response === this.#response) return false;
    const { name } = this.settings.cookie;
    const { attributes } = this.#cookieTexts;
    const other = response[SETTERS]?.findLast((it) =>
      it.settings.cookie.name === name && it.#cookieTexts.attributes === attributes
    );
    if (other) return other.#changedAt > this.#changedAt;
    // A middleware between both has copied the response, as c.header() does, or cors().
    return !this.#isChangedLast &&
      response.headers.getSetCookie().some((it) =>
        it.startsWith(`${name}=`) && it.endsWith(attributes) && !this.#setCookies.includes(it)
      );
  }

  #requireResponse(what: "change" | "create" | "rotate" | "destroy"): void {
    if (!this.#isFinished) return;
    const end = this.#response ? "session.response()" : "the handler returns the response";
    throw new Error(
      `Cannot ${what} the session, its cookie can no longer be sent: await it before ${end}`,
    );
  }

  /** Runs a call after the one before. */
  #call<R>(run: () => Promise<R>): Promise<R> {
    const call = new SessionCall(this.#run(run, this.#lastCall), (call, error) => {
      if (!this.#isFinished) this.#failed.push({ call, error });
      else if (!call.isAwaited) logError(error);
    });
    this.#lastCall = call;
    this.#isUsed = true;
    return call;
  }

  async #run<R>(run: () => Promise<R>, before: SessionCall<unknown> | null): Promise<R> {
    if (before) await before.settled;
    try {
      return await run();
    } catch (error) {
      // A cookie from before the rotation would replace the new one.
      if (error instanceof SessionRotated) this.#setCookies = [];
      throw appError(error);
    }
  }
}

// An assignment to a property that a session does not have reaches its last prototype.
Object.setPrototypeOf(
  RequestSession.prototype,
  new Proxy({}, {
    set(_, key) {
      const wanted = `expected session.update((s) => ({ ...s, ${String(key)}: … }))`;
      throw new TypeError(`Cannot assign to session.${String(key)}: ${wanted}`);
    },
  }),
);

/** What has moved away from a cookie is not this browser's session, which another cookie names. */
function ignoreRotated(error: unknown): void {
  if (!(error instanceof SessionRotated)) throw error;
}

function logError(error: unknown): void {
  console.error("A session's call failed, and nothing awaited it:", error);
}

/**
 * A promise whose rejection never ends the process. If nothing awaits it, its error becomes the
 * request's, or is logged.
 */
class SessionCall<R> extends Promise<R> {
  static override readonly [Symbol.species] = Promise;
  isAwaited = false;
  isSettled = false;
  /** Resolves when the call has ended, with or without an error. */
  readonly settled: Promise<void>;

  constructor(running: Promise<R>, onError: (call: SessionCall<R>, error: unknown) => void) {
    super((resolve) => resolve(running));
    const settle = () => void (this.isSettled = true);
    this.settled = super.then(settle, (error) => {
      settle();
      onError(this, error);
    });
  }

  override then<A = R, B = never>(...handlers: Parameters<Promise<R>["then"]>): Promise<A | B> {
    this.isAwaited = true;
    return super.then(...handlers) as Promise<A | B>;
  }
}
