/**
 * Sessions that travel in their cookie, signed or encrypted. Anyone who has a signed cookie can read
 * the session; only the server's key can change it. An encrypted cookie cannot be read either.
 *
 * The layout of signed cookies is Flask's: with the digest `sha1`, a Flask app with the same key and
 * this one read each other's cookies.
 *
 * Limits: of two concurrent updates one is lost, and an old cookie stays valid until it expires, even
 * after `destroy`.
 */
import { LRUCache } from "lru-cache";
import { Cipher } from "./encryption.ts";
import { LIFETIME_OPTIONS, type LifetimeOf, type LifetimeOptions, Lifetimes } from "./lifetimes.ts";
import { checkOptions } from "./options.ts";
import { CLOCK_TOLERANCE, readRecord, type SessionRecord, writeRecord } from "./session_record.ts";
import type { DataChange, SessionStore, StoredSession } from "./session_store.ts";
import { type CookieCodec, type ReadText, secretBytes, Signer } from "./signature.ts";

/** Flask's salt. The cookie of a session with another name has that name in it. */
const SALT = "cookie-session";

/** Browsers send no longer cookies; such a text is not verified. */
const MAX_COOKIE_LENGTH = 4096;

/** What {@linkcode CookieSessionStore} takes beside the key. */
export interface CookieSessionOptions extends LifetimeOptions {
  /** Older keys, whose cookies are still accepted. */
  fallbacks?: (string | Uint8Array)[];
  /** Of signed cookies: by default `sha256`; Flask uses `sha1`. */
  digest?: "sha1" | "sha256";
  /**
   * Whether to hide the data from the browser; by default not. For a switch without losing sessions:
   * `"read-encrypted"` signs and reads both kinds, `"read-signed"` encrypts and reads both.
   */
  encrypt?: boolean | "read-encrypted" | "read-signed";
}

interface InternalOptions {
  salt?: string;
  lifetimeOf?: LifetimeOf | undefined;
  /** How many verified cookies, of up to 4 KiB, are cached. */
  remembered?: number;
}

/**
 * Keeps sessions in signed or encrypted cookies.
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
  readonly dataInCookie: true | "encrypted";
  readonly #lifetimes: Lifetimes;
  /** The first one writes; all read. */
  readonly #codecs: readonly [CookieCodec, ...CookieCodec[]];
  readonly #verified: LRUCache<string, ReadText>;
  readonly #with: (changes: InternalOptions) => CookieSessionStore;

  /**
   * Signs or encrypts with the secret key.
   *
   * @param secretKey At least 16 characters or bytes
   * @throws {TypeError} If a key is shorter, or a lifetime is invalid
   */
  constructor(
    secretKey: string | Uint8Array,
    options: CookieSessionOptions = {},
    { salt = SALT, lifetimeOf, remembered = 1024 }: InternalOptions = {},
  ) {
    if (!Array.isArray(options?.fallbacks ?? [])) {
      const wanted = "expected an array of secret keys";
      throw new TypeError(`Cannot use these fallbacks in new CookieSessionStore(): ${wanted}`);
    }
    checkOptions("new CookieSessionStore()", options, {
      ...LIFETIME_OPTIONS,
      fallbacks: "object",
      digest: '"sha1" or "sha256"',
      encrypt: 'boolean or "read-encrypted" or "read-signed"',
    });
    const { digest = "sha256", fallbacks = [], encrypt = false } = options;
    this.#verified = new LRUCache({ max: remembered });
    this.#lifetimes = new Lifetimes(options, lifetimeOf);
    this.lifetime = this.#lifetimes.longest;
    this.now = this.#lifetimes.clock;
    const secrets = [secretKey, ...fallbacks].map(secretBytes);
    const signer = new Signer(secrets, salt, digest);
    const cipher = new Cipher(secrets, salt);
    const codecs = {
      "false": [signer],
      "read-encrypted": [signer, cipher],
      "read-signed": [cipher, signer],
      "true": [cipher],
    } as const;
    this.#codecs = codecs[`${encrypt}`];
    this.dataInCookie = this.#codecs[0] === signer ? true : "encrypted";
    this.#with = (changes) =>
      new CookieSessionStore(secretKey, options, { salt, lifetimeOf, remembered, ...changes });
  }

  named(name: string): CookieSessionStore {
    return this.#with({ salt: `${SALT}.${name}` });
  }

  withLifetime(lifetimeOf: LifetimeOf): CookieSessionStore {
    return this.#with({ lifetimeOf });
  }

  async load(cookie: string, isLate = false): Promise<StoredSession | null> {
    const session = await this.#verify(cookie);
    return session && { ...this.#use(cookie, session, isLate), age: session.age };
  }

  async create(data: object): Promise<StoredSession> {
    return this.#write({ data, created: this.#lifetimes.now(), isDated: true });
  }

  async update(cookie: string, change: DataChange): Promise<StoredSession | null> {
    const session = await this.#verify(cookie);
    if (session === null) return null;
    const data = await change(session.record.data);
    return data === null ? this.#use(cookie, session) : this.#write({ ...session.record, data });
  }

  async rotate(cookie: string): Promise<StoredSession | null> {
    const session = await this.#verify(cookie);
    return session && this.#write(session.record);
  }

  /** Does nothing: only the browser can remove a cookie, which stays valid until it expires. */
  async destroy(): Promise<void> {}

  /** Renews the cookie after a tenth of the lifetime, since it holds the time of its last use. */
  #use(cookie: string, { record, age }: VerifiedSession, isLate = false): StoredSession {
    const ttl = Math.min(this.#lifetimes.idle(record) - age, this.#lifetimes.secondsLeft(record));
    return !isLate && this.#lifetimes.needsRenewal(record, ttl)
      ? this.#write(record)
      : { cookie, data: record.data, ttl, renewed: false };
  }

  #write(record: SessionRecord): StoredSession {
    const text = JSON.stringify(writeRecord(record, this.#lifetimes.absolute !== Infinity));
    const time = this.#lifetimes.now();
    const cookie = this.#codecs[0].write(text, time);
    this.#verified.set(cookie, { text, time });
    const ttl = this.#lifetimes.secondsLeft(record);
    return { cookie, data: record.data, ttl, renewed: true };
  }

  /** Returns a promise only for a cookie that is not cached, which saves time on each page. */
  #verify(cookie: string): VerifiedSession | null | Promise<VerifiedSession | null> {
    const read = this.#verified.get(cookie);
    return read ? this.#living(read) : this.#read(cookie).then((read) => this.#living(read));
  }

  /** Returns the session that was in a cookie, or null if there is none, or its time is over. */
  #living(read: ReadText | null): VerifiedSession | null {
    if (read === null) return null;
    const now = this.#lifetimes.now();
    const age = now - read.time;
    // A cookie from far in the future would outlive its lifetime.
    if (age > this.lifetime || age < -CLOCK_TOLERANCE) return null;
    const record = readRecord(read.text, now);
    if (age > this.#lifetimes.idle(record)) return null;
    return this.#lifetimes.secondsLeft(record) > 0 ? { record, age } : null;
  }

  async #read(cookie: string): Promise<ReadText | null> {
    if (cookie.length > MAX_COOKIE_LENGTH) return null;
    for (const codec of this.#codecs) {
      const read = await codec.read(cookie);
      if (read === null) continue;
      this.#verified.set(cookie, read);
      return read;
    }
    return null;
  }
}

interface VerifiedSession {
  readonly record: SessionRecord;
  /** Seconds since the cookie was made. */
  readonly age: number;
}
