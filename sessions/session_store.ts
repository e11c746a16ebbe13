/** The contract of a session store: what `sessions()` needs to keep sessions anywhere. */
import type { LifetimeOf } from "./lifetimes.ts";

/** A session as its store returns it. */
export interface StoredSession {
  /** The value for the browser's cookie. */
  readonly cookie: string;
  /** What JSON gives back of the data. It is the caller's to keep or to change. */
  readonly data: unknown;
  /** Seconds until the session ends unless it is used. */
  readonly ttl: number;
  /** Seconds since the given cookie was made, if it holds the data: of several, the youngest counts. */
  readonly age?: number;
  /** Whether the cookie has to be sent again. */
  readonly renewed: boolean;
}

/** Returns the new data, given what is stored; null keeps that. */
export type DataChange = (data: unknown) => Promise<object | null>;

/**
 * Where sessions are kept. `sessions()` calls it; handlers use {@linkcode Session}.
 *
 * - `cookie` is what the browser sent, so it can be any text. Where it names no living session,
 *   calls return null: a missing session is never an error, and an error never means "missing".
 * - A {@linkcode StoreUnavailable} or a {@linkcode StoreFull} becomes a 503, a
 *   {@linkcode SessionRotated} a 409. Any other error is a bug and becomes a 500.
 * - What one call has stored, every later call sees, in every process.
 */
export interface SessionStore {
  /** Seconds after which an unused session ends. */
  readonly lifetime: number;
  /** The clock by which sessions end, in milliseconds since 1970: by default `Date.now`. */
  now?(): number;
  /**
   * Whether the cookie holds the data, readable or not, so that every change needs a response. By
   * default the cookie is an id, which stays the same when the data changes.
   */
  readonly dataInCookie?: boolean | "encrypted";
  /**
   * Returns the session. May write, to keep a session in use from ending, unless it is too late to
   * send the cookie again.
   */
  load(cookie: string, isLate?: boolean): Promise<StoredSession | null>;
  /** Stores a new session, under a cookie that nobody else has or can guess. */
  create(data: object): Promise<StoredSession>;
  /**
   * Replaces the session's data by the result of `change`. Where `change` returns null, the session
   * stays as it is, and the call does what `load` does. Where `change` throws, so does the call.
   *
   * Concurrent updates must not lose one another: a store on a server runs `change` again on the
   * newer data if another request was faster, and decides nothing on outdated data. It never brings
   * back a session that was destroyed meanwhile. Only a store with `dataInCookie` is exempt.
   *
   * Where it is too late to send the cookie again, the next page has to find that it must be: a
   * session never outlives its cookie unnoticed.
   */
  update(cookie: string, change: DataChange, isLate?: boolean): Promise<StoredSession | null>;
  /**
   * Moves the session to a new cookie and ends the old one. Returns null also if another request
   * has just done so.
   *
   * @throws {RotationUnknown} If the session has its new id, and may still have the old one
   */
  rotate(cookie: string): Promise<StoredSession | null>;
  /**
   * Ends the session; does nothing where there is none.
   *
   * @throws {SessionRotated} If the session lives on under another id
   */
  destroy(cookie: string): Promise<void>;
  /**
   * Returns a store for another session of the same app, with the same settings. A cookie of one
   * never names a session of the other. Without this method an app has one session.
   */
  named?(name: string): SessionStore;
  /**
   * Returns a store with the same settings whose sessions have lifetimes of their own: a function
   * returns the seconds, given what is stored. Without this method, all have the same lifetime.
   */
  withLifetime?(lifetimeOf: LifetimeOf): SessionStore;
}
