/**
 * Requests to a key-value service, and the store's errors for what goes wrong with them.
 *
 * @module
 */
import { ChangesLost, InvalidArgument, StoreFull, StoreUnavailable } from "../store.ts";
import { type Failure, readFailure, UnexpectedAnswer } from "../wire.ts";
import { type Incoming, NotSent, type Outgoing, type Transport } from "./connections.ts";

/** Errors that need no translation. */
const STORE_ERRORS = [ChangesLost, InvalidArgument, StoreFull, StoreUnavailable];

/** A status that means that the caller gave a bad argument. */
export interface Mistake {
  readonly status: number;
  readonly argument: InvalidArgument["argument"];
}

/** One request. */
export interface RequestOptions {
  /** Makes it a `POST` of JSON. */
  readonly body?: string;
  /** The longest answer that is read, in bytes. */
  readonly limit: number;
  readonly mistake?: Mistake | undefined;
}

/** What {@linkcode Requests} takes. */
export interface RequestsOptions {
  readonly token: string | undefined;
  /** How long a request may take, in milliseconds. */
  readonly timeout: number;
  readonly transport: Transport;
}

/** The requests to one service. */
export class Requests {
  readonly #service: string;
  readonly #path: string;
  readonly #timeout: number;
  readonly #transport: Transport;
  readonly #headers: Record<string, string>;

  constructor(url: string, { token, timeout, transport }: RequestsOptions) {
    this.#service = url.replace(/\/+$/, "");
    this.#path = new URL(this.#service).pathname.replace(/\/$/, "");
    this.#timeout = timeout;
    this.#transport = transport;
    if (token !== undefined && !/^[\w.~+/=-]+$/.test(token)) {
      throw new TypeError(
        `Cannot send a token of ${token.length} characters: ` +
          "expected letters, digits, or any of - . _ ~ + / =",
      );
    }
    this.#headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  }

  /** Sends a request and returns the text of its 200. */
  async text(path: string, { body, limit, mistake }: RequestOptions): Promise<string> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let status: number;
    let text: string;
    const deadline = this.deadline();
    try {
      const response = await this.send(path, { headers, body, signal: deadline.signal });
      status = response.status;
      text = await readText(response, limit);
    } catch (cause) {
      throw this.failed(cause);
    } finally {
      deadline.clear();
    }
    if (status !== 200) throw this.refused(status, text, mistake);
    return text;
  }

  /** Sends a request. */
  send(path: string, request: Omit<Outgoing, "target">): Promise<Incoming> {
    return this.#transport.send({
      ...request,
      target: this.#path + path,
      headers: { ...this.#headers, ...request.headers },
    });
  }

  /** A signal that is aborted when a request has taken too long. */
  deadline() {
    const stop = new AbortController();
    const late = () => stop.abort(new DOMException("no answer in time", "TimeoutError"));
    const timer = setTimeout(late, this.#timeout);
    return { stop, signal: stop.signal, clear: () => clearTimeout(timer) };
  }

  /** Returns the error for a request that got no response, or only a part of one. */
  failed(cause: unknown): unknown {
    if (STORE_ERRORS.some((type) => cause instanceof type)) return cause;
    if (cause instanceof UnexpectedAnswer) return this.unexpected(cause);
    if (cause instanceof NotSent) {
      return this.#unavailable(`cannot be reached: ${cause.message}`, "unchanged", cause);
    }
    // NotCapable: Deno was not given the network, which says nothing about the service.
    if (!(cause instanceof Error) || cause.name === "NotCapable") return cause;
    const what = cause.name === "TimeoutError" ? "did not answer in time" : "cut the connection";
    return this.#unavailable(what, "unknown", cause);
  }

  /** Returns the error for a response other than a 200. */
  refused(status: number, text: string, mistake?: Mistake): Error {
    if (status === 401) {
      return this.#unavailable("requires another token: set KV_TOKEN", "unchanged");
    }
    try {
      const failure = readFailure(text);
      return mistake?.status === status
        ? new InvalidArgument(mistake.argument, failure.detail)
        : this.notDone(status, failure);
    } catch (cause) {
      if (!(cause instanceof UnexpectedAnswer)) throw cause;
      return this.unexpected(new UnexpectedAnswer(`status ${status}`, { cause }));
    }
  }

  /** Returns the error for a request, or one operation, that the service did not do. */
  notDone(status: number, { detail, outcome }: Failure): Error {
    if (status === 507) return new StoreFull(`${this.#service}: ${detail}`);
    // An internal error may have come after the write.
    const usual = status < 500 ? "unchanged" : "unknown";
    return this.#unavailable(`answered ${status}: ${detail}`, outcome ?? usual);
  }

  /** Returns the error for an answer in another form. */
  unexpected(cause: UnexpectedAnswer): StoreUnavailable {
    const what = `is not a key-value service: it answered ${cause.message}`;
    return this.#unavailable(what, "unknown", cause);
  }

  /** Returns the error for a call that could not be sent in time. */
  late(): StoreUnavailable {
    return this.#unavailable("did not answer in time", "unchanged");
  }

  #unavailable(what: string, outcome: StoreUnavailable["outcome"], cause?: unknown) {
    return new StoreUnavailable(`${this.#service} ${what}`, { cause, outcome });
  }
}

/**
 * Sends requests by a `fetch`, which follows no redirect, so that no token goes elsewhere, and cannot
 * send a stream twice.
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

/**
 * Reads the text of a response.
 *
 * @throws {UnexpectedAnswer} If it is over `limit` bytes; the rest is not read
 */
export async function readText({ body }: Incoming, limit: number): Promise<string> {
  const decoder = new TextDecoder();
  let bytes = 0;
  let text = "";
  // Leaving the loop ends the body.
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > limit) throw new UnexpectedAnswer(`more than ${limit} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** Returns the error for a read, which changes nothing whatever became of its request. */
export function ofRead(error: unknown): unknown {
  return error instanceof StoreUnavailable && error.outcome === "unknown"
    ? new StoreUnavailable(error.message, { cause: error.cause, outcome: "unchanged" })
    : error;
}
