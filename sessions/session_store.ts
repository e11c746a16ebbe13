/**
 * What both session stores share: their contract, and how long sessions live.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { parseJson } from "../stores/json_text.ts";
import { StoreUnavailable } from "../stores/store.ts";

/** What a store gives of a session. */
export interface StoredSession {
  /** What the browser's cookie has to hold. */
  readonly cookie: string;
  readonly data: unknown;
  /** Whether the cookie has to be sent again, though the session was only loaded. */
  readonly renewed: boolean;
}

/**
 * Where sessions are kept. `cookie` is what the browser sent, so it may be anything at all; one that
 * names no living session is `null`, never an error. A {@linkcode StoreUnavailable} or `StoreFull` is a
 * 503, and any other error a defect.
 */
export interface SessionStore {
  /** Seconds after which a session that is not used ends. */
  readonly lifetime: number;
  /** The session, or null. May write, to keep a session in use from ending. */
  load(cookie: string): Promise<StoredSession | null>;
  /**
   * Replaces the data by what `change` makes of it; of null for a session that begins.
   *
   * @param cookie null to begin a session
   */
  update(
    cookie: string | null,
    change: (data: unknown) => Promise<object>,
  ): Promise<StoredSession>;
  /**
   * Moves the session to a new id; null where there is none.
   *
   * @throws {RotationUnknown} If it has the new id, and may have the old one still
   */
  rotate(cookie: string): Promise<StoredSession | null>;
  /** Ends the session, if it can be ended at all. */
  destroy(cookie: string): Promise<void>;
}

/**
 * The session has just got a new id, and this request has the old one: a 409, without a cookie, so
 * that the browser keeps the new one. Asking again succeeds.
 */
export class SessionRotated extends HTTPException {
  constructor() {
    super(409, { message: "The session has got a new id. Please try again" });
    this.name = "SessionRotated";
  }
}

/**
 * The session lives under its new id, and whether it still does under the old one is not known: the
 * browser gets the new one, since the old one may be gone.
 */
export class RotationUnknown extends StoreUnavailable {
  readonly #cookie: string;

  constructor(cookie: string, cause: StoreUnavailable) {
    super(cause.message, { cause, outcome: "unknown" });
    this.#cookie = cookie;
  }

  /** No property of its own, which a log of the error would show: the id is that of a living session. */
  get cookie(): string {
    return this.#cookie;
  }
}

/** What both session stores take. */
export interface LifetimeOptions {
  /** Seconds after which a session that is not used ends: by default 31 days, as in Flask. */
  lifetime?: number;
  /** Seconds after which a session ends even if it is in use: by default never. */
  absoluteLifetime?: number;
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
}

/** A session as a store holds it. */
export interface LivingSession {
  readonly data: unknown;
  /** In seconds since 1970. */
  readonly created: number;
  /** Whether the store does not tell since when it is there: it counts from now. */
  readonly isUndated?: boolean;
  /** What was stored, as JSON text. */
  readonly text?: string;
}

/** RFC 6265bis: a cookie lives 400 days at most. */
export const MAX_LIFETIME = 400 * 24 * 60 * 60;
/**
 * Where an absolute lifetime is set, what is stored carries the session's beginning under this key.
 * It stands beside the data, as Flask's `_permanent` does, so that a Flask app keeps it.
 */
const CREATED = "_created";

/** The idle and the absolute lifetime of one store's sessions. */
export class Lifetimes {
  readonly idle: number;
  readonly absolute: number;
  readonly #now: () => number;

  /** @throws {TypeError} If a lifetime is no number of whole seconds up to 400 days */
  constructor({ lifetime, absoluteLifetime, now = Date.now }: LifetimeOptions) {
    this.idle = checkSeconds(lifetime ?? 31 * 24 * 60 * 60);
    this.absolute = absoluteLifetime === undefined ? Infinity : checkSeconds(absoluteLifetime);
    this.#now = now;
  }

  /** The time, in whole seconds since 1970. */
  now(): number {
    return Math.floor(this.#now() / 1000);
  }

  /** How long a session may live on from now without being used, in seconds. */
  left({ created }: LivingSession): number {
    return Math.min(this.idle, created + this.absolute - this.now());
  }

  /** Whether a session that would last `left` seconds more should be written anew. */
  isStale(session: LivingSession, left: number): boolean {
    // Without a beginning it would have no end either, as long as it is only read.
    if (session.isUndated && this.absolute !== Infinity) return true;
    // Seldom, so that reading costs no write: at most once in a tenth of the lifetime.
    return left < this.left(session) - this.idle / 10;
  }

  /** Reads what was stored; null if the session's absolute lifetime is over. */
  unpack(text: string): LivingSession | null {
    const stored: unknown = JSON.parse(text);
    if (!isRecord(stored)) return { data: stored, created: this.now(), text };
    const { [CREATED]: created, ...data } = stored;
    if (typeof created !== "number") return { data, created: this.now(), text, isUndated: true };
    const session = { data, created, text };
    return this.left(session) > 0 ? session : null;
  }

  /**
   * What to store.
   *
   * @throws {TypeError} If the data has a key that {@linkcode unpack} would take away
   */
  pack({ data, created, text }: LivingSession): unknown {
    if (isRecord(data) && CREATED in data) {
      throw new TypeError(`Cannot keep "${CREATED}" in a session: the name is taken`);
    }
    // What is no object another program wrote: it stays as it is, and is the schema's to refuse.
    const isDated = isRecord(data) && this.absolute !== Infinity;
    const stored = isDated ? { ...data, [CREATED]: created } : data;
    return text === undefined ? stored : withDigits(stored, text);
  }
}

function isRecord(data: unknown): data is Record<string, unknown> {
  return typeof data === "object" && data !== null && !Array.isArray(data);
}

/**
 * Puts back the numbers of `text` that JavaScript rounds, such as another program's ids of 64 bits,
 * wherever `value` still has what they were rounded to.
 */
function withDigits(value: unknown, text: string): unknown {
  const rounded: unknown = JSON.parse(text);
  if (JSON.stringify(rounded) === text) return value;
  return unrounded(JSON.parse(JSON.stringify(value)), rounded, parseJson(text));
}

function unrounded(value: unknown, rounded: unknown, exact: unknown): unknown {
  if (JSON.stringify(value) === JSON.stringify(rounded)) return exact;
  if (!isRecord(value) || !isRecord(rounded) || !isRecord(exact)) return value;
  const members = Object.entries(value);
  return Object.fromEntries(
    members.map(([key, member]) => [key, unrounded(member, rounded[key], exact[key])]),
  );
}

function checkSeconds(seconds: number): number {
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_LIFETIME) return seconds;
  throw new TypeError(
    `Cannot keep sessions for "${seconds}" seconds: expected whole seconds, from 1 to ` +
      MAX_LIFETIME,
  );
}
