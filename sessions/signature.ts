/**
 * Signed texts in the layout of Flask's session cookie, `payload.timestamp.signature`
 * (itsdangerous, `URLSafeTimedSerializer`). https://itsdangerous.palletsprojects.com/en/stable/
 */
import { equalBytes } from "@noble/ciphers/utils.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { hexToBytes } from "@noble/hashes/utils.js";
import { decodeBase64Url, encodeBase64Url } from "hono/utils/encode";

/** The shortest secret key, in characters or bytes. */
export const MIN_SECRET_LENGTH = 16;
/** The most bytes of a decompressed payload: a cookie of 4 KiB could hold 4 MiB of zeros. */
const MAX_INFLATED_BYTES = 64 * 1024;
const DIGESTS = { sha1, sha256 };
const UTF8 = new TextEncoder();
/** Holds the bytes of {@linkcode bytesOf}: several times a cookie. */
const SCRATCH = new Uint8Array(16 * 1024);
/** Base64 for URLs (RFC 4648, section 5). Node 24 lacks `toBase64`, which is three times as fast. */
export const encode: (bytes: Uint8Array) => string = "toBase64" in Uint8Array.prototype
  ? (bytes) => bytes.toBase64({ alphabet: "base64url", omitPadding: true })
  : (bytes) => encodeBase64Url(bytes.slice().buffer).replaceAll("=", "");

/** Makes cookies that nobody without the key can make. */
export interface CookieCodec {
  /** @param now Seconds since 1970 */
  write(text: string, now: number): string;
  /** Returns what is in a cookie, or null if it is by none of the keys. */
  read(cookie: string): Promise<ReadText | null>;
}

/** What was in a cookie. */
export interface ReadText {
  readonly text: string;
  /** When the cookie was made, in seconds since 1970. */
  readonly time: number;
}

export class Signer implements CookieCodec {
  readonly #keys: Sign[];

  /** @param secrets The first one signs; the signatures of all are accepted */
  constructor(secrets: Uint8Array[], salt: string, digest: keyof typeof DIGESTS) {
    this.#keys = secrets.map((secret) => prepareKey(secret, salt, DIGESTS[digest]));
  }

  write(text: string, now: number): string {
    const signed = `${encode(bytesOf(text))}.${encodeTime(now)}`;
    const [sign] = this.#keys as [Sign];
    return `${signed}.${sign(signed)}`;
  }

  async read(cookie: string): Promise<ReadText | null> {
    const [, signed, payload, time, given] = /^((\.?[\w-]+)\.([\w-]+))\.([\w-]+)$/.exec(cookie) ??
      [];
    if (!signed || !payload || !time || !given) return null;
    const bytes = UTF8.encode(given);
    // In a time that depends on the lengths only.
    const isSigned = this.#keys.some((sign) => equalBytes(bytes, UTF8.encode(sign(signed))));
    return isSigned ? { text: await decodePayload(payload), time: numberOf(decode(time)) } : null;
  }
}

/** Returns the signature of a text, in base64. */
type Sign = (text: string) => string;

/**
 * The HMAC takes in the key once. Each signature continues from a copy of that state, which costs
 * half; all copy into one object, which saves another third.
 */
function prepareKey(secret: Uint8Array, salt: string, digest: typeof sha1 | typeof sha256): Sign {
  const state = hmac.create(digest, hmac(digest, secret, UTF8.encode(salt)));
  const copy = state.clone();
  return (text) => encode(state._cloneInto(copy).update(bytesOf(text)).digest());
}

/** Returns the bytes of a text, valid until the next call. An array of their own costs five times as much. */
function bytesOf(text: string): Uint8Array {
  if (3 * text.length > SCRATCH.length) return UTF8.encode(text);
  return SCRATCH.subarray(0, UTF8.encodeInto(text, SCRATCH).written);
}

/** @throws {TypeError} If the key is not a text or bytes of {@linkcode MIN_SECRET_LENGTH} */
export function secretBytes(secretKey: string | Uint8Array): Uint8Array {
  const isText = typeof secretKey === "string";
  const length = isText || secretKey instanceof Uint8Array ? secretKey.length : NaN;
  if (length >= MIN_SECRET_LENGTH) return isText ? UTF8.encode(secretKey) : secretKey;
  // Whatever else it is may be secret.
  const kind = secretKey === undefined ? "undefined" : "neither text nor bytes";
  const units = isText ? "characters" : "bytes";
  const what = Number.isNaN(length) ? `that is ${kind}` : `of ${length} ${units}`;
  const wanted = `expected ${MIN_SECRET_LENGTH} characters or bytes at least`;
  throw new TypeError(`Cannot use a secret key ${what}: ${wanted}`);
}

/** Returns no bytes for invalid base64, as from an app with the same key and another layout. */
export function decode(text: string): Uint8Array<ArrayBuffer> {
  return text.length % 4 === 1 ? new Uint8Array() : decodeBase64Url(text);
}

/** Seconds since 1970 as big-endian bytes, in base64. All cookies of one second have the same. */
function encodeTime(seconds: number): string {
  if (seconds !== lastTime.seconds) {
    const hex = seconds.toString(16);
    const text = encode(hexToBytes(hex.padStart(hex.length + hex.length % 2, "0")));
    lastTime = { seconds, text };
  }
  return lastTime.text;
}

let lastTime = { seconds: NaN, text: "" };

/** Returns the number that big-endian bytes stand for. */
export function numberOf(bytes: Uint8Array): number {
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

/** Returns the text of a payload. A leading dot says that Flask has compressed it. */
async function decodePayload(payload: string): Promise<string> {
  if (!payload.startsWith(".")) return new TextDecoder().decode(decode(payload));
  try {
    return await inflate(decode(payload.slice(1)));
  } catch {
    // It was signed with the key, so it is data, though no schema accepts it.
    return payload;
  }
}

/** @throws {RangeError} If there are more than {@linkcode MAX_INFLATED_BYTES} */
async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const text = new TextDecoder();
  let size = 0;
  let result = "";
  for await (const chunk of inflated) {
    size += chunk.byteLength;
    if (size > MAX_INFLATED_BYTES) throw new RangeError("The payload is too large");
    result += text.decode(chunk, { stream: true });
  }
  return result + text.decode();
}
