/** Ends calls that take too long. */

interface PendingCall {
  readonly until: number;
  readonly settled: Promise<unknown>;
  end(): void;
}

/** Calls with one deadline and one timer: a timer for each costs as much CPU time as the call. */
export class Deadlines {
  /** In the order in which they began, and so in which they are due. */
  readonly #pending = new Set<PendingCall>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param timeout Of each call, in milliseconds */
  constructor(readonly timeout: number) {}

  /** Runs a call to its end, or to its deadline, when `late` returns its error. */
  run<T>(run: (isLate: () => boolean) => Promise<T>, late: () => Error): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const until = performance.now() + this.timeout;
    const call: PendingCall = { until, settled: promise, end: () => reject(late()) };
    this.#pending.add(call);
    this.#timer ??= setTimeout(() => this.#endLate(), this.timeout);
    run(() => !this.#pending.has(call)).then(resolve, reject)
      .finally(() => this.#pending.delete(call));
    return promise;
  }

  /** Whether a call is under way for longer than this many milliseconds. */
  waits(milliseconds: number): boolean {
    const [oldest] = this.#pending;
    return oldest !== undefined && performance.now() - oldest.until > milliseconds - this.timeout;
  }

  /** Waits for the calls that are under way. */
  async close(): Promise<void> {
    await Promise.allSettled(Array.from(this.#pending, ({ settled }) => settled));
    clearTimeout(this.#timer);
  }

  #endLate(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const call of this.#pending) {
      if (call.until > now) {
        this.#timer = setTimeout(() => this.#endLate(), call.until - now);
        return;
      }
      this.#pending.delete(call);
      call.end();
    }
  }
}
