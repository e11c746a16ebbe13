/**
 * Entries as the service's answers show them. The values are JSON text, which stays as it is.
 *
 * @module
 */
import type { Context } from "hono";
import type { JsonText } from "../stores/json_text.ts";
import type { Entry } from "../stores/store.ts";

/** The text of an object of JSON texts; a value that is not there is null. */
export function object(values: Iterable<readonly [string, JsonText | undefined]>): string {
  const parts = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value ?? "null"}`);
  return `{${parts.join(",")}}`;
}

export function answer(
  c: Context,
  status: 200 | 201,
  text: string | ReadableStream<Uint8Array>,
  headers: Record<string, string> = {},
): Response {
  return c.body(text, status, { "Content-Type": "application/json", ...headers });
}

export function entryHeaders(entry: Entry | null): Record<string, string> {
  const headers: Record<string, string> = { "Cache-Control": "no-cache" };
  if (entry) headers["ETag"] = `"${entry.revision}"`;
  if (entry?.expires) headers["Expires"] = new Date(entry.expires).toUTCString();
  return headers;
}
