/**
 * Requests by HTTP/1.1 (RFC 9112) over connections of our own, on Deno, Node and Bun. A request is
 * sent once, and a failure tells whether it was sent at all. `fetch` repeats a request if a reused
 * connection closes before the answer, sends even loopback to `HTTP_PROXY`, words failures differently
 * on each runtime, and takes about twice the CPU time.
 */
import type { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { UnexpectedAnswer } from "../wire.ts";
import { type Head, readHead, sizeOf } from "./head.ts";

/** A request: with a body a `POST`, without one a `GET`. */
export interface Outgoing {
  /** The path and the query. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  /** Ends the request, or its response. */
  readonly signal: AbortSignal;
}

/** A response. Its connection is in use until the body is read, or the request ended. */
export interface Incoming extends Pick<Head, "status" | "header"> {
  readonly body: AsyncIterable<Uint8Array<ArrayBuffer>>;
}

/** How requests get to a service. */
export interface Transport {
  /** @throws {NotSent} If nothing was sent; after any other error, something may have been */
  send(request: Outgoing): Promise<Incoming>;
  /** Closes the connections without a request. */
  close(): void;
}

/** Nothing of a request was sent; the message is the reason. */
export class NotSent extends Error {
  override readonly name = "NotSent";
}

/** How long a connection may be unused, in milliseconds: a Node server closes it after five seconds. */
const IDLE_TIMEOUT = 4000;
/** The longest head of a response, and the longest line between two chunks, in bytes. */
const MAX_HEAD = 16 * 1024;
const MAX_LINE = 1024;
/** About how many bytes are read ahead. */
const READ_AHEAD = 64 * 1024;
/** Reasons by the codes that Deno, Node and Bun share. */
const REASONS = new Map([
  ["ECONNREFUSED", "connection refused"],
  ["ENOTFOUND", "no such host"],
  // Deno's code for a host name; for an address it names the missing permission itself.
  ["EPERM", "not permitted: Deno expects --allow-net"],
  ["ERR_SSL_WRONG_VERSION_NUMBER", "it answers without TLS: expected http instead of https"],
]);

/** Whether the runtime has sockets that outlive a request; in an edge worker they do not. */
export const hasSockets: boolean = /^(Deno|Node\.js|Bun)\//.test(
  globalThis.navigator?.userAgent ?? "",
);

/** Returns a module of Node's. An import would keep bundlers from building for a worker. */
function builtin<T extends "node:net" | "node:tls" | "node:buffer" | "node:events">(name: T) {
  return globalThis.process.getBuiltinModule(name);
}

/** Connections to one service, each with one request at a time. */
export class Connections implements Transport {
  readonly #idle: Connection[] = [];

  constructor(readonly url: URL) {}

  async send({ target, headers, body, signal }: Outgoing): Promise<Incoming> {
    const lines = [`${body === undefined ? "GET" : "POST"} ${target} HTTP/1.1`];
    lines.push(`Host: ${this.url.host}`);
    for (const name in headers) lines.push(`${name}: ${headers[name]}`);
    if (body !== undefined) {
      lines.push(`Content-Length: ${builtin("node:buffer").Buffer.byteLength(body)}`);
    }
    const connection = this.#takeIdle() ?? new Connection(await this.#connect(signal), this.#idle);
    return await connection.send(`${lines.join("\r\n")}\r\n\r\n${body ?? ""}`, signal);
  }

  close(): void {
    for (const connection of this.#idle) connection.destroy();
  }

  #takeIdle(): Connection | undefined {
    for (let it = this.#idle.pop(); it; it = this.#idle.pop()) {
      if (it.isUsable && performance.now() - it.idleSince < IDLE_TIMEOUT) return it;
      it.destroy();
    }
    return undefined;
  }

  async #connect(signal: AbortSignal): Promise<Socket> {
    const { protocol, hostname, port } = this.url;
    const { connect, isIP } = builtin("node:net");
    const host = hostname.replace(/^\[|\]$/g, "");
    const isSecure = protocol === "https:";
    const address = { host, port: Number(port || (isSecure ? 443 : 80)) };
    const secure = { ALPNProtocols: ["http/1.1"], servername: isIP(host) ? "" : host };
    const socket = isSecure
      ? builtin("node:tls").connect({ ...address, ...secure })
      : connect(address);
    try {
      const { once } = builtin("node:events");
      await once(socket, isSecure ? "secureConnect" : "connect", { signal });
      return socket;
    } catch (error) {
      socket.destroy();
      const cause: unknown = signal.aborted ? signal.reason : error;
      // Deno was not given the network, which says nothing about the service.
      if (cause instanceof Error && cause.name === "NotCapable") throw cause;
      throw new NotSent(reasonOf(cause) + unusedProxy(this.url), { cause });
    }
  }
}

function reasonOf(cause: unknown): string {
  const { code, message, errors } = Object(cause);
  // Node gives an error for each address of a name.
  return REASONS.get(code) ?? (message || reasonOf(errors?.[0]));
}

/** Names the proxy of the environment, which other programs would use. */
function unusedProxy({ hostname }: URL): string {
  if (/^(localhost$|127\.|\[::1\])/.test(hostname)) return "";
  try {
    const { env } = globalThis.process;
    const names = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];
    const name = names.flatMap((it) => [it, it.toLowerCase()]).find((it) => env[it]);
    const [, host = ""] = /([^/@]*)\/*$/.exec(name && env[name] || "") ?? [];
    return name ? ` (directly: the proxy ${host} of ${name} is not used)` : "";
  } catch {
    return ""; // Deno was not given the environment
  }
}

class Connection {
  /** When the last request ended, by `performance.now()`. */
  idleSince = 0;
  #unread: Buffer<ArrayBuffer> = builtin("node:buffer").Buffer.alloc(0);
  #failure: unknown;
  #wake = () => {};

  /** @param idle Where it waits for the next request */
  constructor(readonly socket: Socket, readonly idle: Connection[]) {
    socket.setNoDelay(true).unref();
    socket.on("data", (bytes: Buffer<ArrayBuffer>) => this.#add(bytes));
    socket.on("error", (error) => this.destroy(error));
    for (const end of ["end", "close"]) socket.on(end, () => this.destroy());
  }

  /** Whether a request can be sent: it is open, and has received nothing unrequested. */
  get isUsable(): boolean {
    return this.#failure === undefined && this.#unread.length === 0;
  }

  destroy(reason: unknown = new Error("The connection ended")): void {
    this.#failure ??= reason;
    this.socket.destroy();
    this.#wake();
  }

  /** Sends a request, and returns the response once its head is there. */
  async send(text: string, signal: AbortSignal): Promise<Incoming> {
    try {
      // Since the connection was made: then no event would come.
      if (signal.aborted) throw new NotSent(reasonOf(signal.reason), { cause: signal.reason });
      signal.addEventListener("abort", () => this.destroy(signal.reason));
      this.socket.write(text);
      for (;;) {
        const head = readHead(await this.#until("\r\n\r\n", MAX_HEAD));
        if (head.status >= 200) return { ...head, body: this.#body(head) };
      }
    } catch (error) {
      this.destroy();
      throw error;
    }
  }

  /** Yields a body (RFC 9112, section 6.3). One that ends with its connection is not accepted. */
  async *#body({ status, header, isPersistent }: Head): AsyncGenerator<Buffer<ArrayBuffer>> {
    let isWhole = false;
    try {
      const coding = header("transfer-encoding")?.toLowerCase();
      const length = header("content-length") ?? (status === 204 || status === 304 ? "0" : "");
      if (coding === undefined) {
        yield* this.#bytes(sizeOf(length, /^(\d{1,15})$/, 10));
      } else if (coding === "chunked") {
        let left: number;
        do {
          left = sizeOf(await this.#until("\r\n", MAX_LINE), /^([\da-f]{1,8})[ \t]*(;|$)/i, 16);
          yield* this.#bytes(left);
          // An empty line follows; after the last chunk, which is empty, there may be fields before it.
          while (await this.#until("\r\n", MAX_LINE) !== "") {
            if (left > 0) throw new UnexpectedAnswer("no HTTP");
          }
        } while (left > 0);
      } else {
        throw new UnexpectedAnswer(`a body in the coding "${coding}"`);
      }
      isWhole = isPersistent && this.socket.writableLength === 0;
    } finally {
      this.idleSince = performance.now();
      if (isWhole && this.isUsable) this.idle.push(this);
      else this.destroy();
    }
  }

  async *#bytes(count: number): AsyncGenerator<Buffer<ArrayBuffer>> {
    for (let left = count; left > 0;) {
      if (this.#unread.length === 0) await this.#more();
      const bytes = this.#take(left);
      left -= bytes.length;
      yield bytes;
    }
  }

  /** Takes the text before a mark, and drops the mark. */
  async #until(mark: string, limit: number): Promise<string> {
    let at: number;
    while ((at = this.#unread.indexOf(mark)) === -1) {
      if (this.#unread.length > limit) throw new UnexpectedAnswer("no HTTP");
      await this.#more();
    }
    return this.#take(at + mark.length).toString("latin1", 0, at);
  }

  #take(count: number): Buffer<ArrayBuffer> {
    const taken = this.#unread.subarray(0, count);
    this.#unread = this.#unread.subarray(count);
    return taken;
  }

  #add(bytes: Buffer<ArrayBuffer>): void {
    this.#unread = this.#unread.length === 0
      ? bytes
      : builtin("node:buffer").Buffer.concat([this.#unread, bytes]);
    if (this.#unread.length > READ_AHEAD) this.socket.pause();
    this.#wake();
  }

  /** Waits for more bytes. The socket keeps the program alive only meanwhile. */
  async #more(): Promise<void> {
    const before = this.#unread.length;
    if (this.#failure === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.socket.resume().ref();
      await promise;
      this.socket.unref();
    }
    if (this.#unread.length === before) throw this.#failure;
  }
}
