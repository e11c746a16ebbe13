/**
 * Requests to a key-value service, and the store's errors for what goes wrong with them.
 *
 * @module
 */
import { ChangesLost, InvalidArgument, StoreFull, StoreUnavailable } from "../store.ts";
import { type Failure, readFailure, UnexpectedAnswer } from "../wire.ts";

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
  readonly fetch: typeof fetch;
}

/** The requests to one service. */
export class Requests {
  readonly #service: string;
  readonly #timeout: number;
  readonly #fetch: typeof fetch;
  readonly #headers: Record<string, string>;

  constructor(url: string, { token, timeout, fetch }: RequestsOptions) {
    this.#service = url.replace(/\/+$/, "");
    this.#timeout = timeout;
    this.#fetch = fetch;
    this.#headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  }

  /** Sends a request and returns the text of its 200. */
  async text(path: string, { body, limit, mistake }: RequestOptions): Promise<string> {
    const json = "application/json";
    const headers = { ...this.#headers, Accept: json };
    const signal = AbortSignal.timeout(this.#timeout);
    let status: number;
    let text: string;
    try {
      const response = await this.send(
        path,
        body === undefined
          ? { headers, signal }
          : { method: "POST", headers: { ...headers, "Content-Type": json }, body, signal },
      );
      status = response.status;
      text = await readText(response, limit);
    } catch (cause) {
      throw this.failed(cause);
    }
    if (status !== 200) throw this.refused(status, text, mistake);
    return text;
  }

  /** Sends a request. Redirects are not followed, so that no token goes elsewhere. */
  send(path: string, init: RequestInit): Promise<Response> {
    const { headers } = init;
    return this.#fetch(this.#service + path, {
      ...init,
      headers: { ...this.#headers, ...headers as Record<string, string> },
      redirect: "manual",
    });
  }

  /** Returns the error for a request that got no response, or only a part of one. */
  failed(cause: unknown): unknown {
    if (STORE_ERRORS.some((type) => cause instanceof type)) return cause;
    if (cause instanceof UnexpectedAnswer) return this.unexpected(cause);
    // NotCapable: Deno was not given the network, which says nothing about the service.
    if (!(cause instanceof Error) || cause.name === "NotCapable") return cause;
    if (cause.name === "TimeoutError") {
      return this.#unavailable("did not answer in time", "unknown", cause);
    }
    // Without a connection nothing was sent. Deno says so only in the message.
    const [unsent, reason] = /client error \(Connect\): (.+)|Requests to port \d+ are blocked/.exec(
      `${cause.message} ${cause.cause}`,
    ) ?? [];
    return unsent
      ? this.#unavailable(`cannot be reached: ${reason ?? unsent}`, "unchanged", cause)
      : this.#unavailable("cut the connection", "unknown", cause);
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
 * Reads the text of a response.
 *
 * @throws {UnexpectedAnswer} If it is over `limit` bytes; the rest is not read
 */
export async function readText(response: Response, limit: number): Promise<string> {
  const { headers, body } = response;
  const tooLong = () => new UnexpectedAnswer(`more than ${limit} bytes`);
  const length = headers.get("Content-Length");
  // A compressed body is shorter than its text, and one in chunks ignores the length (RFC 9112, 6.3).
  const isExact = !headers.has("Content-Encoding") && !headers.has("Transfer-Encoding");
  if (length !== null && isExact) {
    if (Number(length) <= limit) return await response.text();
    await body?.cancel();
    throw tooLong();
  }
  const decoder = new TextDecoder();
  let bytes = 0;
  let text = "";
  // Leaving the loop cancels the body.
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > limit) throw tooLong();
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
