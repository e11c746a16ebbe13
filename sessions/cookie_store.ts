/**
 * Sessions that travel in their cookie, signed and not encrypted: whoever has the cookie can read
 * the session, and nobody without the key can change it.
 *
 * The layout is Flask's, `payload.timestamp.signature` (itsdangerous, `URLSafeTimedSerializer`, with
 * the salt `cookie-session`): with the digest `sha1` a Flask app and this one read each other's
 * cookies. https://itsdangerous.palletsprojects.com/en/stable/
 *
 * What a cookie cannot do: two updates at once keep one, and an old cookie stays valid until it
 * expires, even after `destroy`.
 *
 * @module
 */
import { hmac } from "@noble/hashes/hmac.js";
import { sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { Buffer } from "node:buffer";
import { timingSafeEqual } from "node:crypto";
import { inflateSync } from "node:zlib";
import {
  type LifetimeOptions,
  Lifetimes,
  type LivingSession,
  type SessionStore,
  type StoredSession,
} from "./session_store.ts";

const SALT = "cookie-session";
export const MIN_SECRET_LENGTH = 16;
/** What a compressed payload may become, in bytes: a cookie of 4 KiB could hold 4 MiB of zeros. */
const MAX_INFLATED_BYTES = 64 * 1024;
const DIGESTS = { sha1, sha256 };

/** What {@linkcode CookieSessionStore} takes beside the key. */
export interface CookieStoreOptions extends LifetimeOptions {
  /** Older keys, with which cookies are still accepted. */
  fallbacks?: string[];
  /** By default `sha256`; `sha1` is what Flask takes. */
  digest?: "sha1" | "sha256";
}

/**
 * Keeps sessions in signed cookies.
 *
 * @example
 * ```ts
 * import { CookieSessionStore } from "../sessions.ts";
 *
 * const store = new CookieSessionStore("a secret key of 16 characters or more");
 * const { cookie } = await store.update(null, () => Promise.resolve({ count: 1 }));
 * console.log((await store.load(cookie))?.data); // { count: 1 }
 * console.log(await store.load(cookie.replace("ey", "ez"))); // null
 * ```
 */
export class CookieSessionStore implements SessionStore {
  readonly lifetime: number;
  readonly #lifetimes: Lifetimes;
  readonly #digest: typeof sha1 | typeof sha256;
  /** What cookies are signed with. */
  readonly #key: Uint8Array;
  /** What cookies may be signed with. */
  readonly #keys: Uint8Array[];

  /**
   * @param secretKey At least 16 characters
   * @throws {TypeError} If a key is shorter, or a lifetime is invalid
   */
  constructor(secretKey: string, options: CookieStoreOptions = {}) {
    const { fallbacks = [], digest = "sha256" } = options;
    this.#lifetimes = new Lifetimes(options);
    this.lifetime = this.#lifetimes.idle;
    this.#digest = DIGESTS[digest];
    this.#key = deriveKey(secretKey, this.#digest);
    this.#keys = [this.#key, ...fallbacks.map((key) => deriveKey(key, this.#digest))];
  }

  async load(cookie: string): Promise<StoredSession | null> {
    const session = this.#verify(cookie);
    if (session === null) return null;
    // Signed anew, the cookie's age begins anew.
    const renewed = this.#lifetimes.isStale(session, this.lifetime - session.age);
    return { cookie: renewed ? this.#sign(session) : cookie, data: session.data, renewed };
  }

  async update(
    cookie: string | null,
    change: (data: unknown) => Promise<object>,
  ): Promise<StoredSession> {
    const before = cookie === null ? null : this.#verify(cookie);
    const data = await change(before?.data ?? null);
    const session = { created: this.#lifetimes.now(), ...before, data };
    return { cookie: this.#sign(session), data, renewed: true };
  }

  async rotate(cookie: string): Promise<StoredSession | null> {
    const session = this.#verify(cookie);
    return session && { cookie: this.#sign(session), data: session.data, renewed: true };
  }

  /** A cookie that was given out cannot be taken back: clearing it is the browser's part. */
  async destroy(): Promise<void> {}

  #sign(session: LivingSession): string {
    const payload = Buffer.from(JSON.stringify(this.#lifetimes.pack(session)));
    const signed = `${payload.toString("base64url")}.${timestampText(this.#lifetimes.now())}`;
    return `${signed}.${this.#signature(signed, this.#key).toString("base64url")}`;
  }

  #verify(cookie: string): LivingSession & { age: number } | null {
    const [, signed, payload, timestamp, signature] =
      /^((\.?[\w-]+)\.([\w-]+))\.([\w-]+)$/.exec(cookie) ?? [];
    if (!signed || !payload || !timestamp || !signature) return null;
    const given = Buffer.from(signature, "base64url");
    const isOurs = this.#keys.some((key) => {
      const wanted = this.#signature(signed, key);
      return given.length === wanted.length && timingSafeEqual(given, wanted);
    });
    if (!isOurs) return null;
    // Another machine's clock may be a little ahead, and then the cookie is new.
    const age = Math.max(0, this.#lifetimes.now() - timestampSeconds(timestamp));
    if (age > this.lifetime) return null;
    const session = this.#lifetimes.unpack(payloadText(payload));
    return session && { ...session, age };
  }

  #signature(signed: string, key: Uint8Array): Buffer {
    return Buffer.from(hmac(this.#digest, key, Buffer.from(signed)));
  }
}

/** @throws {TypeError} If the key is too short to keep a signature safe */
function deriveKey(secretKey: string, digest: typeof sha1 | typeof sha256): Uint8Array {
  if (secretKey.length < MIN_SECRET_LENGTH) {
    throw new TypeError(
      `Cannot sign with a secret key of ${secretKey.length} characters: expected ` +
        `${MIN_SECRET_LENGTH} at least`,
    );
  }
  return hmac(digest, Buffer.from(secretKey), Buffer.from(SALT));
}

/** Seconds since 1970 as big-endian bytes, in base64. */
function timestampText(seconds: number): string {
  const hex = seconds.toString(16);
  return Buffer.from(hex.padStart(hex.length + hex.length % 2, "0"), "hex").toString("base64url");
}

function timestampSeconds(text: string): number {
  return parseInt(Buffer.from(text, "base64url").toString("hex"), 16);
}

/** The JSON of a payload. A leading dot says that Flask has compressed it. */
function payloadText(payload: string): string {
  if (!payload.startsWith(".")) return Buffer.from(payload, "base64url").toString();
  const bytes = Buffer.from(payload.slice(1), "base64url");
  return inflateSync(bytes, { maxOutputLength: MAX_INFLATED_BYTES }).toString();
}
