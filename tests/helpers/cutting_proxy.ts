/** A TCP proxy before a service, which cuts the connection of a chosen request. */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** Where a connection can be cut. */
export const CUTS = [
  "before the request",
  "within the request",
  "before the answer",
  "within the answer",
] as const;
export type Cut = typeof CUTS[number];

/** Stopped when it goes out of scope. */
export class CuttingProxy implements AsyncDisposable {
  /** How many requests came. */
  requests = 0;
  readonly #target: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #cut: { at: number; cut: Cut } | undefined;

  private constructor(target: number) {
    this.#target = target;
    this.#server = createServer((client) => this.#serve(client));
  }

  /** Starts a proxy before the service on this port of loopback. */
  static async start(target: number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Cuts the connection of the `n`th request from now on, counted from 1. */
  cut(cut: Cut, n = 1): void {
    this.#cut = { cut, at: this.requests + n };
  }

  /** Whether the request that was chosen has come. */
  get hasCut(): boolean {
    return this.#cut === undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await once(this.#server.close(), "close");
  }

  #serve(client: Socket): void {
    const service = connect(this.#target, "127.0.0.1");
    let cut: Cut | undefined;
    let request = Buffer.alloc(0);
    const end = () => {
      client.destroy();
      service.destroy();
    };
    for (const socket of [client, service]) {
      this.#sockets.add(socket);
      socket.on("error", end).on("close", end);
    }
    client.on("data", (bytes) => {
      request = Buffer.concat([request, bytes as Buffer]);
      if (!isWhole(request.toString("latin1"))) return;
      this.requests++;
      if (this.#cut?.at === this.requests) {
        cut = this.#cut.cut;
        this.#cut = undefined;
      }
      if (cut === "before the request") return end();
      if (cut === "within the request") {
        service.end(request.subarray(0, request.length / 2));
        return client.destroy();
      }
      service.write(request);
      request = Buffer.alloc(0);
    });
    service.on("data", (bytes) => {
      if (cut === "before the answer") return end();
      if (cut === undefined) return void client.write(bytes);
      client.write(bytes.subarray(0, bytes.length / 2), end);
    });
  }
}

/** Whether a text is a request with all of its body, which has a length or comes in chunks. */
function isWhole(text: string): boolean {
  const [head = "", body] = text.split(/\r\n\r\n(.*)/s);
  if (body === undefined) return false;
  if (/^transfer-encoding: chunked\r?$/im.test(head)) return /(^|\r\n)0\r\n\r\n$/.test(body);
  return body.length >= Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
}
