/**
 * Ends calls that take too long, with one timer for all of them: a timer for each costs as much CPU
 * time as the call.
 *
 * @module
 */
interface PendingCall {
  readonly until: number;
  /** Settles when the call does, in whatever way. */
  readonly settled: Promise<unknown>;
  end(): void;
}

/** Calls that all have the same deadline. */
export class Deadlines {
  readonly #timeout: number;
  /** In the order in which they began, and so in which they are due. */
  readonly #pending = new Set<PendingCall>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param timeout Of each call, in milliseconds */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /**
   * Runs a call to its end, or to its deadline.
   *
   * @param run Gets a function that returns whether the deadline has passed
   * @param late The error of a call that takes too long
   */
  run<T>(run: (isLate: () => boolean) => Promise<T>, late: () => Error): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const until = performance.now() + this.#timeout;
    const call: PendingCall = { until, settled: promise, end: () => reject(late()) };
    this.#pending.add(call);
    this.#timer ??= this.#startTimer(this.#timeout);
    run(() => !this.#pending.has(call)).then((value) => {
      this.#pending.delete(call);
      resolve(value);
    }, (error) => {
      this.#pending.delete(call);
      reject(error);
    });
    return promise;
  }

  /** Waits for the calls that are under way. */
  async close(): Promise<void> {
    await Promise.allSettled(Array.from(this.#pending, ({ settled }) => settled));
    clearTimeout(this.#timer);
  }

  #startTimer(milliseconds: number): ReturnType<typeof setTimeout> {
    return setTimeout(() => this.#endLate(), milliseconds);
  }

  #endLate(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const call of this.#pending) {
      if (call.until > now) {
        this.#timer = this.#startTimer(call.until - now);
        return;
      }
      this.#pending.delete(call);
      call.end();
    }
  }
}
