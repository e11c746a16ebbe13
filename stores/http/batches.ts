/**
 * Gathers calls into requests. The calls of one turn of the event loop travel together, as one array
 * of operations. Writes wait until the request with the writes before them is answered, so they take
 * effect in order; meanwhile more of them gather. Reads do not wait for writes, which wait for a disk.
 */
import { afterThisTurn } from "../timers.ts";
import { type Answer, MAX_BODY_BYTES, type Operation } from "../wire.ts";

/** The length of a body, in characters, at which nothing is added: in UTF-8 up to three times as many bytes. */
const FULL_LENGTH = MAX_BODY_BYTES / 4;
/** How many late calls fail in one turn: their callers need time, too. */
const LATE_AT_ONCE = 1000;

/** An operation that waits to be sent. */
export interface PendingOperation {
  readonly operation: Pick<Operation, "op" | "key">;
  readonly text: string;
  /** When it was called, by `performance.now()`. */
  readonly since: number;
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** A request of its own. */
interface PendingRequest {
  readonly since: number;
  run(): Promise<void>;
  reject(error: unknown): void;
}

type Pending = PendingOperation | PendingRequest;

export interface BatchesOptions {
  /** The most requests under way. */
  requests: number;
  /** The most operations in one request: each may be answered by a value of 1 MiB. */
  operations: number;
  /**
   * Sends a request and settles its operations, but for those that it returns, which go first in the
   * next request. It does not reject.
   */
  send(operations: readonly PendingOperation[]): Promise<readonly PendingOperation[]>;
  /** How long a call may wait to be sent, in milliseconds. */
  timeout: number;
  /** Returns the error of a call that was not sent in time. */
  late(): Error;
  /** Runs a task when the calls of this turn have been made. */
  later?: (task: () => void) => void;
}

/**
 * The options of a worker: there, a request must not wait for what another one has begun. Each call is
 * a request of its own.
 */
export const ALONE = { requests: Infinity, operations: 1, later: (task: () => void) => task() };

/** Calls that wait in order, and the requests under way. */
export class Batches {
  readonly #queue: Pending[] = [];
  #underWay = 0;
  #isScheduled = false;
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(readonly options: BatchesOptions) {}

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
    if (this.#queue.length === 0 && this.#underWay === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  #add(pending: Pending): void {
    this.#queue.push(pending);
    this.#schedule();
  }

  #schedule(later = this.options.later ?? afterThisTurn): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    later(() => {
      this.#isScheduled = false;
      if (this.#rejectLate()) this.#sendAll();
      // By a timer: between turns without one Deno seldom looks for input.
      else this.#schedule((task) => void setTimeout(task, 1));
    });
  }

  /** Rejects late calls, the oldest first. Returns whether none is left. */
  #rejectLate(): boolean {
    const end = performance.now() - this.options.timeout;
    let count = 0;
    while (count < LATE_AT_ONCE && (this.#queue[count]?.since ?? end) < end) count++;
    const error = count === 0 ? undefined : this.options.late();
    for (const { reject } of this.#queue.splice(0, count)) reject(error);
    return count < LATE_AT_ONCE;
  }

  #sendAll(): void {
    const { requests, send } = this.options;
    for (let it = this.#queue[0]; it && this.#underWay < requests; it = this.#queue[0]) {
      if ("text" in it) {
        this.#start(
          send(this.#takeOperations()).then((again) => void this.#queue.unshift(...again)),
        );
      } else {
        this.#queue.shift();
        this.#start(it.run());
      }
    }
    if (this.#underWay > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  #takeOperations(): PendingOperation[] {
    const batch: PendingOperation[] = [];
    let length = 0;
    for (const pending of this.#queue) {
      const isFull = batch.length === this.options.operations || length > FULL_LENGTH;
      if (isFull || !("text" in pending)) break;
      batch.push(pending);
      length += pending.text.length;
    }
    this.#queue.splice(0, batch.length);
    return batch;
  }

  #start(request: Promise<void>): void {
    this.#underWay++;
    request.finally(() => {
      this.#underWay--;
      // The calls that its answers lead to come in this turn, and join the next request.
      this.#schedule();
    });
  }
}
