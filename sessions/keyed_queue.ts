/** Runs the tasks of each key one after the other. */
import { StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown } from "./errors.ts";

/** Runs the tasks of one key in the order of the calls, and those of different keys at once. */
export class KeyedQueue {
  /** The last task of each key, while it is pending. */
  readonly #last = new Map<string, Promise<unknown>>();

  /**
   * Runs `task` after the tasks before it. If a store is unavailable, the tasks that wait fail too:
   * otherwise each would wait for a deadline of its own.
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const running = before ? before.catch(rethrowUnavailable).then(task) : task();
    this.#last.set(key, running);
    try {
      return await running;
    } finally {
      if (this.#last.get(key) === running) this.#last.delete(key);
    }
  }
}

/** Ignores any other error: it is that of another call. */
function rethrowUnavailable(error: unknown): void {
  // The waiting tasks have the old id, and must not learn the new one.
  if (error instanceof RotationUnknown) throw error.cause;
  if (error instanceof StoreUnavailable) throw error;
}
