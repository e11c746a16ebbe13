/**
 * Bodies that are handed to the server piece by piece, as the client reads. Of each, one text is held
 * at a time; what all of them hold is limited by {@linkcode Memory}.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { unref } from "../stores/timers.ts";
import type { Exchange } from "./exchange.ts";
import { type Memory, SMALL_BYTES } from "./memory.ts";
import { pause } from "./pace.ts";

/** How long a client may read nothing, in milliseconds, before the response is aborted. */
export const STALL_TIMEOUT = 60_000;
/** How many bytes are handed to the server at once. It holds a few such pieces outside the heap. */
const PIECE_BYTES = 16 * 1024;
const encoder = new TextEncoder();

/** Where a streamed body comes from. */
export interface Source {
  /** Returns the next part, or null at the end. */
  next(): Promise<string | null>;
  /** Is called once, at the end or before; a `next` under way has to return then. */
  stop(): void;
}

/**
 * Streams a body. A failure before its first part is an error response, one after it aborts the
 * connection.
 */
export async function streamResponse(
  exchange: Exchange,
  source: Source,
  headers: Record<string, string>,
): Promise<Response> {
  try {
    return new Response(piecewise(exchange, source, await source.next() ?? ""), { headers });
  } catch (error) {
    source.stop();
    throw error;
  }
}

/** Makes a source of a generator. */
export function sourceOf(texts: AsyncGenerator<string>): Source {
  return {
    next: async () => (await texts.next()).value ?? null,
    stop: () => void texts.return(undefined),
  };
}

/**
 * Returns a text as a body that is counted while it is held. Of a text that is a response's body,
 * Deno says at once that it was sent, and holds it until the client has read it.
 */
export function streamOf(exchange: Exchange, text: string): ReadableStream<Uint8Array> {
  return piecewise(exchange, { next: () => Promise.resolve(null), stop() {} }, text);
}

function piecewise(exchange: Exchange, source: Source, first: string) {
  const body = new PiecewiseSource(source, exchange.memory, first);
  return new ReadableStream(body, { highWaterMark: 0 });
}

/** Hands the parts of a source to the server, piece by piece. */
class PiecewiseSource implements UnderlyingDefaultSource<Uint8Array> {
  #rest = new Uint8Array();
  #held = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  constructor(readonly source: Source, readonly memory: Memory, first: string) {
    this.#load(first);
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#startTimer(controller);
  }

  async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#held > SMALL_BYTES) await pause();
    try {
      while (this.#rest.length === 0 && !this.#isOver) {
        const text = await this.source.next();
        if (text !== null && text.length > SMALL_BYTES) await pause();
        if (this.#isOver) return; // the client left meanwhile
        if (text === null) {
          this.#finish();
          return controller.close();
        }
        this.#load(text);
      }
    } catch (error) {
      this.#finish();
      // Deno logs what a body fails with.
      if (error instanceof HTTPException) error.stack = error.message;
      throw error;
    }
    if (this.#isOver) return;
    controller.enqueue(this.#rest.subarray(0, PIECE_BYTES));
    this.#rest = this.#rest.subarray(PIECE_BYTES);
    this.#startTimer(controller);
  }

  cancel(): void {
    this.#finish();
  }

  #startTimer(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#timer = setTimeout(() => {
      this.#finish();
      controller.error(new Error("The client reads nothing"));
    }, STALL_TIMEOUT);
    unref(this.#timer);
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#rest = new Uint8Array();
    this.memory.give(this.#held);
    this.#held = 0;
    this.source.stop();
  }

  #load(text: string): void {
    this.memory.give(this.#held);
    this.#held = 0;
    const bytes = encoder.encode(text);
    this.memory.take(bytes.length);
    this.#held = bytes.length;
    this.#rest = bytes;
  }
}
