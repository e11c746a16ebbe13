/** Cookies as Flask signs them. */
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";

/** A cookie that Flask signed some seconds ago; the payload is encoded already. */
export function flaskCookie(
  payload: string,
  age: number,
  secretKey: string | Uint8Array,
): string {
  const seconds = Math.floor(Date.now() / 1000) - age;
  const timestamp = Buffer.from(seconds.toString(16), "hex").toString("base64url");
  const signed = `${payload}.${timestamp}`;
  const key = createHmac("sha1", secretKey).update("cookie-session").digest();
  return `${signed}.${createHmac("sha1", key).update(signed).digest("base64url")}`;
}
