/**
 * Responses that are made while the client reads them: all keys, and changes as they happen.
 *
 * @module
 */
import { type Change, ChangesLost, type Page, type Watch } from "../stores/store.ts";
import { changeText } from "../stores/wire.ts";
import { report } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { type Source, sourceOf, streamResponse } from "./pieces.ts";
import { GUARD_HEADERS, JSON_HEADERS, jsonResponse } from "./responses.ts";

/** How often a stream of changes shows that it is alive, in milliseconds. Bun closes after 10 s. */
export const HEARTBEAT = 8_000;
/** The headers of a list of keys. */
export const LIST_HEADERS = { ...JSON_HEADERS, "Vary": "Accept" };

/** Every key under a prefix, as one JSON text, page by page; `first` is the first page. */
export function allKeys(
  exchange: Exchange,
  prefix: string,
  first: Page,
): Response | Promise<Response> {
  if (first.next === null) return jsonResponse(exchange, { keys: first.keys }, LIST_HEADERS);
  if (exchange.method === "HEAD") return new Response(null, { headers: LIST_HEADERS });
  async function* texts() {
    yield `{"keys":[${first.keys.map((key) => JSON.stringify(key)).join()}`;
    for (let after = first.next; after !== null;) {
      const { keys, next } = await exchange.store.list(prefix, { after });
      if (keys.length > 0) yield `,${keys.map((key) => JSON.stringify(key)).join()}`;
      after = next;
    }
    yield "]}";
  }
  return streamResponse(exchange, sourceOf(texts()), LIST_HEADERS);
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
