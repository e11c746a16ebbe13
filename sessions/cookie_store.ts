/**
 * Sessions that travel in their cookie, signed and not encrypted: whoever has the cookie can read
 * the session, and nobody without the key can change it.
 *
 * The layout is Flask's: with the digest `sha1` a Flask app with the same key and this one read each
 * other's cookies.
 *
 * Limits: of two updates at once one is lost, and an old cookie stays valid until it expires, even
 * after `destroy`.
 *
 * @module
 */
import { LIFETIME_OPTIONS, type LifetimeOf, type LifetimeOptions, Lifetimes } from "./lifetimes.ts";
import { checkOptions } from "./options.ts";
import { CLOCK_TOLERANCE, readRecord, type SessionRecord, writeRecord } from "./session_record.ts";
import type { SessionStore, StoredSession } from "./session_store.ts";
import { Signer } from "./signature.ts";

/** Flask's salt. The cookie of a session with another name has that name in it. */
const SALT = "cookie-session";

/** What {@linkcode CookieSessionStore} takes beside the key. */
export interface CookieSessionOptions extends LifetimeOptions {
  /** Older keys, with which cookies are still accepted. */
  fallbacks?: string[];
  /** By default `sha256`; Flask uses `sha1`. */
  digest?: "sha1" | "sha256";
}

interface InternalOptions {
  salt?: string;
  lifetimeOf?: LifetimeOf | undefined;
}

/**
 * Keeps sessions in signed cookies.
 *
 * @example
 * ```ts
 * import { CookieSessionStore } from "../sessions.ts";
 *
 * const store = new CookieSessionStore("a secret key of 16 characters or more");
 * const { cookie } = await store.create({ count: 1 });
 * console.log((await store.load(cookie))?.data); // { count: 1 }
 * console.log(await store.load(cookie.replace("ey", "ez"))); // null
 * ```
 */
export class CookieSessionStore implements SessionStore {
  readonly lifetime: number;
  readonly now: () => number;
  readonly dataInCookie = true;
  readonly #lifetimes: Lifetimes;
  readonly #signer: Signer;
  readonly #with: (changes: InternalOptions) => CookieSessionStore;

  /**
   * Signs with the secret key.
   *
   * @param secretKey At least 16 characters
   * @throws {TypeError} If a key is shorter, or a lifetime is invalid
   */
  constructor(
    secretKey: string,
    options: CookieSessionOptions = {},
    { salt = SALT, lifetimeOf }: InternalOptions = {},
  ) {
    checkOptions("new CookieSessionStore()", options, {
      ...LIFETIME_OPTIONS,
      fallbacks: "object",
      digest: '"sha1" or "sha256"',
    });
    const { digest = "sha256", fallbacks = [] } = options;
    this.#lifetimes = new Lifetimes(options, lifetimeOf);
    this.lifetime = this.#lifetimes.longest;
    this.now = this.#lifetimes.clock;
    this.#signer = new Signer(secretKey, { salt, digest, fallbacks });
    this.#with = (changes) =>
      new CookieSessionStore(secretKey, options, { salt, lifetimeOf, ...changes });
  }

  named(name: string): CookieSessionStore {
    return this.#with({ salt: `${SALT}.${name}` });
  }

  withLifetime(lifetimeOf: LifetimeOf): CookieSessionStore {
    return this.#with({ lifetimeOf });
  }

  async load(cookie: string): Promise<StoredSession | null> {
    const session = await this.#verify(cookie);
    return session && { ...this.#use(cookie, session), age: session.age };
  }

  async create(data: object): Promise<StoredSession> {
    return this.#sign({ data, created: this.#lifetimes.now(), isDated: true });
  }

  async update(
    cookie: string,
    change: (data: unknown) => Promise<object | null>,
  ): Promise<StoredSession | null> {
    const session = await this.#verify(cookie);
    if (session === null) return null;
    const data = await change(session.record.data);
    return data === null ? this.#use(cookie, session) : this.#sign({ ...session.record, data });
  }

  async rotate(cookie: string): Promise<StoredSession | null> {
    const session = await this.#verify(cookie);
    return session && this.#sign(session.record);
  }

  /** Does nothing: a cookie that was given out stays valid, and only the browser can remove it. */
  async destroy(): Promise<void> {}

  /** Signs again when a tenth of the lifetime has passed, since the signature has the time of use. */
  #use(cookie: string, { record, age }: VerifiedSession): StoredSession {
    const ttl = Math.min(this.#lifetimes.idle(record) - age, this.#lifetimes.secondsLeft(record));
    return this.#lifetimes.needsRenewal(record, ttl)
      ? this.#sign(record)
      : { cookie, data: record.data, ttl, renewed: false };
  }

  #sign(record: SessionRecord): StoredSession {
    const text = JSON.stringify(writeRecord(record, this.#lifetimes.absolute !== Infinity));
    const cookie = this.#signer.sign(text, this.#lifetimes.now());
    const ttl = this.#lifetimes.secondsLeft(record);
    return { cookie, data: record.data, ttl, renewed: true };
  }

  async #verify(cookie: string): Promise<VerifiedSession | null> {
    const signed = await this.#signer.verify(cookie);
    if (signed === null) return null;
    const now = this.#lifetimes.now();
    const age = now - signed.signedAt;
    // From far in the future it would outlive its lifetime.
    if (age > this.lifetime || age < -CLOCK_TOLERANCE) return null;
    const record = readRecord(signed.text, now);
    if (age > this.#lifetimes.idle(record)) return null;
    return this.#lifetimes.secondsLeft(record) > 0 ? { record, age } : null;
  }
}

interface VerifiedSession {
  readonly record: SessionRecord;
  /** Seconds since it was signed. */
  readonly age: number;
}
