/**
 * A store on another machine: a client of `kv.ts`.
 *
 * The calls of one turn of the event loop travel as one request, so that a busy server makes few. In
 * a worker each call is a request of its own: await a write before the next one of its key.
 * `setAll` is a request of its own, of 10,000 entries and 16 MiB at most. No write is sent twice.
 *
 * @module
 */
import { checked } from "../checks.ts";
import { ALONE, Batches, type PendingOperation } from "./batches.ts";
import { IDLE_TIMEOUT, readChanges } from "./changes.ts";
import { Connections, hasSockets } from "./connections.ts";
import { overFetch, readText, Requests } from "./requests.ts";
import {
  ChangesLost,
  DEADLINE,
  type Entry,
  MAX_VALUE_BYTES,
  RevisionConflict,
  type Store,
  StoreUnavailable,
} from "../store.ts";
import {
  type Answer,
  LEFT_OUT,
  type Operation,
  putText,
  readable,
  readAnswers,
  readEcho,
  readPage,
  UnexpectedAnswer,
} from "../wire.ts";

/** The longest answer to one operation, in bytes: a value, and what describes it. */
const MAX_ANSWER_BYTES = MAX_VALUE_BYTES + 1024;

/** What {@linkcode httpStore} takes. */
export interface HttpOptions {
  /** The bearer token that the service asks for. */
  token?: string | undefined;
  /** The variable that holds the token, for errors: by default `KV_TOKEN`. */
  tokenName?: string;
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
  const requests = new Requests(url, token, timeout, transport, options.tokenName);
  const late = () => requests.unavailable("did not answer in time", "unchanged");
  const common = { send, timeout, late, ...hasSockets ? {} : ALONE };
  const reads = new Batches({ requests: 4, operations: 100, ...common });
  const writes = new Batches({ requests: 1, operations: 400, ...common });
  const watches = new Set<AbortController>();
  let isClosed = false;

  async function send(batch: readonly PendingOperation[]): Promise<PendingOperation[]> {
    const body = `[${batch.map(({ text }) => text).join(",")}]`;
    const operations = batch.map(({ operation }) => operation);
    const read = (text: string) => readAnswers(text, operations);
    try {
      const limit = batch.length * MAX_ANSWER_BYTES;
      const answers = await requests.call("/", read, { body, limit });
      const again = leftOut(batch, answers);
      for (const [i, answer] of answers.entries()) {
        const pending = batch[i];
        if (pending && !again.includes(pending)) pending.resolve(answer);
      }
      return again;
    } catch (error) {
      for (const { reject } of batch) reject(error);
      return [];
    }
  }

  async function operate(operation: Pick<Operation, "op" | "key">, text: string) {
    const batches = operation.op === "get" ? reads : writes;
    const answer = await batches.operate(operation, text);
    // The service may put a prefix before the key, which is then too long.
    if ("failure" in answer) throw requests.notDone(answer.status, answer.failure, { 400: "key" });
    if (answer.status === 412 && "entry" in answer) {
      throw new RevisionConflict(operation.key, answer.entry);
    }
    return answer;
  }

  async function find(operation: Exclude<Operation, { op: "put" }>): Promise<Entry | null> {
    const answer = await operate(operation, JSON.stringify(operation));
    return "entry" in answer ? answer.entry : null;
  }

  return checked({
    get: (key) => find({ op: "get", key }).catch(failRead),

    async set(key, value, options) {
      const answer = await operate({ op: "put", key }, putText(key, value, options));
      if (!("written" in answer)) throw requests.failed(new UnexpectedAnswer("other JSON"));
      return { key, value, ...answer.written, created: answer.status === 201 };
    },

    async setAll(values, { ttl }) {
      const keys = [...values.keys()];
      const members = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value}`);
      const body = `{${members.join(",")}}`;
      const path = ttl === undefined ? "/" : `/?ttl=${ttl}`;
      const mistakes = { 400: "key", 413: "value" } as const;
      const read = (text: string) => readEcho(text, keys);
      await writes.request(() => requests.call(path, read, { body, mistakes }));
    },

    delete: (key, { ifRevision }) => find({ op: "delete", key, ifRevision: readable(ifRevision) }),

    list(prefix, { after, limit }) {
      const query = new URLSearchParams({ prefix, limit: String(limit) });
      if (after !== undefined) query.set("after", after);
      // Only the service's own store knows its cursors, and how long its own prefix is.
      const mistakes = { 400: after === undefined ? "prefix" : "after" } as const;
      const request = () => requests.call(`/?${query}`, readPage, { mistakes });
      return reads.request(request).catch(failRead);
    },

    async watch(prefix, { since }) {
      // A header could not carry it, so no service gave it.
      if (since !== undefined && /[^\x21-\x7e]/.test(since)) throw new ChangesLost(since);
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (since !== undefined) headers["Last-Event-ID"] = since;
      const { stop, signal, clear } = requests.deadline();
      watches.add(stop);
      signal.addEventListener("abort", () => watches.delete(stop));
      const failed = (cause: unknown) => ofRead(requests.failed(cause));
      try {
        const path = `/?${new URLSearchParams({ prefix })}`;
        const response = await requests.send(path, { headers, signal });
        if (response.status === 410 && since !== undefined) throw new ChangesLost(since);
        if (response.status !== 200) {
          throw requests.refused(response.status, await readText(response), { 400: "prefix" });
        }
        const options = { stop, idleTimeout, failed, isClosed: () => isClosed };
        return await readChanges(response, options);
      } catch (cause) {
        stop.abort();
        if (!isClosed) throw failed(cause);
        throw new StoreUnavailable("The store is closed", { cause, outcome: "unchanged" });
      } finally {
        clear();
      }
    },

    check: () => reads.request(() => requests.call("/?health", readHealth)).catch(failRead),

    async close() {
      isClosed = true;
      for (const stop of watches) stop.abort();
      await Promise.all([reads.idle(), writes.idle()]);
      transport.close();
    },
  });
}

/**
 * Returns the operations whose results did not fit into one response, to be sent again: all but those
 * before a later operation on the same key that was done.
 */
function leftOut(batch: readonly PendingOperation[], answers: readonly Answer[]) {
  if (!answers.some(({ status }) => status === LEFT_OUT)) return [];
  const done = new Set<string>();
  const again = batch.toReversed().filter(({ operation: { key } }, i) => {
    const isLeftOut = answers.at(-1 - i)?.status === LEFT_OUT && !done.has(key);
    if (!isLeftOut) done.add(key);
    return isLeftOut;
  });
  return again.reverse();
}

function readHealth(text: string): void {
  if (text !== '{"status":"ok"}') throw new UnexpectedAnswer("other JSON");
}

/** Returns the error for a read, which changes nothing, whatever became of its request. */
function ofRead(error: unknown): unknown {
  return error instanceof StoreUnavailable && error.outcome === "unknown"
    ? new StoreUnavailable(error.message, { cause: error.cause, outcome: "unchanged" })
    : error;
}

function failRead(error: unknown): never {
  throw ofRead(error);
}
