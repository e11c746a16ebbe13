/**
 * A store on another machine: a client of `kv.ts`.
 *
 * The calls of one turn of the event loop travel as one request, so that a busy server makes few.
 * `setAll` is a request of its own, of 10,000 entries and 16 MiB at most. No write is sent twice.
 *
 * @module
 */
import { checked } from "../checks.ts";
import { Batches, type PendingOperation } from "./batches.ts";
import { IDLE_TIMEOUT, readChanges } from "./changes.ts";
import { Connections, hasSockets } from "./connections.ts";
import { type Mistake, ofRead, overFetch, readText, Requests } from "./requests.ts";
import {
  ChangesLost,
  DEADLINE,
  type Entry,
  MAX_VALUE_BYTES,
  RevisionConflict,
  type Store,
} from "../store.ts";
import {
  MAX_BODY_BYTES,
  type Operation,
  operationText,
  putText,
  readAnswers,
  readEcho,
  readPage,
  UnexpectedAnswer,
} from "../wire.ts";

/** The longest answer to one operation, in bytes: a value, and what describes it. */
const MAX_ANSWER_BYTES = MAX_VALUE_BYTES + 1024;
/** The longest answer to any other request, in bytes: the echo of a body, with escapes. */
const MAX_TEXT_BYTES = 2 * MAX_BODY_BYTES;

/** What {@linkcode httpStore} takes. */
export interface HttpOptions {
  /** The bearer token that the service asks for. */
  token?: string | undefined;
  /** How long a call may take, in milliseconds: by default {@linkcode DEADLINE}. */
  deadline?: number;
  /** How long a watched service may send nothing, in milliseconds: by default 45 seconds. */
  idleTimeout?: number;
  /** Sends the requests: by default, connections that are kept open; in a worker, its own. */
  fetch?: typeof fetch;
}

/**
 * Opens the store of the service at `url`. Nothing is sent before the first call.
 *
 * @example
 * ```ts
 * import { kv } from "../../kv.ts";
 * import { httpStore } from "./store.ts";
 * import { json } from "../json/text.ts";
 * import { memoryStore } from "../memory.ts";
 *
 * const memory = memoryStore();
 * const service = kv(memory);
 * const store = httpStore("http://localhost:5100", {
 *   // Straight into the app, as a test does; without this, over the network.
 *   fetch: async (url, init) => await service.request(String(url), init),
 * });
 * await store.set("a", json(1));
 * console.log((await memory.get("a"))?.value); // 1
 * await store.close();
 * await memory.close();
 * ```
 */
export function httpStore(url: string, options: HttpOptions = {}): Store {
  const { deadline = DEADLINE, idleTimeout = IDLE_TIMEOUT, token, fetch } = options;
  const address = new URL(url);
  const transport = fetch === undefined && hasSockets
    ? new Connections(address)
    : overFetch(address, fetch ?? globalThis.fetch);
  // A call waits to be sent, then for its answer: half of the deadline for each.
  const timeout = deadline / 2;
  const requests = new Requests(url, { token, timeout, transport });
  const late = () => requests.late();
  const reads = new Batches({ requests: 4, operations: 100, send, timeout, late });
  const writes = new Batches({ requests: 1, operations: 400, send, timeout, late });
  const closing = new AbortController();

  async function send(batch: readonly PendingOperation[]): Promise<void> {
    const body = `[${batch.map(({ text }) => text).join(",")}]`;
    const limit = batch.length * MAX_ANSWER_BYTES;
    try {
      const text = await requests.text("/", { body, limit });
      const answers = readAnswers(text, batch.map(({ operation }) => operation));
      for (const [i, answer] of answers.entries()) batch[i]?.resolve(answer);
    } catch (cause) {
      const error = requests.failed(cause);
      for (const { operation, reject } of batch) {
        reject(operation.op === "get" ? ofRead(error) : error);
      }
    }
  }

  /** Reads an answer that is not one of a batch. */
  function reading<T>(read: () => T): T {
    try {
      return read();
    } catch (cause) {
      throw requests.failed(cause);
    }
  }

  async function operate(operation: Pick<Operation, "op" | "key">, text: string) {
    const batches = operation.op === "get" ? reads : writes;
    const answer = await batches.operate(operation, text);
    if ("failure" in answer) {
      const error = requests.notDone(answer.status, answer.failure);
      throw operation.op === "get" ? ofRead(error) : error;
    }
    if (answer.status === 412 && "entry" in answer) {
      throw new RevisionConflict(operation.key, answer.entry);
    }
    return answer;
  }

  async function find(operation: Exclude<Operation, { op: "put" }>): Promise<Entry | null> {
    const answer = await operate(operation, operationText(operation));
    return "entry" in answer ? answer.entry : null;
  }

  return checked({
    get: (key) => find({ op: "get", key }),

    async set(key, value, options) {
      const answer = await operate({ op: "put", key }, putText(key, value, options));
      if (!("written" in answer)) throw requests.unexpected(new UnexpectedAnswer("other JSON"));
      return { key, value, ...answer.written, created: answer.status === 201 };
    },

    async setAll(values, { ttl }) {
      const keys = [...values.keys()];
      const members = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value}`);
      const body = `{${members.join(",")}}`;
      const path = ttl === undefined ? "/" : `/?ttl=${ttl}`;
      const mistake: Mistake = { status: 413, argument: "value" };
      const echo = await writes.request(() =>
        requests.text(path, { body, limit: MAX_TEXT_BYTES, mistake })
      );
      reading(() => readEcho(echo, keys));
    },

    delete: (key, { ifRevision }) => find({ op: "delete", key, ifRevision }),

    async list(prefix, { after, limit }) {
      const query = new URLSearchParams({ prefix, limit: String(limit) });
      if (after !== undefined) query.set("after", after);
      // Only the service's own store knows its cursors.
      const mistake: Mistake | undefined = after === undefined
        ? undefined
        : { status: 400, argument: "after" };
      try {
        const options = { limit: MAX_TEXT_BYTES, mistake };
        const text = await reads.request(() => requests.text(`/?${query}`, options));
        return reading(() => readPage(text));
      } catch (error) {
        throw ofRead(error);
      }
    },

    async watch(prefix, { since }) {
      // No service gives an id that a header cannot carry.
      if (since !== undefined && /[^\x21-\x7e]/.test(since)) throw new ChangesLost(since);
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (since !== undefined) headers["Last-Event-ID"] = since;
      const { stop, signal, clear } = requests.deadline();
      closing.signal.addEventListener("abort", () => stop.abort(), { signal });
      const failed = (cause: unknown) => ofRead(requests.failed(cause));
      try {
        const path = `/?${new URLSearchParams({ prefix })}`;
        const response = await requests.send(path, { headers, signal });
        if (response.status === 410 && since !== undefined) throw new ChangesLost(since);
        if (response.status !== 200) {
          throw requests.refused(response.status, await readText(response, MAX_TEXT_BYTES));
        }
        const isClosed = () => closing.signal.aborted;
        return await readChanges(response, { stop, idleTimeout, failed, isClosed });
      } catch (cause) {
        stop.abort();
        throw failed(cause);
      } finally {
        clear();
      }
    },

    async close() {
      closing.abort();
      await Promise.all([reads.idle(), writes.idle()]);
      transport.close();
    },
  });
}
