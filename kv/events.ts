/** Changes as they happen: server-sent events (HTML, section 9.2). */
import { HTTPException } from "hono/http-exception";
import { type Change, ChangesLost, type Watch } from "../stores/store.ts";
import { within } from "../stores/timers.ts";
import { changeText } from "../stores/wire.ts";
import { GUARD_HEADERS } from "../server/guards.ts";
import { type Answer, type KvContext, PIECE_BYTES } from "./answers.ts";
import { report } from "./errors.ts";
import { endOfTurn, pause } from "./pace.ts";
import { QUERIES, readQuery } from "./requests.ts";

/** The most streams of changes at one time. */
export const MAX_WATCHERS = 1000;
/** How often a stream of changes shows that it is alive, in milliseconds. Bun closes it after 10 s. */
export const HEARTBEAT = 4000;

const HEADERS = {
  ...GUARD_HEADERS,
  "Content-Type": "text/event-stream",
  "Vary": "Accept",
  "X-Accel-Buffering": "no", // nginx would wait for more
};

type Reader = ReadableStreamDefaultReader<Change>;

/** The streams of changes of one service. */
export class Events {
  #count = 0;

  /** @param stopping Ends the streams, which would keep a server from stopping */
  constructor(readonly stopping: AbortSignal) {}

  get count(): number {
    return this.#count;
  }

  /** `GET /` for events: until the client, the store or the server ends. */
  async watch(c: KvContext): Promise<Answer> {
    const { prefix } = readQuery(c, QUERIES.prefix);
    if (this.#count >= MAX_WATCHERS) {
      const message = `Cannot watch: there are ${MAX_WATCHERS} streams of changes`;
      throw new HTTPException(503, { message });
    }
    this.#count++;
    try {
      const since = c.req.header("Last-Event-ID");
      const watch = await c.get("access").store.watch(prefix, { since });
      return { status: 200, headers: HEADERS, body: this.#events(watch) };
    } catch (error) {
      this.#count--;
      throw error;
    }
  }

  #events(watch: Watch): AsyncIterator<string> {
    const reader = watch.changes.getReader();
    // If the stream has failed, cancelling it rejects with the same error.
    const stop = () => void reader.cancel().catch(() => {});
    this.stopping.addEventListener("abort", stop);
    if (this.stopping.aborted) stop();
    const texts = eventTexts(reader, watch);
    return {
      next: () => texts.next(),
      // A generator's own `return` would wait for the pending read.
      return: async () => {
        this.#count--;
        this.stopping.removeEventListener("abort", stop);
        stop();
        return { done: true, value: undefined };
      },
    };
  }
}

/**
 * Yields the events that are ready at the same time as one text, up to a length. A client that has
 * nothing to receive learns where it is: otherwise the changes of other keys would be too many to
 * resume after.
 */
async function* eventTexts(reader: Reader, watch: Watch): AsyncGenerator<string> {
  const positionAs = (event: string) => `event: ${event}\ndata: {}\nid: ${watch.position()}\n\n`;
  yield positionAs("ready");
  try {
    for (let reading = reader.read();;) {
      let result = await within(HEARTBEAT, reading, () => undefined);
      if (result?.done) return;
      if (result === undefined) {
        yield positionAs("position");
        continue;
      }
      // One write may make thousands of events for a thousand clients: let others go first.
      await pause();
      let text = "";
      while (result?.value !== undefined && text.length < PIECE_BYTES) {
        text += eventText(result.value);
        reading = reader.read();
        // An error is thrown above, after these events were sent.
        result = await Promise.race([reading.catch(() => undefined), endOfTurn()]);
      }
      yield text;
    }
  } catch (error) {
    // The client reconnects with its Last-Event-ID, and gets the error then.
    if (!(error instanceof ChangesLost)) report(error);
  }
}

/** The last event that was written, which other clients mostly receive next. */
let last: Change & { text: string } | undefined;

function eventText({ id, key, entry }: Change): string {
  if (last?.id !== id || last.key !== key || last.entry !== entry) {
    last = { id, key, entry, text: `data: ${changeText(key, entry)}\nid: ${id}\n\n` };
  }
  return last.text;
}
