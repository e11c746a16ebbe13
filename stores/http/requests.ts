/** Requests to a key-value service, and the store's errors for what goes wrong with them. */
import { tokenProblem } from "../checks.ts";
import { ChangesLost, InvalidArgument, StoreFull, StoreUnavailable } from "../store.ts";
import { type Failure, MAX_BODY_BYTES, readFailure, UnexpectedAnswer } from "../wire.ts";
import { type Incoming, NotSent, type Outgoing, type Transport } from "./connections.ts";

/** Errors that need no translation. */
const STORE_ERRORS = [ChangesLost, InvalidArgument, StoreFull, StoreUnavailable];

/** The longest answer that is read by default, in bytes: the echo of a body, with escapes. */
const MAX_TEXT_BYTES = 2 * MAX_BODY_BYTES;

/** How a 400 begins that blames an argument. Any other is not the caller's: the Host, say, is ours. */
const MISTAKE = /^Cannot (use the key|use the prefix|list after)\b/;

/** Which argument of a call a status blames. */
type Mistakes = { readonly [status in 400 | 413]?: InvalidArgument["argument"] };

/** One request, with a body a `POST` of JSON. */
export interface RequestOptions {
  readonly body?: string;
  /** The longest answer that is read, in bytes. */
  readonly limit?: number;
  /** The caller's arguments that are wrong if a status says so. */
  readonly mistakes?: Mistakes;
}

export class Requests {
  readonly #service: string;
  readonly #path: string;
  readonly #headers: Record<string, string> = {};

  /** @param timeout How long a request may take, in milliseconds */
  constructor(
    url: string,
    token: string | undefined,
    readonly timeout: number,
    readonly transport: Transport,
    readonly tokenName = "KV_TOKEN",
  ) {
    this.#service = url.replace(/\/+$/, "");
    this.#path = new URL(this.#service).pathname.replace(/\/$/, "");
    if (token === undefined) return;
    const problem = tokenProblem(token);
    if (problem !== null) {
      throw new TypeError(`Cannot send a token of ${token.length} characters: ${problem}`);
    }
    this.#headers = { Authorization: `Bearer ${token}` };
  }

  /** Sends a request. Its answer is for `read`, which may throw an {@linkcode UnexpectedAnswer}. */
  async call<T>(
    path: string,
    read: (text: string) => T,
    { body, limit, mistakes }: RequestOptions = {},
  ): Promise<T> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const deadline = this.deadline();
    try {
      const response = await this.send(path, { headers, body, signal: deadline.signal });
      const text = await readText(response, limit);
      if (response.status !== 200) throw this.refused(response.status, text, mistakes);
      return read(text);
    } catch (cause) {
      throw this.failed(cause);
    } finally {
      deadline.clear();
    }
  }

  send(path: string, request: Omit<Outgoing, "target">): Promise<Incoming> {
    const headers = { ...this.#headers, ...request.headers };
    return this.transport.send({ ...request, target: this.#path + path, headers });
  }

  /** Returns a signal that is aborted when a request has taken too long. */
  deadline() {
    const stop = new AbortController();
    const late = () => stop.abort(new DOMException("no answer in time", "TimeoutError"));
    const timer = setTimeout(late, this.timeout);
    return { stop, signal: stop.signal, clear: () => clearTimeout(timer) };
  }

  /** Returns the store's error for a request that failed, or whose answer has another form. */
  failed(cause: unknown): unknown {
    if (STORE_ERRORS.some((type) => cause instanceof type)) return cause;
    if (cause instanceof UnexpectedAnswer) {
      const what = `is not a key-value service: it answered ${cause.message}`;
      return this.unavailable(what, "unknown", cause);
    }
    if (cause instanceof NotSent) {
      return this.unavailable(`cannot be reached: ${cause.message}`, "unchanged", cause);
    }
    // NotCapable: Deno was not given the network, which says nothing about the service.
    if (!(cause instanceof Error) || cause.name === "NotCapable") return cause;
    const what = cause.name === "TimeoutError" ? "did not answer in time" : "cut the connection";
    return this.unavailable(what, "unknown", cause);
  }

  /** Returns the error for a response other than a 200, or throws an {@linkcode UnexpectedAnswer}. */
  refused(status: number, text: string, mistakes?: Mistakes): Error {
    if (status === 401) {
      const wanted = "Authorization" in this.#headers ? "another token" : "a token";
      return this.unavailable(`requires ${wanted}: set ${this.tokenName}`, "unchanged");
    }
    return this.notDone(status, readFailure(status, text), mistakes);
  }

  /** Returns the error for a request, or one operation, that the service did not do. */
  notDone(status: number, { detail, outcome }: Failure, mistakes: Mistakes = {}): Error {
    const argument = status === 400 && MISTAKE.test(detail) || status === 413
      ? mistakes[status]
      : undefined;
    if (argument !== undefined) return new InvalidArgument(argument, detail);
    if (status === 507) return new StoreFull(`${this.#service}: ${detail}`);
    // An internal error may have come after the write.
    const usual = status < 500 ? "unchanged" : "unknown";
    return this.unavailable(`answered ${status}: ${detail}`, outcome ?? usual);
  }

  unavailable(what: string, outcome: StoreUnavailable["outcome"], cause?: unknown) {
    return new StoreUnavailable(`${this.#service} ${what}`, { cause, outcome });
  }
}

/**
 * Sends requests by a `fetch`. It follows no redirect, which could leak the token, and gets bodies as
 * streams, which it cannot send twice.
 */
export function overFetch(service: URL, fetch: typeof globalThis.fetch): Transport {
  return {
    async send({ target, headers, body: text, signal }) {
      // Without `duplex` Node takes no stream.
      const post = text === undefined
        ? {}
        : { method: "POST", body: new Blob([text]).stream(), duplex: "half" };
      const init: RequestInit = { headers, signal, redirect: "manual", ...post };
      const response = await fetch(service.origin + target, init);
      const header = (name: string) => response.headers.get(name);
      // A body of an app in this process knows nothing of the signal.
      const body = (response.body ?? new Blob().stream())
        .pipeThrough(new TransformStream<Uint8Array<ArrayBuffer>>(), { signal });
      return { status: response.status, header, body };
    },
    close() {},
  };
}

/** @throws {UnexpectedAnswer} If the text is over `limit` bytes; the rest is not read */
export async function readText({ body }: Incoming, limit = MAX_TEXT_BYTES): Promise<string> {
  const decoder = new TextDecoder();
  let bytes = 0;
  let text = "";
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > limit) throw new UnexpectedAnswer(`more than ${limit} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
