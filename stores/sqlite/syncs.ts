/**
 * Syncs of the write-ahead log to disk. A commit with `synchronous=NORMAL` only writes to the log, so
 * whoever has seen a commit waits here until it is on disk. A slow disk is synced beside the event
 * loop, so that nobody else waits for it.
 *
 * Commits are known by their revisions, which grow with each commit of any process.
 *
 * @module
 */
import { closeSync, fdatasync, fdatasyncSync, openSync } from "node:fs";
import { promisify } from "node:util";

/** Syncs an open file to the disk. */
export type Sync = (file: number) => Promise<void>;

const syncInThread: Sync = promisify(fdatasync);
/** Up to how many milliseconds a sync may block: handing it to a thread costs others as much. */
const QUICK = 0.5;
/** A sync that was slower is the last one that blocks for this many times as long. */
const REST = 1000;

/** The syncs of one log. */
export class Syncs {
  // SQLite's POSIX locks are on other files: closing any descriptor of those would release them.
  readonly #file: number | undefined;
  /** The newest commit that is known to be on disk. */
  #synced = 0;
  /** The newest commit that this process has made or seen. */
  #newest = 0;
  #syncing: Promise<void> | undefined;
  #slowUntil = 0;
  #failure: Error | undefined;

  /**
   * @param path Of the log; null if nothing is kept on a disk
   * @param sync Instead of `fdatasync`, at once or in a thread
   */
  constructor(path: string | null, readonly sync?: Sync) {
    if (path === null) this.#synced = Infinity;
    else this.#file = openSync(path, "r+");
  }

  /**
   * Why a sync has failed. The system may have dropped what it could not write, and the next sync
   * succeed without it: nothing may be written any more until the file is opened again.
   */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Whether syncs are slow, and so run in a thread. */
  get isSlow(): boolean {
    return performance.now() < this.#slowUntil;
  }

  /** Whether a commit is known to be on disk. */
  has(revision: number): boolean {
    return revision <= this.#synced;
  }

  /**
   * Waits until a commit is on disk. One sync runs at a time, and covers all commits before it, also
   * those of other processes.
   *
   * @throws {Error} If a sync fails or has failed
   */
  async cover(revision: number): Promise<void> {
    this.#newest = Math.max(this.#newest, revision);
    while (!this.has(revision)) {
      if (this.#failure) throw this.#failure;
      this.#syncing ??= this.#sync().finally(() => this.#syncing = undefined);
      await this.#syncing;
    }
  }

  /** Closes the log, after the last call that waits for it. */
  async close(): Promise<void> {
    while (this.#syncing) await this.#syncing;
    if (this.#file !== undefined) closeSync(this.#file);
  }

  async #sync(): Promise<void> {
    const newest = this.#newest;
    const file = this.#file as number;
    try {
      if (this.sync) await this.sync(file);
      else if (this.isSlow) await syncInThread(file);
      else this.#syncAtOnce(file);
      this.#synced = newest;
    } catch (cause) {
      const reason = (cause as Error).message;
      this.#failure = new Error(`a sync failed (${reason}): restart to use the file again`, {
        cause,
      });
    }
  }

  #syncAtOnce(file: number): void {
    const start = performance.now();
    fdatasyncSync(file);
    const end = performance.now();
    if (end - start > QUICK) this.#slowUntil = end + REST * (end - start);
  }
}
