/**
 * Gathers calls into requests. The calls of one turn of the event loop travel together, as one array
 * of operations. Writes wait until the request with the writes before them is answered, so they take
 * effect in order; meanwhile more of them gather. Reads do not wait for writes, which wait for a disk.
 *
 * @module
 */
import { afterThisTurn } from "../timers.ts";
import { type Answer, MAX_BODY_BYTES, type Operation } from "../wire.ts";

/** The length of a body, in characters, at which nothing is added: in UTF-8 up to three times as many bytes. */
const FULL_LENGTH = MAX_BODY_BYTES / 4;
/** How many calls that are late end in one turn: what their callers do then takes time, too. */
const LATE_AT_ONCE = 1000;

/** An operation that waits to be sent. */
export interface PendingOperation {
  readonly operation: Pick<Operation, "op" | "key">;
  readonly text: string;
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** A request of its own. */
interface PendingRequest {
  run(): Promise<void>;
  reject(error: unknown): void;
}

type Pending = (PendingOperation | PendingRequest) & { readonly since: number };

/** What {@linkcode Batches} takes. */
export interface BatchesOptions {
  /** The most requests under way. */
  requests: number;
  /** The most operations in one request: each may be answered by a value of 1 MiB. */
  operations: number;
  /** Sends a request and settles its operations. It does not reject. */
  send(operations: readonly PendingOperation[]): Promise<void>;
  /** How long a call may wait to be sent, in milliseconds. */
  timeout: number;
  /** The error of a call that was not sent in time. */
  late(): Error;
}

/** Calls that wait in order, and the requests under way. */
export class Batches {
  readonly #options: BatchesOptions;
  /** Those before `#next` were taken. */
  #queue: Pending[] = [];
  #next = 0;
  #underWay = 0;
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

  /** Runs a request of its own, in its turn. */
  request<T>(request: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const run = () => request().then(resolve, reject);
      this.#add({ run, reject, since: performance.now() });
    });
  }

  /** Resolves when nothing waits and nothing is under way. */
  async idle(): Promise<void> {
    if (this.#first === undefined && this.#underWay === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  get #first(): Pending | undefined {
    return this.#queue[this.#next];
  }

  #add(pending: Pending): void {
    this.#queue.push(pending);
    this.#schedule(afterThisTurn);
  }

  #schedule(later: (task: () => void) => void): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    later(() => {
      this.#isScheduled = false;
      this.#sendAll();
    });
  }

  #sendAll(): void {
    const { requests, timeout, late, send } = this.#options;
    const end = performance.now() - timeout;
    // Those that came first have waited longest. They share an error, as those of a request do.
    const error = this.#first && this.#first.since < end ? late() : undefined;
    for (let count = 0; this.#first && this.#first.since < end; count++) {
      // By a timer: between turns that only follow one another Deno seldom looks for input.
      if (count === LATE_AT_ONCE) return this.#schedule((task) => void setTimeout(task, 1));
      this.#take(this.#first).reject(error);
    }
    while (this.#underWay < requests && this.#first) {
      if ("run" in this.#first) this.#start(this.#take(this.#first).run());
      else this.#start(send(this.#takeOperations()));
    }
    if (this.#underWay === 0) this.#idle?.resolve();
  }

  #takeOperations(): PendingOperation[] {
    const batch: PendingOperation[] = [];
    let length = 0;
    for (let it = this.#first; it && "text" in it; it = this.#first) {
      if (batch.length === this.#options.operations || length > FULL_LENGTH) break;
      batch.push(this.#take(it));
      length += it.text.length;
    }
    return batch;
  }

  #take<T extends Pending>(first: T): T {
    this.#next++;
    // Half of the queue at a time, so that each call is moved about once.
    if (2 * this.#next >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#next);
      this.#next = 0;
    }
    return first;
  }

  #start(request: Promise<void>): void {
    this.#underWay++;
    request.finally(() => {
      this.#underWay--;
      // The calls that its answers lead to come in this turn, and join the next request.
      this.#schedule(afterThisTurn);
    });
  }
}
