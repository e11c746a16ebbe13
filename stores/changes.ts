/**
 * The recent changes of a store, for `Store.watch`: the keys that were written or removed, in order.
 * The last {@linkcode MAX_CHANGES} are kept, at least. A watcher reads at its own pace; one that falls
 * further behind gets an error, and no writer waits for it.
 */
import { type Change, ChangesLost, type Entry, type Watch } from "./store.ts";

/** How many changes back a watch can be resumed, at least. */
export const MAX_CHANGES = 10_000;

type Read = (key: string) => Promise<Entry | null>;

export class Changes {
  /** Distinguishes this list from those of other processes, which also count from 0. */
  readonly #run = crypto.randomUUID().slice(0, 8);
  readonly #waiting = new Set<() => void>();
  /** The reads under way, by the number of the change. */
  readonly #reading = new Map<number, ReturnType<Read>>();
  /** At least the last `kept`, and fewer than twice as many. */
  #keys: string[] = [];
  /** The number of changes before the first of `#keys`. */
  #forgotten = 0;
  #end: { error?: Error } | null = null;

  constructor(readonly kept = MAX_CHANGES) {}

  /** Notes that `key` was written or removed. */
  add(key: string): void {
    this.#keys.push(key);
    if (this.#keys.length === 2 * this.kept) {
      this.#keys = this.#keys.slice(this.kept);
      this.#forgotten += this.kept;
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
   * @param read Returns the entry that a key has now
   * @throws {ChangesLost} If `since` is not among the last changes
   */
  watch(
    prefix: string,
    since: string | undefined,
    read: Read,
  ): Watch {
    let seen = since === undefined ? this.#forgotten + this.#keys.length : this.#parse(since);
    let passed = seen;
    let isCancelled = false;
    let wake = () => {};
    const changes = new ReadableStream<Change>({
      pull: async (controller) => {
        while (!isCancelled) {
          passed = seen; // the reader has the change before
          if (this.#end?.error) throw this.#end.error;
          if (this.#end) return controller.close(); // the remaining entries can no longer be read
          if (seen < this.#forgotten) throw new ChangesLost(this.#id(seen));
          const key = this.#keys[seen - this.#forgotten];
          if (key === undefined) {
            const woken = Promise.withResolvers<void>();
            this.#waiting.add(wake = woken.resolve);
            await woken.promise;
          } else {
            seen++;
            if (!key.startsWith(prefix)) continue;
            const change = { id: this.#id(seen), key, entry: await this.#read(seen, key, read) };
            if (!isCancelled) controller.enqueue(change);
            return;
          }
        }
      },
      cancel: () => {
        isCancelled = true;
        this.#waiting.delete(wake);
        wake();
      },
    }, { highWaterMark: 0 });
    return { changes, position: () => this.#id(passed) };
  }

  /** Reads the entry of a change, once for all watchers that deliver the change meanwhile. */
  #read(seen: number, key: string, read: Read): Promise<Entry | null> {
    let reading = this.#reading.get(seen);
    if (reading === undefined) {
      reading = read(key).finally(() => this.#reading.delete(seen));
      this.#reading.set(seen, reading);
    }
    return reading;
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
