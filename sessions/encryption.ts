/**
 * Encrypted texts: XChaCha20-Poly1305, which also authenticates, and whose nonces are long enough to
 * be random. https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha-03
 *
 * The layout is, in base64 for URLs: when it was encrypted (6 bytes, seconds since 1970), the nonce
 * (24), and the text with its tag (16 more than the text in UTF-8). The time and the session's name
 * are associated data: a cookie with another time, or of another session, is invalid.
 */
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { managedNonce } from "@noble/ciphers/utils.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { concatBytes, hexToBytes } from "@noble/hashes/utils.js";
import { type CookieCodec, decode, encode, numberOf, type ReadText } from "./signature.ts";

/** What the key is for (RFC 5869, `info`), so that it differs from the one that signs. */
const PURPOSE = "encrypted session cookie, XChaCha20-Poly1305";
const KEY_BYTES = 32;
const TIME_BYTES = 6;
const UTF8 = new TextEncoder();
const encrypted = managedNonce(xchacha20poly1305);

export class Cipher implements CookieCodec {
  readonly #keys: Uint8Array[];
  readonly #name: Uint8Array;

  /** @param secrets The first one encrypts; the texts of all are read */
  constructor(secrets: Uint8Array[], name: string) {
    const info = UTF8.encode(PURPOSE);
    this.#keys = secrets.map((secret) => hkdf(sha256, secret, undefined, info, KEY_BYTES));
    this.#name = UTF8.encode(name);
  }

  write(text: string, now: number): string {
    const time = hexToBytes(now.toString(16).padStart(2 * TIME_BYTES, "0"));
    const [key] = this.#keys as [Uint8Array];
    const box = encrypted(key, concatBytes(time, this.#name)).encrypt(UTF8.encode(text));
    return encode(concatBytes(time, box));
  }

  async read(cookie: string): Promise<ReadText | null> {
    if (!/^[\w-]+$/.test(cookie)) return null;
    const bytes = decode(cookie);
    // Other texts decode to the same bytes.
    if (encode(bytes) !== cookie) return null;
    const time = bytes.subarray(0, TIME_BYTES);
    for (const key of this.#keys) {
      try {
        const box = bytes.subarray(TIME_BYTES);
        const text = encrypted(key, concatBytes(time, this.#name)).decrypt(box);
        return { text: new TextDecoder().decode(text), time: numberOf(time) };
      } catch {
        // It is too short, or the tag is wrong: not by this key.
      }
    }
    return null;
  }
}
