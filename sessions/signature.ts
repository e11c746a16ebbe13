/**
 * Signed texts in the layout of Flask's session cookie, `payload.timestamp.signature`
 * (itsdangerous, `URLSafeTimedSerializer`). https://itsdangerous.palletsprojects.com/en/stable/
 *
 * @module
 */
import { hmac } from "@noble/hashes/hmac.js";
import { sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { utf8ToBytes } from "@noble/hashes/utils.js";
import { LRUCache } from "lru-cache";
import { Buffer } from "node:buffer";
import { timingSafeEqual } from "node:crypto";
import { inflateSync } from "node:zlib";

/** The shortest secret key, in characters. */
export const MIN_SECRET_LENGTH = 16;
/** What a compressed payload may become, in bytes: a cookie of 4 KiB could hold 4 MiB of zeros. */
const MAX_INFLATED_BYTES = 64 * 1024;
/** How many signed texts of about 4 KiB are remembered, so that they need not be verified again. */
const REMEMBERED = 4096;
const DIGESTS = { sha1, sha256 };

/** How texts are signed. */
export interface SignatureOptions {
  salt: string;
  digest: keyof typeof DIGESTS;
  /** Older keys, whose signatures are still accepted. */
  fallbacks: readonly string[];
}

/** A text whose signature was verified. */
export interface SignedText {
  readonly text: string;
  /** When it was signed, in seconds since 1970. */
  readonly signedAt: number;
}

/** Signs texts and verifies signatures. */
export class Signer {
  readonly #keys: PreparedKey[];
  readonly #verified = new LRUCache<string, SignedText>({ max: REMEMBERED });

  /** @throws {TypeError} If a key is shorter than {@linkcode MIN_SECRET_LENGTH} */
  constructor(secretKey: string, { salt, digest, fallbacks }: SignatureOptions) {
    this.#keys = [secretKey, ...fallbacks].map((key) => prepareKey(key, salt, DIGESTS[digest]));
  }

  /** @param now Seconds since 1970 */
  sign(text: string, now: number): string {
    const signed = `${Buffer.from(text).toString("base64url")}.${encodeTime(now)}`;
    const [key] = this.#keys as [PreparedKey];
    const cookie = `${signed}.${Buffer.from(signature(signed, key)).toString("base64url")}`;
    this.#verified.set(cookie, { text, signedAt: now });
    return cookie;
  }

  /** Returns the text, or null if none of the keys has signed it. */
  verify(cookie: string): SignedText | null {
    const known = this.#verified.get(cookie);
    if (known !== undefined) return known;
    const [, signed, payload, time, given] = /^((\.?[\w-]+)\.([\w-]+))\.([\w-]+)$/.exec(cookie) ??
      [];
    if (!signed || !payload || !time || !given) return null;
    const bytes = Buffer.from(given, "base64url");
    const isSigned = this.#keys.some((key) => {
      const wanted = signature(signed, key);
      return bytes.length === wanted.length && timingSafeEqual(bytes, wanted);
    });
    if (!isSigned) return null;
    const verified = { text: decodePayload(payload), signedAt: decodeTime(time) };
    this.#verified.set(cookie, verified);
    return verified;
  }
}

/** An HMAC that has taken in the key: cloning it costs half of computing it from the key. */
type PreparedKey = ReturnType<typeof hmac.create>;

function prepareKey(secretKey: string, salt: string, digest: typeof sha1 | typeof sha256) {
  if (secretKey.length < MIN_SECRET_LENGTH) {
    throw new TypeError(
      `Cannot sign with a secret key of ${secretKey.length} characters: expected ` +
        `${MIN_SECRET_LENGTH} at least`,
    );
  }
  return hmac.create(digest, hmac(digest, utf8ToBytes(secretKey), utf8ToBytes(salt)));
}

function signature(text: string, key: PreparedKey): Uint8Array {
  return key.clone().update(utf8ToBytes(text)).digest();
}

/** Seconds since 1970 as big-endian bytes, in base64. */
function encodeTime(seconds: number): string {
  const hex = seconds.toString(16);
  return Buffer.from(hex.padStart(hex.length + hex.length % 2, "0"), "hex").toString("base64url");
}

function decodeTime(text: string): number {
  return parseInt(Buffer.from(text, "base64url").toString("hex"), 16);
}

/** Returns the text of a payload. A leading dot says that Flask has compressed it. */
function decodePayload(payload: string): string {
  if (!payload.startsWith(".")) return Buffer.from(payload, "base64url").toString();
  const bytes = Buffer.from(payload.slice(1), "base64url");
  try {
    return inflateSync(bytes, { maxOutputLength: MAX_INFLATED_BYTES }).toString();
  } catch (error) {
    // Whoever has the key has signed it: it is data, though none that a schema accepts.
    if (error instanceof Error) return payload;
    throw error;
  }
}
