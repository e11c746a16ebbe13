/** Redis stores that fail: a proxy that cuts and delays, and a clock that a busy machine does not disturb. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { json } from "../../stores/json/text.ts";
import { redisStore } from "../../stores/redis/store.ts";
import type { Store } from "../../stores/store.ts";
import { freePort } from "./programs.ts";

/** The stores' deadline, in milliseconds. */
export const DEADLINE = 2000;
/** How much later than its deadline a call may end, in milliseconds. */
export const SLACK = 1000;

/** A TCP proxy in front of a server that a test makes fail. */
export class Proxy implements AsyncDisposable {
  /** How late answers are, in milliseconds; Infinity: they never come. */
  late = 0;
  /** When to cut the connection, once: before or after a request is passed on. */
  cut: "before" | "after" | null = null;
  readonly port = freePort();
  readonly #sockets = new Set<Socket>();
  readonly #ended = new AbortController();
  readonly #server = createServer((client) => this.#accept(client)).listen(this.port, "127.0.0.1");

  constructor(readonly to: number) {}

  #accept(client: Socket): void {
    const server = connect(this.to, "127.0.0.1");
    const ends = [client, server];
    for (const end of ends) {
      this.#sockets.add(end);
      end.on("error", () => {}); // "close" follows
      end.on("close", () => {
        this.#sockets.delete(end);
        for (const other of ends) other.destroy();
      });
    }
    client.on("data", (chunk) => {
      const { cut } = this;
      if (cut === "before") client.destroy();
      else server.write(chunk);
      if (cut === "after") this.#later(20, () => client.destroy());
      if (cut !== null) this.late = Infinity;
    });
    server.on("data", (chunk) => {
      if (this.late === 0) client.write(chunk);
      else if (this.late < Infinity) this.#later(this.late, () => client.write(chunk));
    });
  }

  #later(milliseconds: number, run: () => void): void {
    delay(milliseconds, undefined, { signal: this.#ended.signal }).then(run, () => {}); // the end came first
  }

  /** Cuts all connections. */
  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  heal(): void {
    this.late = 0;
    this.cut = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#ended.abort();
    this.#server.close();
    this.cutAll();
    await closed;
  }
}

/** Opens a store that closes at the end of the scope. */
export function open(url: string, deadline = DEADLINE): Store & AsyncDisposable {
  const store = redisStore(url, { deadline });
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}

/**
 * A clock in milliseconds from 0. A busy machine may stall: of the time between two ticks at most
 * 50 ms are counted.
 */
export class SteadyClock implements Disposable {
  #time = 0;
  #last = performance.now();
  readonly #timer = setInterval(() => this.now(), 10);

  now(): number {
    const real = performance.now();
    this.#time += Math.min(real - this.#last, 50);
    this.#last = real;
    return this.#time;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Returns a check for `eventually`: whether the store can write. */
export const works = (store: Store) => () =>
  store.set("probe", json(1)).then(() => true, () => false);
