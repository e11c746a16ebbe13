/**
 * Responses, each made at once with all its headers: headers that are set on a finished response
 * cost more than the rest of a read.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { JsonText } from "../stores/json/text.ts";
import type { Entry } from "../stores/store.ts";
import type { Exchange } from "./exchange.ts";
import { SMALL_BYTES } from "./memory.ts";
import { streamOf } from "./pieces.ts";

/** No browser may run a response or frame it, whatever type it takes it for. */
export const GUARD_HEADERS = {
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
};
/** The headers of JSON. */
export const JSON_HEADERS = { "Content-Type": "application/json", ...GUARD_HEADERS };

/** Makes a response of a text; for HEAD, of its length. */
export function textResponse(
  exchange: Exchange,
  status: number,
  text: string,
  headers: Record<string, string> = JSON_HEADERS,
): Response {
  if (exchange.method === "HEAD") {
    const length = String(Buffer.byteLength(text));
    return new Response(null, { status, headers: { ...headers, "Content-Length": length } });
  }
  const body = text.length > SMALL_BYTES ? streamOf(exchange, text) : text;
  return new Response(body, { status, headers });
}

/** Makes a response of a value's JSON text. */
export function jsonResponse(
  exchange: Exchange,
  value: unknown,
  headers?: Record<string, string>,
): Response {
  return textResponse(exchange, 200, JSON.stringify(value), headers);
}

/** The headers of an entry's JSON; without an entry, there is no tag. */
export function entryHeaders(entry: Entry | null): Record<string, string> {
  const headers: Record<string, string> = {
    "Content-Type": "application/json",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": GUARD_HEADERS["Content-Security-Policy"],
    "Cache-Control": "no-cache",
    "Vary": "Accept",
  };
  if (entry === null) return headers;
  headers["ETag"] = `"${entry.revision}"`;
  if (entry.expires !== null) headers["Expires"] = new Date(entry.expires).toUTCString();
  return headers;
}

/** The text of a key and its value; without a value, of null. */
export function memberText(key: string, value: JsonText | undefined): string {
  return `{${JSON.stringify(key)}:${value ?? "null"}}`;
}

/** The text of an object of values. */
export function objectText(values: ReadonlyMap<string, JsonText>): string {
  const members = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value}`);
  return `{${members.join()}}`;
}
