/**
 * A key-value service, the network before it, and the deadlines of its clients: an order chooses
 * when each message arrives, and which is lost or late.
 */
import { EventEmitter } from "node:events";
import type { Order } from "../helpers/orders.ts";
import { json } from "../../stores/json/text.ts";
import { foundText, writtenText } from "../../stores/wire.ts";

/** How long a request may take, in milliseconds: known by no other timer. */
export const TIMEOUT = 7777;
/** The key of all entries. */
export const KEY = "k";

/** A connection, as a client of `node:net` sees it. */
class FakeSocket extends EventEmitter {
  readonly writableLength = 0;
  #isDestroyed = false;

  constructor(readonly service: Service, readonly name: string) {
    super();
  }

  setNoDelay = () => this;
  ref = () => this;
  unref = () => this;
  pause = () => this;
  resume = () => this;

  write(text: string): void {
    if (!this.#isDestroyed) this.service.receive(this, text);
  }

  /** Gives the client an event, unless it has ended the connection. */
  give(event: string, argument?: unknown): void {
    if (!this.#isDestroyed) this.emit(event, argument);
  }

  destroy(): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    this.service.open.delete(this);
    queueMicrotask(() => this.emit("close"));
  }
}

/** One service, which knows {@linkcode KEY}. */
export class Service {
  /** Connections that were not closed. */
  readonly open = new Set<FakeSocket>();
  /** Deadlines under way, by what each runs. */
  readonly #deadlines = new Map<() => void, number>();
  /** What clients have sent, whatever became of it. */
  sent = "";
  /** What the key was: before, and after each write that was done. */
  readonly values: (number | null)[] = [null];
  #time = 10_000;
  /** How many connections there were. */
  connections = 0;
  readonly #restore: () => void;

  constructor(readonly order: Order) {
    const { setTimeout, clearTimeout, process } = globalThis;
    const { getBuiltinModule } = process;
    const later = (run: () => void, time: number) => {
      if (time !== TIMEOUT) return setTimeout(run, time);
      this.#deadlines.set(run, this.#time + time);
      return run;
    };
    const clear = (timer: unknown) =>
      typeof timer === "function"
        ? this.#deadlines.delete(timer as () => void)
        : clearTimeout(timer as number);
    const net = { ...getBuiltinModule("node:net"), connect: () => this.#connect() };
    Object.assign(globalThis, { setTimeout: later, clearTimeout: clear });
    Object.assign(process, {
      getBuiltinModule: (name: string) => name === "node:net" ? net : getBuiltinModule(name),
    });
    Object.assign(performance, { now: () => this.#time });
    this.#restore = () => {
      Object.assign(globalThis, { setTimeout, clearTimeout });
      Object.assign(process, { getBuiltinModule });
      Reflect.deleteProperty(performance, "now");
    };
  }

  get deadlines(): number {
    return this.#deadlines.size;
  }

  end(): void {
    this.#restore();
  }

  /** Ends every connection, perhaps before the client has heard of it. */
  endConnections(): void {
    for (const socket of this.open) socket.give("end");
  }

  /** Takes a request, which arrives later, or never. */
  receive(socket: FakeSocket, text: string): void {
    this.sent += text;
    const arrive = () => this.#answer(socket, this.#responseTo(text));
    this.order.add(socket.name, "arrives", arrive, {
      "is lost": () => socket.give("end"),
      "vanishes": () => this.#passDeadline(),
      "is late": () => {
        this.order.add(socket.name, "arrives late", arrive);
        this.#passDeadline();
      },
    });
  }

  #answer(socket: FakeSocket, response: Uint8Array): void {
    const half = response.length / 2;
    const begin = () => socket.give("data", response.subarray(0, half));
    const rest = () => socket.give("data", response.subarray(half));
    this.order.add(socket.name, "is answered", () => (begin(), rest()), {
      "gets no answer": () => socket.give("error", new Error("reset")),
      "gets half an answer": () => (begin(), socket.give("end")),
      "is answered late": () => (begin(), this.#passDeadline(), rest()),
    });
  }

  #connect(): FakeSocket {
    const socket = new FakeSocket(this, `connection ${++this.connections} `);
    this.open.add(socket);
    const refuse = () => socket.give("error", Object.assign(new Error(), { code: "ECONNREFUSED" }));
    this.order.add(socket.name, "is there", () => socket.give("connect"), {
      "is refused": refuse,
      "is late": () => (this.#passDeadline(), socket.give("connect")),
    });
    return socket;
  }

  /** Lets the time pass that a request may take. */
  #passDeadline(): void {
    this.#time += TIMEOUT + 1;
    for (const [run, due] of this.#deadlines) {
      if (due <= this.#time && this.#deadlines.delete(run)) run();
    }
  }

  /** Does what a request asks for. */
  #responseTo(request: string): Uint8Array {
    const asked = JSON.parse(request.slice(request.indexOf("\r\n\r\n") + 4));
    const done = Array.isArray(asked)
      ? `[${asked.map(({ op, value }) => this.#operate(op, value))}]`
      : (this.values.push(asked[KEY]), JSON.stringify(asked));
    return new TextEncoder().encode(
      `HTTP/1.1 200 OK\r\nContent-Length: ${done.length}\r\n\r\n${done}`,
    );
  }

  #operate(op: string, value: number): string {
    const now = this.values.at(-1) ?? null;
    const revision = `r${this.values.length}`;
    const entry = now === null ? null : { key: KEY, value: json(now), revision, expires: null };
    if (op === "get") return foundText(200, entry);
    this.values.push(op === "delete" ? null : value);
    return op === "delete"
      ? foundText(200, entry)
      : writtenText({ key: KEY, value: json(value), revision, expires: null, created: false });
  }
}
