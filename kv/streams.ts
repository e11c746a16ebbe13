/**
 * Responses whose body is made while the client reads it. Of each, one text is held at a time; what
 * all of them hold is limited by {@linkcode Memory}.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { type Change, ChangesLost, type Page, type Watch } from "../stores/store.ts";
import { unref } from "../stores/timers.ts";
import { changeText } from "../stores/wire.ts";
import { report } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { type Memory, SMALL_BYTES } from "./memory.ts";
import { pause } from "./pace.ts";
import { GUARD_HEADERS, JSON_HEADERS, jsonResponse } from "./responses.ts";

/** How often a stream of changes shows that it is alive, in milliseconds. */
export const HEARTBEAT = 15_000;
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
    const body = new PiecewiseSource(source, exchange.memory, await source.next());
    return new Response(new ReadableStream(body, { highWaterMark: 0 }), { headers });
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

/** Hands the parts of a source to the server, piece by piece. */
class PiecewiseSource implements UnderlyingDefaultSource<Uint8Array> {
  #rest = new Uint8Array();
  #held = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;
  #isCancelled = false;

  constructor(readonly source: Source, readonly memory: Memory, first: string | null) {
    this.#load(first);
  }

  async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#held > SMALL_BYTES) await pause();
    try {
      while (this.#rest.length === 0 && !this.#isOver) {
        const text = await this.source.next();
        if (text !== null && text.length > SMALL_BYTES) await pause();
        this.#load(text);
      }
    } catch (error) {
      this.#finish();
      // Deno logs what a body fails with.
      if (error instanceof HTTPException) error.stack = error.message;
      throw error;
    }
    if (this.#isOver) {
      if (!this.#isCancelled) controller.close();
      return;
    }
    controller.enqueue(this.#rest.subarray(0, PIECE_BYTES));
    this.#rest = this.#rest.subarray(PIECE_BYTES);
    this.#timer = setTimeout(() => {
      this.#finish();
      controller.error(new Error("The client reads nothing"));
    }, STALL_TIMEOUT);
    unref(this.#timer);
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#finish();
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

  #load(text: string | null): void {
    this.memory.give(this.#held);
    this.#held = 0;
    if (this.#isOver) return; // the client left meanwhile
    if (text === null) return this.#finish();
    const bytes = encoder.encode(text);
    this.memory.take(bytes.length);
    this.#held = bytes.length;
    this.#rest = bytes;
  }
}

/** Every key under a prefix, as one JSON text, page by page; `first` is the first page. */
export function allKeys(
  exchange: Exchange,
  prefix: string,
  first: Page,
): Response | Promise<Response> {
  if (first.next === null) return jsonResponse(exchange, { keys: first.keys });
  if (exchange.method === "HEAD") return new Response(null, { headers: JSON_HEADERS });
  async function* texts() {
    yield `{"keys":[${first.keys.map((key) => JSON.stringify(key)).join()}`;
    for (let after = first.next; after !== null;) {
      const { keys, next } = await exchange.store.list(prefix, { after });
      if (keys.length > 0) yield `,${keys.map((key) => JSON.stringify(key)).join()}`;
      after = next;
    }
    yield "]}";
  }
  return streamResponse(exchange, sourceOf(texts()), JSON_HEADERS);
}

/** The headers of a stream of changes. */
export const EVENTS_HEADERS = {
  ...GUARD_HEADERS,
  "Content-Type": "text/event-stream",
  "Cache-Control": "no-cache",
  "Vary": "Accept",
  "X-Accel-Buffering": "no", // nginx would wait for more
};

/**
 * Changes as server-sent events (HTML, section 9.2), until the client, the store or the server ends.
 *
 * @param ended Is called at the end
 */
export function events(watch: Watch, stopping: AbortSignal, ended: () => void): Source {
  const reader = watch.changes.getReader();
  let isReady = false;
  let isReading = false;
  let result: ReadableStreamReadResult<Change> | undefined;
  let failure: unknown;
  let wake = () => {};
  // Changes that have failed would fail here once more.
  const stop = () => void reader.cancel().catch(() => {});
  stopping.addEventListener("abort", stop);
  if (stopping.aborted) stop();

  /** Waits for the next change or for the time of a heartbeat; a change is read only once. */
  async function wait(): Promise<void> {
    if (!isReading) {
      isReading = true;
      reader.read().then((it) => result = it, (error) => failure = error).finally(() => wake());
    }
    const woken = Promise.withResolvers<void>();
    wake = woken.resolve;
    const timer = setTimeout(wake, HEARTBEAT);
    if (result === undefined && failure === undefined) await woken.promise;
    clearTimeout(timer);
  }

  return {
    async next() {
      if (!isReady) {
        isReady = true;
        return `event: ready\ndata: {}\nid: ${watch.since}\n\n`;
      }
      await wait();
      if (failure !== undefined) {
        // The client reconnects with its Last-Event-ID, and learns what is wrong.
        if (!(failure instanceof ChangesLost)) report(failure);
        return null;
      }
      if (result === undefined) return ":\n\n";
      if (result.done) return null;
      const { id, key, entry } = result.value;
      [isReading, result] = [false, undefined];
      return `data: ${changeText(key, entry)}\nid: ${id}\n\n`;
    },
    stop() {
      stopping.removeEventListener("abort", stop);
      stop();
      ended();
    },
  };
}
