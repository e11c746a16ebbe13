/**
 * One task after the other for each key.
 *
 * @module
 */
import { StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown } from "./errors.ts";

/** Runs the tasks of one key in the order of the calls, and those of different keys at once. */
export class KeyedQueue {
  /** The last task of each key that has one under way. */
  readonly #last = new Map<string, Promise<unknown>>();

  /**
   * Runs `task` after those before it. Tasks that wait behind one whose store was unavailable fail
   * with it: each would wait for another deadline.
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const running = before === undefined ? task() : before.then(task);
    const settled = running.catch((error) => {
      // Those that wait have the old id, and are not to learn the new one.
      if (error instanceof RotationUnknown) throw error.cause;
      if (error instanceof StoreUnavailable) throw error;
    });
    // Nobody may be waiting behind this one.
    settled.catch(() => {});
    this.#last.set(key, settled);
    try {
      return await running;
    } finally {
      if (this.#last.get(key) === settled) this.#last.delete(key);
    }
  }
}
