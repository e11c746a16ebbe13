/** Errors as clients see them: `application/problem+json`, RFC 9457. */
import { HTTPException } from "hono/http-exception";
import { STATUS_CODES } from "node:http";
import { GUARD_HEADERS } from "../server/guards.ts";
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
import { type Answer, entryHeaders, memberText } from "./answers.ts";
import { type Held, TooMuchHeld } from "./held.ts";

/** RFC 9110's names of the statuses; Node has an older one. */
const TITLES: typeof STATUS_CODES = { ...STATUS_CODES, 413: "Content Too Large" };
/** The longest description of an error, in characters. */
const MAX_DETAIL = 1000;
/** How long a client should wait after a 503, in seconds. */
const RETRY_AFTER = "1";

export function badRequest(message: string, cause?: unknown): HTTPException {
  return new HTTPException(400, { message, cause });
}

export function tooLarge(message: string): HTTPException {
  return new HTTPException(413, { message });
}

interface Description {
  status: number;
  detail: string;
  outcome?: "unchanged" | "unknown";
  line?: number;
  restored?: number;
}

/** Describes an error to a client. An error of an unknown kind is internal. */
export function describe(error: unknown): Description {
  if (error instanceof RestoreStopped) {
    const { restored, line, cause, message } = error;
    const ofLine = line !== undefined && { detail: shortened(message), line };
    return { ...describe(cause), ...ofLine, restored };
  }
  if (error instanceof HTTPException) {
    return { status: error.status, detail: shortened(error.message) };
  }
  if (error instanceof TooMuchHeld) {
    return { status: 503, detail: error.message, outcome: "unchanged" };
  }
  if (error instanceof ValueTooLarge) return { status: 413, detail: error.message };
  if (error instanceof InvalidArgument) return { status: 400, detail: shortened(error.message) };
  if (error instanceof RevisionConflict) return { status: 412, detail: error.message };
  if (error instanceof ChangesLost) return { status: 410, detail: shortened(error.message) };
  if (error instanceof StoreFull) return { status: 507, detail: "The store is full" };
  if (error instanceof StoreUnavailable) {
    return { status: 503, detail: "The store is unavailable", outcome: error.outcome };
  }
  return { status: 500, detail: "Internal error" };
}

export function problemAnswer(error: unknown, held: Held): Answer {
  const { status, ...description } = describe(error);
  report(error);
  const headers: Record<string, string> = {
    ...(error instanceof HTTPException ? Object.fromEntries(error.res?.headers ?? []) : {}),
    ...(error instanceof RevisionConflict ? entryHeaders(error.current) : {}),
    ...GUARD_HEADERS,
    "Content-Type": "application/problem+json",
    "Vary": "Accept",
  };
  if (status === 503) headers["Retry-After"] = RETRY_AFTER;
  const body = JSON.stringify({ title: TITLES[status] ?? "Error", status, ...description });
  if (!(error instanceof RevisionConflict)) return { status, headers, body };
  const { key, current } = error;
  const longer = `${body.slice(0, -1)},"current":${memberText(key, current?.value)}}`;
  try {
    held.send(longer);
  } catch (error) {
    if (!(error instanceof TooMuchHeld)) throw error;
    return { status, headers, body };
  }
  return { status, headers, body: longer };
}

/** Cuts the middle out of an error that quotes a long input. */
function shortened(detail: string): string {
  if (detail.length <= MAX_DETAIL) return detail;
  return `${detail.slice(0, MAX_DETAIL / 2)}…${detail.slice(-MAX_DETAIL / 2)}`;
}

/** Logs what the client is not told: why a store failed, and the stack of an internal error. */
export function report(error: unknown): void {
  if (error instanceof RestoreStopped) return report(error.cause);
  const { status } = describe(error);
  if (status < 500 || error instanceof HTTPException || error instanceof TooMuchHeld) return;
  const { stack = "", message } = error as Error;
  const shown = printable(message);
  console.error(`kv: ${status === 500 ? stack.replace(message, () => shown) : shown}`);
}
