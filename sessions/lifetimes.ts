/** How long sessions live. */
import { isPromise } from "./data_schema.ts";
import { CLOCK_TOLERANCE, type SessionRecord } from "./session_record.ts";

/** RFC 6265bis, section 5.5: browsers keep a cookie for 400 days at most. */
export const MAX_LIFETIME = 400 * 24 * 60 * 60;

/** The lifetimes that both session stores take. */
export interface LifetimeOptions {
  /** Seconds after which an unused session ends: by default 31 days, as in Flask. */
  lifetime?: number;
  /** Seconds after which a session ends even if it is in use: by default never. */
  absoluteLifetime?: number | undefined;
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
}

/** The types of these options, for `checkOptions`. */
export const LIFETIME_OPTIONS = { lifetime: "number", absoluteLifetime: "number", now: "function" };

/** Returns the seconds after which an unused session ends, given what is stored. */
export type LifetimeOf = (stored: unknown) => number;

/** The idle and the absolute lifetime of one store's sessions, in seconds. */
export class Lifetimes {
  /** The longest idle lifetime. */
  readonly longest: number;
  readonly absolute: number;
  readonly #idle: number | LifetimeOf;
  /** The clock, in milliseconds since 1970. */
  readonly clock: () => number;
  /** The last answer of the app's function, which may parse the data: a request asks several times. */
  #last: { record: SessionRecord; idle: number } | undefined;

  /** @throws {TypeError} If a lifetime is not a whole number of seconds up to 400 days */
  constructor(
    { lifetime = 31 * 24 * 60 * 60, absoluteLifetime, now }: LifetimeOptions,
    lifetimeOf?: LifetimeOf,
  ) {
    this.#idle = lifetimeOf ?? checkSeconds(lifetime);
    this.longest = lifetimeOf ? MAX_LIFETIME : lifetime;
    this.absolute = absoluteLifetime === undefined ? Infinity : checkSeconds(absoluteLifetime);
    // Date is looked up at each call: a test may replace it after this.
    this.clock = now ?? (() => Date.now());
  }

  /** Whole seconds since 1970. */
  now(): number {
    const seconds = Math.floor(this.clock() / 1000);
    // Otherwise no session would ever end.
    if (Number.isNaN(seconds)) {
      throw new TypeError("Cannot tell the time by now(): expected a number");
    }
    return seconds;
  }

  /** @throws {TypeError} If the app's function returns something else than such seconds */
  idle(record: SessionRecord): number {
    if (typeof this.#idle === "number") return this.#idle;
    if (this.#last?.record !== record) {
      this.#last = { record, idle: checkSeconds(this.#idle(record.data)) };
    }
    return this.#last.idle;
  }

  /** Seconds until a session ends if this is its last use; 0 or less if it has ended. */
  secondsLeft(record: SessionRecord): number {
    const idle = this.idle(record);
    if (this.absolute === Infinity) return idle;
    return Math.min(idle, record.created + this.absolute - this.now());
  }

  /**
   * Whether a session that would end in `ttl` seconds should be written again: at most once in a
   * tenth of the lifetime, so that reading seldom costs a write, and once more for the time that is
   * left of the absolute lifetime.
   */
  needsRenewal(record: SessionRecord, ttl: number): boolean {
    // The first use must be stored, otherwise an absolute lifetime would never end it.
    if (!record.isDated && this.absolute !== Infinity) return true;
    const idle = this.idle(record);
    const left = this.secondsLeft(record);
    if (left === idle) return ttl < left - idle / 10;
    // Rounding takes up to a second, and another server whose clock is ahead some more.
    return ttl < left - Math.max(1, Math.min(idle / 100, CLOCK_TOLERANCE));
  }
}

function checkSeconds(seconds: number): number {
  if (isPromise(seconds)) throw new TypeError("Cannot wait for a lifetime: expected whole seconds");
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_LIFETIME) return seconds;
  const wanted = `expected whole seconds, from 1 to ${MAX_LIFETIME}`;
  throw new TypeError(`Cannot keep sessions for "${seconds}" seconds: ${wanted}`);
}
