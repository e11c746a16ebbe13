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
import { z } from "zod";
import { Contents, entryOf, IDLE_TIMEOUT, readChanges } from "./http_changes.ts";
import { checkKey, checkLimit, checkPrefix, closedStore, expiry } from "./checks.ts";
import { type JsonText, parseJson } from "./json_text.ts";
import type { OpenOptions } from "./open.ts";
import {
  ChangesLost,
  DEADLINE,
  InvalidArgument,
  MAX_PAGE,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "./store.ts";

/** The most operations in one request, and about how long its body may get, in characters. */
const MAX_OPERATIONS = 1000;
const BATCH_LENGTH = 4 * 1024 * 1024;

/** What {@linkcode httpStore} takes. */
export interface HttpOptions extends OpenOptions {
  /** How long a call may take, in milliseconds: by default {@linkcode DEADLINE}. */
  deadline?: number;
  /** How long a watched service may say nothing, in milliseconds: by default {@linkcode IDLE_TIMEOUT}. */
  idleTimeout?: number;
  /** Sends the requests: by default this runtime's own. */
  fetch?: typeof fetch;
}

/** A call that waits for its request. */
interface Call {
  /** Of an operation, which travels with others, or of a whole body, which travels alone. */
  readonly body: string;
  /** The query of a call that travels alone. */
  readonly alone?: string;
  readonly isWrite: boolean;
  readonly calledAt: number;
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

interface Operation {
  readonly op: "get" | "put" | "delete";
  readonly key: string;
  readonly ttl?: number | undefined;
  readonly ifRevision?: string | null | undefined;
}

/** Why a request was not done. */
const Problem = z.object({
  detail: z.string(),
  outcome: z.enum(["unchanged", "unknown"]).optional(),
});
/** What an operation found or wrote. */
const Found = Contents.extend({ status: z.literal([200, 201, 412]) });
const Failed = Problem.extend({ status: z.number() });
const Answers = z.array(z.union([Found, Failed]));
type Problem = z.infer<typeof Problem>;
type Found = z.infer<typeof Found>;
type Answer = z.infer<typeof Answers>[number];
const KeyPage = z.object({ keys: z.array(z.string()), next: z.string().nullable() });

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
  const queue: Call[] = [];
  let sending: Promise<void> | null = null;
  const watches = new Set<AbortController>();
  let closed = false;

  function enqueue(call: Pick<Call, "body" | "alone" | "isWrite">): Promise<unknown> {
    if (closed) throw closedStore();
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    queue.push({ ...call, calledAt: performance.now(), resolve, reject });
    sending ??= sendAll();
    return promise;
  }

  async function sendAll(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    for (let batch = nextBatch(); batch.length > 0; batch = nextBatch()) await send(batch);
    sending = null;
  }

  /** Takes what goes into the next request from the queue. */
  function nextBatch(): Call[] {
    const isLate = ({ calledAt }: Call) => performance.now() - calledAt > requestTimeout;
    while (queue[0] && isLate(queue[0])) {
      queue.shift()?.reject(unavailable("did not answer in time", "unchanged"));
    }
    let count = 0;
    let length = 0;
    while (count < Math.min(queue.length, MAX_OPERATIONS) && length < BATCH_LENGTH) {
      const call = queue[count] as Call;
      if (call.alone !== undefined) break;
      length += call.body.length;
      count++;
    }
    return queue.splice(0, Math.max(count, 1));
  }

  async function send(batch: Call[]): Promise<void> {
    const [first] = batch;
    try {
      if (first?.alone !== undefined) {
        first.resolve(await request(`/${first.alone}`, first.body));
        return;
      }
      const body = `[${batch.map((call) => call.body).join(",")}]`;
      const answers = expect(Answers, await request("/", body));
      if (answers.length !== batch.length) throw noService(`${answers.length} answers`);
      for (const [i, call] of batch.entries()) call.resolve(answers[i]);
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

  /** Sends one request and gives the JSON of its 200. */
  async function request(path: string, body?: string): Promise<unknown> {
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
    if (status !== 200) throw refused(status, text, path.includes("&after="));
    return readJson(text);
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
    const isForeign = cause instanceof SyntaxError || cause instanceof z.ZodError;
    return forCall(isForeign ? noService("other events", cause) : requestFailed(cause), false);
  }

  function refused(status: number, text: string, hasCursor = false): Error {
    const problem = Problem.safeParse(tryJson(text));
    if (status === 401) return unavailable("wants another token: set KV_TOKEN", "unchanged");
    if (!problem.success) return noService(`status ${status}`);
    // Whatever else a call says was checked here.
    if (hasCursor && status === 400) return new InvalidArgument("after", problem.data.detail);
    return failure(status, problem.data);
  }

  function failure(status: number, { detail, outcome }: Problem): Error {
    if (status === 507) return new StoreFull(`${service}: ${detail}`);
    if (status === 413) return new InvalidArgument("value", `${service}: ${detail}`);
    // A defect of the service says nothing of what was written before it.
    const usual = status < 500 ? "unchanged" : "unknown";
    return unavailable(`answered ${status}: ${detail}`, outcome ?? usual);
  }

  function readJson(text: string): unknown {
    try {
      return parseJson(text);
    } catch (cause) {
      throw noService("no JSON", cause);
    }
  }

  function expect<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    throw noService("other JSON", result.error);
  }

  function noService(what: string, cause?: unknown): StoreUnavailable {
    return unavailable(`is no key-value service: it answered ${what}`, "unknown", cause);
  }

  function unavailable(what: string, outcome: "unchanged" | "unknown", cause?: unknown) {
    return new StoreUnavailable(`${service} ${what}`, { cause, outcome });
  }

  async function operate(operation: Operation, value?: JsonText): Promise<Found> {
    const { op, key } = operation;
    checkKey(key);
    const members = JSON.stringify(operation);
    const body = value === undefined ? members : `${members.slice(0, -1)},"value":${value}}`;
    const isWrite = op !== "get";
    const answer = await enqueue({ body, isWrite }) as Answer;
    if ("detail" in answer) throw forCall(failure(answer.status, answer), isWrite);
    if (answer.status === 412) throw new RevisionConflict(key, entryOf(key, answer));
    return answer;
  }

  // The methods are async so that a bad argument rejects, as it does on every other engine.
  return {
    async get(key) {
      return entryOf(key, await operate({ op: "get", key }));
    },

    async set(key, value, { ttl, ifRevision } = {}) {
      expiry(ttl, 0);
      const answer = await operate({ op: "put", key, ttl, ifRevision }, value);
      const entry = entryOf(key, answer);
      if (entry === null) throw noService("no revision");
      return { ...entry, created: answer.status === 201 };
    },

    async setAll(values, { ttl } = {}) {
      expiry(ttl, 0);
      for (const key of values.keys()) checkKey(key);
      const members = Array.from(values, ([key, value]) => `${JSON.stringify(key)}:${value}`);
      const alone = ttl === undefined ? "" : `?ttl=${ttl}`;
      const echo = await enqueue({ body: `{${members.join(",")}}`, alone, isWrite: true });
      const written = Object(echo);
      for (const key of values.keys()) {
        if (!Object.hasOwn(written, key)) throw noService("other JSON");
      }
    },

    async delete(key, { ifRevision } = {}) {
      return entryOf(key, await operate({ op: "delete", key, ifRevision }));
    },

    async list(prefix, { after, limit = MAX_PAGE } = {}) {
      if (closed) throw closedStore();
      checkPrefix(prefix);
      checkLimit(limit);
      const query = new URLSearchParams({ prefix, limit: String(limit) });
      if (after !== undefined) query.set("after", after);
      try {
        return expect(KeyPage, await request(`/?${query}`));
      } catch (error) {
        throw forCall(error, false);
      }
    },

    async watch(prefix, { since } = {}) {
      if (closed) throw closedStore();
      checkPrefix(prefix);
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
  };
}

/** What is no JSON is undefined. */
function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
