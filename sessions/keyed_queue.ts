/** Runs the tasks of each key one after the other. */
import { LRUCache } from "lru-cache";
import { StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown } from "./errors.ts";

/** How many pauses are remembered. They are short: with more, the oldest has ended. */
const MAX_PAUSES = 1000;

/** Runs the tasks of one key in the order of the calls, and those of different keys at once. */
export class KeyedQueue {
  /** The last task of each key, while it is pending. */
  readonly #last = new Map<string, Promise<unknown>>();
  /** When the next task of a key may begin, by `performance.now()`. */
  readonly #pausedUntil = new LRUCache<string, number>({ max: MAX_PAUSES });

  /**
   * Runs `task` after the tasks before it. If a store is unavailable, the tasks that wait fail too:
   * otherwise each would wait for a deadline of its own.
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const running = this.#runAfter(this.#last.get(key), key, task);
    this.#last.set(key, running);
    try {
      return await running;
    } finally {
      if (this.#last.get(key) === running) this.#last.delete(key);
    }
  }

  /** Delays the next tasks of a key by some milliseconds. */
  pause(key: string, milliseconds: number): void {
    this.#pausedUntil.set(key, performance.now() + milliseconds);
  }

  async #runAfter<T>(
    before: Promise<unknown> | undefined,
    key: string,
    task: () => Promise<T>,
  ): Promise<T> {
    if (before !== undefined) await before.catch(rethrowUnavailable);
    const pausedUntil = this.#pausedUntil.get(key);
    if (pausedUntil !== undefined) {
      const wait = pausedUntil - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    }
    return await task();
  }
}

/** Ignores any other error: it is that of another call. */
function rethrowUnavailable(error: unknown): void {
  // The waiting tasks have the old id, and must not learn the new one.
  if (error instanceof RotationUnknown) throw error.cause;
  if (error instanceof StoreUnavailable) throw error;
}
