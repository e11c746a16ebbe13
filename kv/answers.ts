/**
 * The answers that handlers return, and how they are sent. A response is created with all its headers:
 * setting one on a finished response costs more than the rest of a read. A long body is sent in
 * pieces, as fast as the client reads.
 */
import type { Context } from "hono";
import { Buffer } from "node:buffer";
import { GUARD_HEADERS, type UrlParts } from "../server/guards.ts";
import {
  ChangesLost,
  type Entry,
  InvalidArgument,
  type JsonText,
  StoreUnavailable,
} from "../stores/store.ts";
import { unref } from "../stores/timers.ts";
import { type Held, SMALL_BYTES, TooMuchHeld } from "./held.ts";
import { pause } from "./pace.ts";
import type { Access } from "./tokens.ts";

/** How long a client may read nothing, in milliseconds, before the response is aborted. */
export const STALL_TIMEOUT = 60_000;
/** How many bytes are handed to the server at once. It holds a few such pieces outside the heap. */
export const PIECE_BYTES = 16 * 1024;
const encoder = new TextEncoder();

/** What {@linkcode kv} adds to Hono's context. */
export interface KvEnv {
  /** Deno.serve's handler gets `completed`. */
  Bindings: { completed?: Promise<unknown> };
  Variables: {
    url: UrlParts;
    access: Access;
    held: Held;
  };
}

export type KvContext = Context<KvEnv>;

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  /**
   * A text, or its parts, requested as fast as the client reads. The first part is awaited before
   * the status is sent, so its failure is an error response; a later failure aborts the connection.
   * `return` is called once, possibly while a `next` is pending.
   */
  readonly body: string | AsyncIterator<string> | null;
}

export type Handler = (c: KvContext) => Answer | Promise<Answer>;

// ---- Headers and texts ---------------------------------------------------------------------

/** An HTTP date's year has four digits. Another program of a Redis may have set a later time. */
const LAST_HTTP_DATE = Date.UTC(9999, 11, 31, 23, 59, 59);
export const JSON_HEADERS = { "Content-Type": "application/json", ...GUARD_HEADERS };
const ENTRY_HEADERS = {
  ...JSON_HEADERS,
  // Some caches do not know no-cache, and would go by Expires. Compressed, it would have another tag.
  "Cache-Control": "no-cache, max-age=0, no-transform",
  "Vary": "Accept",
};

export function jsonAnswer(value: unknown, headers: Record<string, string> = JSON_HEADERS): Answer {
  return { status: 200, headers, body: JSON.stringify(value) };
}

/** The headers of an entry's JSON; without an entry, there is no tag. */
export function entryHeaders(entry: Entry | null): Record<string, string> {
  const headers: Record<string, string> = { ...ENTRY_HEADERS };
  if (entry === null) return headers;
  headers["ETag"] = jsonTag(entry);
  if (entry.expires !== null) {
    headers["Expires"] = new Date(Math.min(entry.expires, LAST_HTTP_DATE)).toUTCString();
  }
  return headers;
}

export function jsonTag({ revision }: Entry): string {
  return `"${revision}"`;
}

/**
 * The entity tag of an entry's text. Another representation needs another one, also where tags are
 * compared weakly (RFC 9110, section 8.8.3.3).
 */
export function textTag({ revision }: Entry): string {
  return `W/"${revision}-text"`;
}

/** The text of a key and its value; without a value, of null. */
export function memberText(key: string, value: JsonText | undefined): string {
  return `{${JSON.stringify(key)}:${value ?? "null"}}`;
}

// ---- The exit ------------------------------------------------------------------------------

/** @throws {TooMuchHeld} If there is no room for the text, or for the first part */
export function responseOf(
  method: string,
  answer: Answer,
  held: Held,
): Response | Promise<Response> {
  const { status, headers, body } = answer;
  if (typeof body === "string" && body.length <= SMALL_BYTES && method !== "HEAD") {
    held.end();
    return new Response(body, { status, headers });
  }
  if (body === null || method === "HEAD") return withoutBody(answer, held);
  if (typeof body !== "string") return inParts(answer, body, held);
  return new Response(streamOf(body, undefined, held), { status, headers });
}

/** Answers HEAD with the length of a text. Parts are closed unread. */
async function withoutBody({ status, headers, body }: Answer, held: Held): Promise<Response> {
  held.end();
  if (typeof body !== "string") {
    await body?.return?.();
    return new Response(null, { status, headers });
  }
  const length = String(Buffer.byteLength(body));
  return new Response(null, { status, headers: { ...headers, "Content-Length": length } });
}

async function inParts(
  { status, headers }: Answer,
  parts: AsyncIterator<string>,
  held: Held,
): Promise<Response> {
  try {
    const { value = "" } = await parts.next();
    return new Response(streamOf(value, parts, held), { status, headers });
  } catch (error) {
    await parts.return?.();
    throw error;
  }
}

/**
 * Returns a body whose bytes are counted while they are held. Deno reports a text body as sent
 * immediately, and keeps it until the client has read it.
 */
function streamOf(
  first: string,
  parts: AsyncIterator<string> | undefined,
  held: Held,
): ReadableStream<Uint8Array> {
  held.send(first);
  let rest = first;
  let isOver = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  /** Takes bytes off the text, which many clients may share. */
  function nextPiece(): Uint8Array {
    const bytes = new Uint8Array(Math.min(PIECE_BYTES, 3 * rest.length));
    const { read, written } = encoder.encodeInto(rest, bytes);
    rest = rest.slice(read);
    return bytes.subarray(0, written);
  }

  function startTimer(controller: ReadableStreamDefaultController<Uint8Array>): void {
    timer = unref(setTimeout(() => {
      end();
      controller.error(withoutStack(new Error("The client reads nothing")));
    }, STALL_TIMEOUT));
  }

  function end(): void {
    held.end(); // also what a part has counted since the client left
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    rest = "";
    // After a failure of the body, this rejects with the same error.
    parts?.return?.().catch(() => {});
  }

  return new ReadableStream<Uint8Array>({
    start: startTimer,
    async pull(controller) {
      clearTimeout(timer);
      if (rest.length > PIECE_BYTES) await pause();
      try {
        while (rest.length === 0 && !isOver) {
          const { value = "", done } = await parts?.next() ?? { done: true };
          if (isOver) return end(); // the client left meanwhile
          if (done) {
            end();
            return controller.close();
          }
          held.send(value);
          rest = value;
        }
      } catch (error) {
        end();
        throw OUTSIDE.some((type) => error instanceof type) ? withoutStack(error) : error;
      }
      if (isOver) return;
      const piece = nextPiece();
      startTimer(controller);
      controller.enqueue(piece); // if the client has left, Deno cancels the stream in here
    },
    cancel: end,
  }, { highWaterMark: 0 });
}

/** Errors of a body that are no fault of this program. */
const OUTSIDE = [TooMuchHeld, StoreUnavailable, ChangesLost, InvalidArgument];

/** Deno logs the error of a body with its stack, many times while a store is down. */
function withoutStack(error: unknown): unknown {
  if (error instanceof Error) error.stack = error.message;
  return error;
}
