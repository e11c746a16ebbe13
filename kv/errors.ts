/**
 * Errors as the service's clients see them: `application/problem+json`, RFC 9457.
 *
 * @module
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { STATUS_CODES } from "node:http";
import {
  ChangesLost,
  InvalidArgument,
  RevisionConflict,
  StoreFull,
  StoreUnavailable,
  ValueTooLarge,
} from "../stores/store.ts";
import { entryHeaders, object } from "./responses.ts";

/** RFC 9110's names of the statuses, of which Node has one in an older form. */
const TITLES: typeof STATUS_CODES = { ...STATUS_CODES, 413: "Content Too Large" };
/** What a client that got a 503 should wait, in seconds. */
const RETRY_AFTER = "1";

/** A line of a restore that cannot be written, and why. */
export class BadLine extends Error {
  constructor(override readonly cause: unknown, readonly line: number) {
    super((cause as Error).message);
  }
}

/** A restore that came to an end early, by whatever `cause`. */
export class RestoreStopped extends Error {
  /** @param restored How many lines were written before */
  constructor(override readonly cause: unknown, readonly restored: number) {
    super((cause as Error).message);
  }
}

/** What a client learns of an error. */
interface Description {
  status: number;
  detail: string;
  outcome?: "unchanged" | "unknown";
  /** Of a restore: the number of the bad line, and how many were written. */
  line?: number;
  restored?: number;
}

/** Turns away every other method. */
export function allow(methods: string): (c: Context) => never {
  return (c) => {
    throw new HTTPException(405, {
      message: `${c.req.method} is not served here: expected ${methods}`,
      res: new Response(null, { headers: { Allow: methods } }),
    });
  };
}

/** What an error means for a client. Anything else than these is a defect of ours. */
export function describe(error: unknown): Description {
  if (error instanceof RestoreStopped) {
    return { ...describe(error.cause), restored: error.restored };
  }
  if (error instanceof BadLine) {
    const { line, cause } = error;
    const { status, detail } = describe(cause);
    return { status, detail: `Cannot restore line ${line}: ${detail}`, line };
  }
  if (error instanceof HTTPException) {
    return { status: error.status, detail: error.message };
  }
  // Deno's words for a body whose sender went away, or broke off. Stores have errors of their own.
  if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Http) {
    return { status: 400, detail: "The body ended early" };
  }
  if (error instanceof ValueTooLarge) return { status: 413, detail: error.message };
  if (error instanceof InvalidArgument) return { status: 400, detail: error.message };
  if (error instanceof RevisionConflict) return { status: 412, detail: error.message };
  if (error instanceof ChangesLost) return { status: 410, detail: error.message };
  if (error instanceof StoreFull) return { status: 507, detail: "The store is full" };
  if (error instanceof StoreUnavailable) {
    return { status: 503, detail: "The store does not answer", outcome: error.outcome };
  }
  return { status: 500, detail: "This is a defect of the service" };
}

export function problem(error: Error): Response {
  const { status, ...description } = describe(error);
  report(status, error);
  const headers = new Headers(error instanceof HTTPException ? error.res?.headers : {});
  headers.set("Content-Type", "application/problem+json");
  if (status === 503) headers.set("Retry-After", RETRY_AFTER);
  const title = TITLES[status] ?? "Error";
  let text = JSON.stringify({ title, status, ...description });
  if (error instanceof RevisionConflict) {
    const { key, current } = error;
    for (const [name, value] of Object.entries(entryHeaders(current))) headers.set(name, value);
    text = `${text.slice(0, -1)},"current":${object([[key, current?.value]])}}`;
  }
  return new Response(text, { status, headers });
}

/** Tells the operator of a failure: the client does not learn where and why. */
export function report(status: number, error: unknown): void {
  if (status < 500) return;
  const { stack, message } = (error instanceof RestoreStopped ? error.cause : error) as Error;
  console.error(`kv: ${status === 500 ? stack : message}`);
}
