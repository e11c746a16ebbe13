/**
 * The changes that a process has seen in its store, for {@linkcode Store.watch}: which key was
 * written or removed, in what order. Nothing but the keys is kept, the last
 * {@linkcode MAX_CHANGES} of them. A watcher reads at its own pace; one that falls further behind
 * than that is told so, and no writer ever waits for it.
 *
 * @module
 */
import { type Change, ChangesLost, type Entry, type Watch } from "./store.ts";

/** How many changes can be resumed from, at least. */
export const MAX_CHANGES = 10_000;

/** The last changes of a store, in their order. */
export class Changes {
  /** Tells this list from that of another process or another run, which count from 0 too. */
  readonly #run = crypto.randomUUID().slice(0, 8);
  readonly #waiting = new Set<() => void>();
  #keys: string[] = [];
  /** How many there were before the first of `#keys`. */
  #forgotten = 0;
  #end: { error?: Error } | null = null;

  /** Notes that `key` was written or removed. */
  add(key: string): void {
    this.#keys.push(key);
    if (this.#keys.length === 2 * MAX_CHANGES) {
      this.#keys = this.#keys.slice(MAX_CHANGES);
      this.#forgotten += MAX_CHANGES;
    }
    this.#wake();
  }

  /** Ends every watch, with `error` if there is one. */
  end(error?: Error): void {
    this.#end ??= error === undefined ? {} : { error };
    this.#wake();
  }

  /**
   * Watches the keys that begin with `prefix`.
   *
   * @param read Gives the entry that is there now
   * @throws {ChangesLost} If `since` is not among the last changes
   */
  watch(
    prefix: string,
    since: string | undefined,
    read: (key: string) => Promise<Entry | null>,
  ): Watch {
    let seen = since === undefined ? this.#forgotten + this.#keys.length : this.#parse(since);
    let cancelled = false;
    let wake = () => {};

    const next = async (): Promise<Change | null> => {
      while (!cancelled) {
        if (this.#end?.error) throw this.#end.error;
        // What was not told yet could not be read any more.
        if (this.#end) return null;
        if (seen < this.#forgotten) throw new ChangesLost(this.#id(seen));
        const key = this.#keys[seen - this.#forgotten];
        if (key === undefined) {
          const woken = Promise.withResolvers<void>();
          wake = woken.resolve;
          this.#waiting.add(wake);
          await woken.promise;
        } else {
          seen++;
          if (key.startsWith(prefix)) return { id: this.#id(seen), key, entry: await read(key) };
        }
      }
      return null;
    };

    const changes = new ReadableStream<Change>({
      async pull(controller) {
        const change = await next();
        if (cancelled) return;
        if (change === null) controller.close();
        else controller.enqueue(change);
      },
      cancel: () => {
        cancelled = true;
        this.#waiting.delete(wake);
        wake();
      },
    }, { highWaterMark: 0 });
    return { since: this.#id(seen), changes };
  }

  #id(seen: number): string {
    return `${this.#run}-${seen}`;
  }

  #parse(since: string): number {
    const [, run, digits] = /^([\da-f]{8})-(\d{1,15})$/.exec(since) ?? [];
    const seen = Number(digits);
    const isKnown = seen >= this.#forgotten && seen <= this.#forgotten + this.#keys.length;
    if (run !== this.#run || !isKnown) throw new ChangesLost(since);
    return seen;
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
