/**
 * Errors as clients see them: `application/problem+json`, RFC 9457.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { Buffer } from "node:buffer";
import { STATUS_CODES } from "node:http";
import { printable } from "../server/log.ts";
import { RestoreStopped } from "../stores/dumps.ts";
import {
  ChangesLost,
  InvalidArgument,
  RevisionConflict,
  StoreFull,
  StoreUnavailable,
  ValueTooLarge,
} from "../stores/store.ts";
import { entryHeaders, GUARD_HEADERS, memberText } from "./responses.ts";

/** RFC 9110's names of the statuses; Node has an older one. */
const TITLES: typeof STATUS_CODES = { ...STATUS_CODES, 413: "Content Too Large" };
/** How long a client should wait after a 503, in seconds. */
const RETRY_AFTER = "1";

/** The error of a request that can never succeed as it is. */
export function badRequest(message: string, cause?: unknown): HTTPException {
  return new HTTPException(400, { message, cause });
}

/** The error of a request that is over a limit. */
export function tooLarge(message: string): HTTPException {
  return new HTTPException(413, { message });
}

/** The error of a method that a path does not have. */
export function notAllowed(method: string, allowed: string): HTTPException {
  return new HTTPException(405, {
    message: `Cannot ${method} here: expected ${allowed}`,
    res: new Response(null, { headers: { Allow: allowed } }),
  });
}

/** What a client learns of an error. */
interface Description {
  status: number;
  detail: string;
  outcome?: "unchanged" | "unknown";
  line?: number | undefined;
  restored?: number;
}

/** Describes an error to a client. An error of any other kind is ours. */
export function describe(error: unknown): Description {
  if (error instanceof RestoreStopped) {
    const { restored, line, cause, message } = error;
    const description = describe(cause);
    return line === undefined
      ? { ...description, restored }
      : { ...description, detail: message, line, restored };
  }
  if (error instanceof HTTPException) return { status: error.status, detail: error.message };
  if (error instanceof ValueTooLarge) return { status: 413, detail: error.message };
  if (error instanceof InvalidArgument) return { status: 400, detail: error.message };
  if (error instanceof RevisionConflict) return { status: 412, detail: error.message };
  if (error instanceof ChangesLost) return { status: 410, detail: error.message };
  if (error instanceof StoreFull) return { status: 507, detail: "The store is full" };
  if (error instanceof StoreUnavailable) {
    return { status: 503, detail: "The store is unavailable", outcome: error.outcome };
  }
  return { status: 500, detail: "Internal error" };
}

/** Makes the response of an error. */
export function problemResponse(method: string, error: unknown): Response {
  const { status, ...description } = describe(error);
  report(error);
  const headers = new Headers(error instanceof HTTPException ? error.res?.headers : {});
  let text = JSON.stringify({ title: TITLES[status] ?? "Error", status, ...description });
  if (error instanceof RevisionConflict) {
    const { key, current } = error;
    for (const [name, value] of Object.entries(entryHeaders(current))) headers.set(name, value);
    text = `${text.slice(0, -1)},"current":${memberText(key, current?.value)}}`;
  }
  for (const [name, value] of Object.entries(GUARD_HEADERS)) headers.set(name, value);
  headers.set("Content-Type", "application/problem+json");
  headers.set("Vary", "Accept");
  if (status === 503) headers.set("Retry-After", RETRY_AFTER);
  if (method === "HEAD") headers.set("Content-Length", String(Buffer.byteLength(text)));
  return new Response(method === "HEAD" ? null : text, { status, headers });
}

/** Logs what the client does not learn: why a store failed, and where an error of ours is. */
export function report(error: unknown): void {
  if (error instanceof RestoreStopped) return report(error.cause);
  const { status } = describe(error);
  if (status < 500 || error instanceof HTTPException) return;
  const { stack = "", message } = error as Error;
  const shown = printable(message);
  console.error(`kv: ${status === 500 ? stack.replace(message, () => shown) : shown}`);
}
