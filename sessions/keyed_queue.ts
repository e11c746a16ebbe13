/** Runs the tasks of each key one after the other. */
import { StoreUnavailable } from "../stores/store.ts";
import { RotationUnknown } from "./errors.ts";

/** The most pending tasks of one key: a thousand requests would leave no room for other visitors. */
export const MAX_TASKS = 250;

/** Runs the tasks of one key in the order of the calls, and those of different keys at once. */
export class KeyedQueue {
  /** How many tasks of each key are pending, and the last of them. */
  readonly #tasks = new Map<string, { pending: number; last?: Promise<unknown> }>();

  constructor(readonly most = MAX_TASKS) {}

  /**
   * Runs `task` after the tasks before it. If a store is unavailable, the tasks that wait fail too:
   * otherwise each would wait for a deadline of its own.
   *
   * @throws {StoreUnavailable} If too many tasks of the key are pending
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const tasks = this.#tasks.get(key) ?? { pending: 0 };
    if (tasks.pending >= this.most) {
      throw new StoreUnavailable("The session has too many requests", { outcome: "unchanged" });
    }
    this.#tasks.set(key, tasks);
    tasks.pending++;
    try {
      const running = tasks.last ? tasks.last.catch(rethrowUnavailable).then(task) : task();
      tasks.last = running;
      return await running;
    } finally {
      if (--tasks.pending === 0) this.#tasks.delete(key);
    }
  }
}

/** Ignores any other error: it is that of another call. */
function rethrowUnavailable(error: unknown): void {
  // The waiting tasks have the old id, and must not learn the new one.
  if (error instanceof RotationUnknown) throw error.cause;
  if (error instanceof StoreUnavailable) throw error;
}
