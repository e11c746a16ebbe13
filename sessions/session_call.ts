/**
 * The promise of a session's call, which knows whether anybody awaits it.
 *
 * @module
 */

/**
 * A promise whose rejection never ends the process. Its session finds out, by `isAwaited`, whether
 * the error has reached somebody, or has to become the request's or a line in the log.
 */
export class SessionCall<R> extends Promise<R> {
  static override readonly [Symbol.species] = Promise;
  isAwaited = false;
  /** Resolves when the call has ended, in whatever way. */
  readonly settled: Promise<void>;

  constructor(running: Promise<R>, onError: (call: SessionCall<R>, error: unknown) => void) {
    super((resolve) => resolve(running));
    this.settled = super.then(() => {}, (error) => onError(this, error));
  }

  override then<A = R, B = never>(...handlers: Parameters<Promise<R>["then"]>): Promise<A | B> {
    this.isAwaited = true;
    return super.then(...handlers) as Promise<A | B>;
  }
}
