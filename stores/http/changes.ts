/**
 * The stream of changes of a key-value service (server-sent events) as a `Watch`.
 *
 * @module
 */
import { EventSourceParserStream } from "eventsource-parser/stream";
import { type Change, MAX_VALUE_BYTES, type Watch } from "../store.ts";
import { unref } from "../timers.ts";
import { readChange, UnexpectedAnswer } from "../wire.ts";

/** How long a stream may be silent, in milliseconds; `kv.ts` sends a comment every 8 seconds. */
export const IDLE_TIMEOUT = 45_000;

/** What {@linkcode readChanges} takes besides the response. */
interface ReadOptions {
  /** Ends the request. */
  stop: AbortController;
  /** How long the stream may be silent, in milliseconds. */
  idleTimeout: number;
  /** Returns the store's error for what went wrong with the stream. */
  failed(cause: unknown): unknown;
  /** Whether the store was closed, which ends the watch without an error. */
  isClosed(): boolean;
}

/**
 * Reads the stream of changes in a response. Resolves once the service has begun to watch.
 *
 * @throws {UnexpectedAnswer} If the response is not such a stream
 */
export async function readChanges(response: Response, options: ReadOptions): Promise<Watch> {
  const { stop, idleTimeout, failed, isClosed } = options;
  const type = response.headers.get("Content-Type");
  if (!type?.startsWith("text/event-stream") || response.body === null) {
    throw new UnexpectedAnswer(`a body of type "${type}"`);
  }
  const events = response.body
    .pipeThrough(endIdle(stop, idleTimeout))
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream({ maxBufferSize: 2 * MAX_VALUE_BYTES }))
    .getReader();
  // Deno ignores the signal of some requests once their body has begun. If it does not, the stream
  // has failed already, and cancelling it rejects.
  stop.signal.addEventListener("abort", () => events.cancel().catch(() => {}));
  const { value: ready } = await events.read();
  stop.signal.throwIfAborted();
  if (ready?.event !== "ready" || ready.id === undefined) {
    throw new UnexpectedAnswer("other events");
  }
  const changes = new ReadableStream<Change>({
    async pull(controller) {
      try {
        const { value: event, done } = await events.read();
        stop.signal.throwIfAborted();
        if (done) throw new TypeError("the stream ended");
        controller.enqueue(toChange(event.id, event.data));
      } catch (cause) {
        stop.abort();
        if (isClosed()) controller.close();
        else controller.error(failed(cause));
      }
    },
    cancel: () => stop.abort(),
  }, { highWaterMark: 0 });
  return { since: ready.id, changes };
}

/** Ends a stream whose connection was lost without notice. */
function endIdle(
  stop: AbortController,
  idleTimeout: number,
): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  let timer: ReturnType<typeof setTimeout>;
  const rearm = (controller: TransformStreamDefaultController<Uint8Array<ArrayBuffer>>) => {
    clearTimeout(timer);
    if (stop.signal.aborted) return;
    timer = setTimeout(() => {
      // If the last chunk was not taken yet, the reader is slow and not the service.
      if (controller.desiredSize === 0) rearm(controller);
      else stop.abort(new TypeError("it sent nothing for too long"));
    }, idleTimeout);
    unref(timer);
  };
  stop.signal.addEventListener("abort", () => clearTimeout(timer));
  return new TransformStream(
    {
      start: rearm,
      transform(chunk, controller) {
        rearm(controller);
        controller.enqueue(chunk);
      },
      flush: () => clearTimeout(timer),
    },
    undefined,
    { highWaterMark: 1 },
  );
}

/** @throws {UnexpectedAnswer} If the event does not report a change */
function toChange(id: string | undefined, data: string): Change {
  if (id === undefined) throw new UnexpectedAnswer("an event without an id");
  return { id, ...readChange(data) };
}
