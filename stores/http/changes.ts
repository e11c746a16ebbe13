/** The stream of changes of a key-value service (server-sent events) as a `Watch`. */
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { type Change, MAX_VALUE_BYTES, type Watch } from "../store.ts";
import { unref } from "../timers.ts";
import { readChange, UnexpectedAnswer } from "../wire.ts";
import type { Incoming } from "./connections.ts";

/** How long a stream may be silent, in milliseconds. `kv.ts` sends its position every 4 seconds. */
export const IDLE_TIMEOUT = 45_000;

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
export async function readChanges(response: Incoming, options: ReadOptions): Promise<Watch> {
  const { stop, failed, isClosed } = options;
  const type = response.header("content-type");
  if (!type?.startsWith("text/event-stream")) {
    throw new UnexpectedAnswer(`a body of type "${type}"`);
  }
  const events = readEvents(response, options);
  const { value: ready } = await events.next();
  if (ready?.event !== "ready" || ready.id === undefined) {
    throw new UnexpectedAnswer("other events");
  }
  let last = ready.id; // of the event that was read
  let position = last;
  const changes = new ReadableStream<Change>({
    async pull(controller) {
      try {
        for (;;) {
          position = last; // the reader has the change before
          const { value: event, done } = await events.next();
          if (done) throw new TypeError("the stream ended");
          if (event.id === undefined) throw new UnexpectedAnswer("an event without an id");
          last = event.id;
          if (event.event === "position") continue;
          return controller.enqueue({ id: last, ...readChange(event.data) });
        }
      } catch (cause) {
        stop.abort();
        if (isClosed()) controller.close();
        else controller.error(failed(cause));
      }
    },
    cancel: () => stop.abort(),
  }, { highWaterMark: 0 });
  return { changes, position: () => position };
}

/** Yields events. Throws if the stream is silent for too long: its connection may be lost. */
async function* readEvents(
  { body }: Incoming,
  { stop, idleTimeout }: ReadOptions,
): AsyncGenerator<EventSourceMessage, undefined> {
  const events: EventSourceMessage[] = [];
  const parser = createParser({
    maxBufferSize: 2 * MAX_VALUE_BYTES,
    onEvent: (event) => events.push(event),
    onError({ type }) {
      if (type === "max-buffer-size-exceeded") throw new UnexpectedAnswer("an endless event");
    },
  });
  const decoder = new TextDecoder();
  const silent = () => stop.abort(new TypeError("it sent nothing for too long"));
  let timer: ReturnType<typeof setTimeout> | undefined;
  // Not while a slow reader takes the events.
  const wait = () => unref(timer = setTimeout(silent, idleTimeout));
  try {
    wait();
    for await (const chunk of body) {
      clearTimeout(timer);
      parser.feed(decoder.decode(chunk, { stream: true }));
      yield* events.splice(0);
      wait();
    }
  } finally {
    clearTimeout(timer);
  }
}
