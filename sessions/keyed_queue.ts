/**
 * One task after the other for each key.
 *
 * @module
 */
import { LRUCache } from "lru-cache";
import { StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown } from "./errors.ts";

/** How many pauses are noted. They are short, so of more the oldest has passed. */
const MAX_PAUSES = 1000;

/** Runs the tasks of one key in the order of the calls, and those of different keys at once. */
export class KeyedQueue {
  /** The last task of each key that has one under way. */
  readonly #last = new Map<string, Promise<unknown>>();
  /** When the next task of a key may begin, by `performance.now()`. */
  readonly #pausedUntil = new LRUCache<string, number>({ max: MAX_PAUSES });

  /**
   * Runs `task` after those before it. Tasks that wait behind one whose store was unavailable fail
   * with it: each would wait for another deadline.
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const begin = () => this.#begin(key, task);
    const running = before === undefined ? begin() : before.then(begin);
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

  /** Keeps the next tasks of a key from beginning, for so many milliseconds. */
  pause(key: string, milliseconds: number): void {
    this.#pausedUntil.set(key, performance.now() + milliseconds);
  }

  async #begin<T>(key: string, task: () => Promise<T>): Promise<T> {
    const wait = (this.#pausedUntil.get(key) ?? 0) - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    return await task();
  }
}
