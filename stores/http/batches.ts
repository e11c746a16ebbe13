/**
 * Gathers calls into requests. The calls of one turn of the event loop travel together, as one array
 * of operations, and a few such requests are under way at a time. Calls that name one key stay in
 * order: none is sent while a request that names its key is under way.
 *
 * @module
 */
import { afterThisTurn } from "../timers.ts";
import { type Answer, MAX_BODY_BYTES, type Operation } from "../wire.ts";

/** The most requests under way. */
const MAX_REQUESTS = 4;
/** The most operations in one request: each may be answered by a value of 1 MiB. */
const MAX_BATCH = 100;
/** The length of a body, in characters, at which nothing is added: in UTF-8 up to three times as many bytes. */
const FULL_LENGTH = MAX_BODY_BYTES / 4;

/** An operation that waits to be sent. */
export interface PendingOperation {
  readonly operation: Pick<Operation, "op" | "key">;
  readonly text: string;
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** A request of its own, which waits until none is under way and keeps others waiting. */
interface PendingRequest {
  run(): Promise<void>;
  reject(error: unknown): void;
}

type Pending = (PendingOperation | PendingRequest) & { readonly since: number };

/** What {@linkcode Batches} takes. */
export interface BatchesOptions {
  /** Sends a request and settles its operations. It does not reject. */
  send(operations: readonly PendingOperation[]): Promise<void>;
  /** How long a call may wait to be sent, in milliseconds. */
  timeout: number;
  /** The error of a call that was not sent in time. */
  late(): Error;
}

/** The calls that wait and the requests under way. */
export class Batches {
  readonly #options: BatchesOptions;
  #queue: Pending[] = [];
  #underWay = 0;
  /** The keys that requests under way name. */
  readonly #busy = new Set<string>();
  #isAlone = false;
  #isScheduled = false;
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(options: BatchesOptions) {
    this.#options = options;
  }

  /** Sends an operation, with the others of this turn. */
  operate(operation: Pick<Operation, "op" | "key">, text: string): Promise<Answer> {
    return new Promise<Answer>((resolve, reject) => {
      this.#add({ operation, text, resolve, reject, since: performance.now() });
    });
  }

  /** Runs `request` after all calls that came before, and before all that come after. */
  alone<T>(request: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const run = () => request().then(resolve, reject);
      this.#add({ run, reject, since: performance.now() });
    });
  }

  /** Resolves when nothing waits and nothing is under way. */
  async idle(): Promise<void> {
    if (this.#queue.length === 0 && this.#underWay === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  #add(pending: Pending): void {
    this.#queue.push(pending);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    afterThisTurn(() => {
      this.#isScheduled = false;
      this.#sendAll();
    });
  }

  #sendAll(): void {
    const end = performance.now() - this.#options.timeout;
    // Those that came first have waited longest.
    while (this.#queue[0] && this.#queue[0].since < end) {
      this.#queue.shift()?.reject(this.#options.late());
    }
    while (this.#underWay < MAX_REQUESTS && !this.#isAlone) {
      const [first] = this.#queue;
      if (first && "run" in first) {
        if (this.#underWay > 0) return;
        this.#queue.shift();
        this.#isAlone = true;
        this.#start(first.run());
        return;
      }
      const batch = this.#take();
      if (batch.length === 0) break;
      const keys = batch.map(({ operation }) => operation.key);
      for (const key of keys) this.#busy.add(key);
      this.#start(this.#options.send(batch), keys);
    }
    if (this.#queue.length === 0 && this.#underWay === 0) this.#idle?.resolve();
  }

  /** Takes the operations of the next request from the queue. */
  #take(): PendingOperation[] {
    const batch: PendingOperation[] = [];
    const rest: Pending[] = [];
    let length = 0;
    for (const [i, pending] of this.#queue.entries()) {
      const isFull = batch.length === MAX_BATCH || length > FULL_LENGTH;
      if (isFull || "run" in pending) {
        rest.push(...this.#queue.slice(i));
        break;
      }
      if (this.#busy.has(pending.operation.key)) {
        rest.push(pending);
      } else {
        batch.push(pending);
        length += pending.text.length;
      }
    }
    this.#queue = rest;
    return batch;
  }

  #start(request: Promise<void>, keys: readonly string[] = []): void {
    this.#underWay++;
    request.finally(() => {
      this.#underWay--;
      this.#isAlone = false;
      for (const key of keys) this.#busy.delete(key);
      // The calls that its answers lead to come in this turn, and join the next request.
      this.#schedule();
    });
  }
}
