/**
 * A store on another machine: a client of `kv.ts`.
 *
 * The calls of one turn of the event loop travel as one request, an array of operations, and one
 * request is under way at a time; calls made meanwhile gather for the next. So a busy server makes
 * few requests, and writes take effect in the order of the calls. `setAll` is one request of its own,
 * of 10,000 entries and 16 MiB at most.
 *
 * @module
 */
import { IDLE_TIMEOUT, readChanges } from "./http_changes.ts";
import { checked } from "./checks.ts";
import {
  ChangesLost,
  DEADLINE,
  type Entry,
  InvalidArgument,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "./store.ts";
import { afterThisTurn } from "./timers.ts";
import {
  type Answer,
  type Failure,
  MAX_OPERATIONS,
  type Operation,
  operationText,
  putText,
  readAnswers,
  readEcho,
  readFailure,
  readPage,
  UnexpectedAnswer,
} from "./wire.ts";

/** About how long the body of an array may get, in characters. */
const BATCH_LENGTH = 4 * 1024 * 1024;

/** What {@linkcode httpStore} takes. */
export interface HttpOptions {
  /** The bearer token that the service asks for. */
  token?: string | undefined;
  /** How long a call may take, in milliseconds: by default {@linkcode DEADLINE}. */
  deadline?: number;
  /** How long a watched service may say nothing, in milliseconds: by default {@linkcode IDLE_TIMEOUT}. */
  idleTimeout?: number;
  /** Sends the requests: by default this runtime's own. */
  fetch?: typeof fetch;
}

/** A request, or a part of one, that waits to be sent. */
interface Pending {
  /** The text of an operation, which travels with others, or a whole body, which travels alone. */
  readonly body: string;
  /** What the answer is to; absent for a body that travels alone. */
  readonly operation?: Pick<Operation, "op" | "key">;
  /** The query of a body that travels alone. */
  readonly query?: string;
  readonly isWrite: boolean;
  readonly calledAt: number;
  resolve(answer: Answer | string): void;
  reject(error: unknown): void;
}

/** A status by which the service says that the caller gave a bad argument. */
interface Mistake {
  readonly status: number;
  readonly argument: InvalidArgument["argument"];
}

/**
 * Opens the store of the service at `url`. Nothing is sent before the first call.
 *
 * @example
 * ```ts
 * import { kv } from "../kv.ts";
 * import { httpStore } from "./http.ts";
 * import { json } from "./json_text.ts";
 * import { memoryStore } from "./memory.ts";
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
  const { deadline = DEADLINE, idleTimeout = IDLE_TIMEOUT, token, fetch = globalThis.fetch } =
    options;
  // A call waits for the request under way, then for its own: half of the deadline for each.
  const requestTimeout = deadline / 2;
  const service = url.replace(/\/+$/, "");
  const queue: Pending[] = [];
  let sending: Promise<void> | null = null;
  const watches = new Set<AbortController>();
  let closed = false;

  function enqueue(
    call: Omit<Pending, "calledAt" | "resolve" | "reject">,
  ): Promise<Answer | string> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer | string>();
    queue.push({ ...call, calledAt: performance.now(), resolve, reject });
    sending ??= sendAll();
    return promise;
  }

  async function sendAll(): Promise<void> {
    await new Promise<void>(afterThisTurn);
    for (let batch = nextBatch(); batch.length > 0; batch = nextBatch()) await send(batch);
    sending = null;
  }

  /** Takes what goes into the next request from the queue. */
  function nextBatch(): Pending[] {
    const isLate = ({ calledAt }: Pending) => performance.now() - calledAt > requestTimeout;
    while (queue[0] && isLate(queue[0])) {
      queue.shift()?.reject(unavailable("did not answer in time", "unchanged"));
    }
    let count = 0;
    let length = 0;
    while (count < Math.min(queue.length, MAX_OPERATIONS) && length < BATCH_LENGTH) {
      const call = queue[count] as Pending;
      if (call.operation === undefined) break;
      length += call.body.length;
      count++;
    }
    return queue.splice(0, Math.max(count, 1));
  }

  async function send(batch: Pending[]): Promise<void> {
    const [first] = batch;
    try {
      if (first?.query !== undefined) {
        const mistake: Mistake = { status: 413, argument: "value" };
        first.resolve(await request(`/${first.query}`, first.body, mistake));
        return;
      }
      const body = `[${batch.map((call) => call.body).join(",")}]`;
      const text = await request("/", body);
      const operations = batch.flatMap(({ operation }) => operation ?? []);
      const answers = reading(() => readAnswers(text, operations));
      for (const [i, call] of batch.entries()) call.resolve(answers[i] as Answer);
    } catch (error) {
      for (const call of batch) call.reject(forCall(error, call.isWrite));
    }
  }

  /** A read leaves nothing in doubt, whatever became of the request. */
  function forCall(error: unknown, isWrite: boolean): unknown {
    return error instanceof StoreUnavailable && !isWrite && error.outcome === "unknown"
      ? new StoreUnavailable(error.message, { cause: error.cause, outcome: "unchanged" })
      : error;
  }

  /** Sends one request and returns the body of its 200. */
  async function request(path: string, body?: string, mistake?: Mistake): Promise<string> {
    const headers = headersFor("application/json");
    if (body !== undefined) headers.set("Content-Type", "application/json");
    let status: number;
    let text: string;
    try {
      const response = await fetch(service + path, {
        method: body === undefined ? "GET" : "POST",
        body: body ?? null,
        headers,
        redirect: "manual",
        signal: AbortSignal.timeout(requestTimeout),
      });
      status = response.status;
      text = await response.text();
    } catch (cause) {
      throw requestFailed(cause);
    }
    if (status !== 200) throw refused(status, text, mistake);
    return text;
  }

  function headersFor(type: string): Headers {
    const headers = new Headers({ Accept: type });
    if (token !== undefined) headers.set("Authorization", `Bearer ${token}`);
    return headers;
  }

  function requestFailed(cause: unknown): unknown {
    // NotCapable: Deno was not given the network, which says nothing of the service.
    if (!(cause instanceof Error) || cause.name === "NotCapable") return cause;
    if (cause.name === "TimeoutError") {
      return unavailable("did not answer in time", "unknown", cause);
    }
    // Where no connection came about, nothing was sent. Deno tells that in words alone.
    const [unsent, reason] = /client error \(Connect\): (.+)|Requests to port \d+ are blocked/.exec(
      `${cause.message} ${cause.cause}`,
    ) ?? [];
    return unsent
      ? unavailable(`cannot be reached: ${reason ?? unsent}`, "unchanged", cause)
      : unavailable("cut the connection", "unknown", cause);
  }

  function watchFailed(cause: unknown): unknown {
    if (cause instanceof ChangesLost) return cause;
    if (cause instanceof StoreUnavailable) return forCall(cause, false);
    const isForeign = cause instanceof UnexpectedAnswer;
    return forCall(isForeign ? noService("other events", cause) : requestFailed(cause), false);
  }

  /** What a response other than 200 means. */
  function refused(status: number, text: string, mistake?: Mistake): Error {
    if (status === 401) return unavailable("wants another token: set KV_TOKEN", "unchanged");
    try {
      const failure = readFailure(text);
      return mistake?.status === status
        ? new InvalidArgument(mistake.argument, failure.detail)
        : failed(status, failure);
    } catch (cause) {
      if (!(cause instanceof UnexpectedAnswer)) throw cause;
      return noService(`status ${status}`, cause);
    }
  }

  function failed(status: number, { detail, outcome }: Failure): Error {
    if (status === 507) return new StoreFull(`${service}: ${detail}`);
    // An internal error says nothing of what was written before it.
    const usual = status < 500 ? "unchanged" : "unknown";
    return unavailable(`answered ${status}: ${detail}`, outcome ?? usual);
  }

  /** Says of an answer in another form that the service is not a key-value service. */
  function reading<T>(read: () => T): T {
    try {
      return read();
    } catch (cause) {
      if (cause instanceof UnexpectedAnswer) throw noService(cause.message, cause);
      throw cause;
    }
  }

  function noService(what: string, cause?: unknown): StoreUnavailable {
    return unavailable(`is no key-value service: it answered ${what}`, "unknown", cause);
  }

  function unavailable(what: string, outcome: "unchanged" | "unknown", cause?: unknown) {
    return new StoreUnavailable(`${service} ${what}`, { cause, outcome });
  }

  async function operate(operation: Pick<Operation, "op" | "key">, body: string) {
    const isWrite = operation.op !== "get";
    const answer = await enqueue({ body, operation, isWrite }) as Answer;
    if ("failure" in answer) throw forCall(failed(answer.status, answer.failure), isWrite);
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
    async get(key) {
      return await find({ op: "get", key });
    },

    async set(key, value, options) {
      const answer = await operate({ op: "put", key }, putText(key, value, options));
      if (!("written" in answer)) throw noService("no revision");
      return { key, value, ...answer.written, created: answer.status === 201 };
    },

    async setAll(values, { ttl }) {
      const members = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value}`);
      const query = ttl === undefined ? "" : `?ttl=${ttl}`;
      const keys = [...values.keys()];
      const text = await enqueue({ body: `{${members.join(",")}}`, query, isWrite: true });
      reading(() => readEcho(text as string, keys));
    },

    async delete(key, { ifRevision }) {
      return await find({ op: "delete", key, ifRevision });
    },

    async list(prefix, { after, limit }) {
      const query = new URLSearchParams({ prefix, limit: String(limit) });
      if (after !== undefined) query.set("after", after);
      // Only the service's own store knows its cursors.
      const mistake: Mistake | undefined = after === undefined
        ? undefined
        : { status: 400, argument: "after" };
      try {
        const text = await request(`/?${query}`, undefined, mistake);
        return reading(() => readPage(text));
      } catch (error) {
        throw forCall(error, false);
      }
    },

    async watch(prefix, { since }) {
      // No service gives an id that no header can carry.
      if (since !== undefined && /[^\x21-\x7e]/.test(since)) throw new ChangesLost(since);
      const headers = headersFor("text/event-stream");
      if (since !== undefined) headers.set("Last-Event-ID", since);
      const stop = new AbortController();
      const late = new DOMException("no answer in time", "TimeoutError");
      const timer = setTimeout(() => stop.abort(late), requestTimeout);
      watches.add(stop);
      try {
        const path = `/?${new URLSearchParams({ prefix })}`;
        const init = { headers, signal: stop.signal, redirect: "manual" } as const;
        const response = await fetch(service + path, init);
        if (response.status === 410 && since !== undefined) throw new ChangesLost(since);
        if (response.status !== 200) throw refused(response.status, await response.text());
        return await readChanges(response, {
          stop,
          idleTimeout,
          failed: watchFailed,
          isClosed: () => closed,
          ended: () => watches.delete(stop),
        });
      } catch (cause) {
        watches.delete(stop);
        stop.abort();
        throw watchFailed(cause);
      } finally {
        clearTimeout(timer);
      }
    },

    async close() {
      closed = true;
      for (const watch of watches) watch.abort();
      await sending;
    },
  });
}
