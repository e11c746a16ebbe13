/** Runs the tasks of each key one after the other. */
import { LRUCache } from "lru-cache";
import { StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown } from "./errors.ts";

/** How many contended keys are remembered. It is a short time: with more, the oldest is over. */
const MAX_CONTENDED = 1000;
/** How long a key counts as contended after another process was seen writing, in milliseconds. */
const CONTENDED = 100;
/** The longest pause of a contended key, in milliseconds. */
const LONGEST_PAUSE = 50;

/** Runs the tasks of one key in the order of the calls, and those of different keys at once. */
export class KeyedQueue {
  /** The last task of each key, while it is pending. */
  readonly #last = new Map<string, Promise<unknown>>();
  /** When a key was last contended, and when its next task may begin, by `performance.now()`. */
  readonly #contended = new LRUCache<string, { last: number; resume: number }>({
    max: MAX_CONTENDED,
  });

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

  /**
   * Lets other processes go first if they write to the key: the next tasks wait for as long as this one
   * took. Its process knows the newest entry, and could otherwise write on and on.
   *
   * @param begun When the task began, by `performance.now()`
   * @param isContended Whether another process has written since
   */
  yield(key: string, begun: number, isContended: boolean): void {
    const now = performance.now();
    const last = isContended ? now : this.#contended.get(key)?.last ?? -Infinity;
    if (now - last > CONTENDED) return;
    this.#contended.set(key, { last, resume: now + Math.min(now - begun, LONGEST_PAUSE) });
  }

  async #runAfter<T>(
    before: Promise<unknown> | undefined,
    key: string,
    task: () => Promise<T>,
  ): Promise<T> {
    if (before !== undefined) await before.catch(rethrowUnavailable);
    const wait = (this.#contended.get(key)?.resume ?? 0) - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    return await task();
  }
}

/** Ignores any other error: it is that of another call. */
function rethrowUnavailable(error: unknown): void {
  // The waiting tasks have the old id, and must not learn the new one.
  if (error instanceof RotationUnknown) throw error.cause;
  if (error instanceof StoreUnavailable) throw error;
}
