/**
 * Syncs of the write-ahead log to disk, which a commit with `synchronous=NORMAL` leaves out. A slow
 * disk is synced in a thread, so that the event loop goes on. Commits are known by their revisions,
 * which grow with each commit of any process.
 */
import { closeSync, fdatasync, fdatasyncSync, openSync } from "node:fs";
import { promisify } from "node:util";

/** Syncs an open file to the disk. */
export type Sync = (file: number) => Promise<void>;

const syncInThread: Sync = promisify(fdatasync);
/** How long a sync may block, in milliseconds: a thread costs other calls as much. */
const QUICK = 1;
/** How many syncs after a slower one run in a thread. */
const REST = 200;
/** How long a sync has to take, in milliseconds, so that a pause before the next one makes writes faster. */
const LONG = 3;

export class Syncs {
  // SQLite's POSIX locks are on other files: closing any descriptor of those would release them.
  readonly #file: number | undefined;
  /** The newest commit that is known to be on disk. */
  #synced = 0;
  /** The newest commit that this process has made or seen. */
  #newest = 0;
  #syncing: Promise<void> | undefined;
  /** How many of the next syncs run in a thread. */
  #inThread = 0;
  /** How long the last sync took, in milliseconds. */
  #took = 0;
  /**
   * Why a sync has failed. The system may have dropped what it could not write, and a later sync
   * succeed without it: nothing may be written until the file is opened again.
   */
  failure: Error | undefined;

  /**
   * @param path Of the log; null if nothing is kept on a disk
   * @param sync Instead of `fdatasync`, at once or in a thread
   */
  constructor(path: string | null, readonly sync?: Sync) {
    if (path === null) this.#synced = Infinity;
    else this.#file = openSync(path, "r+");
  }

  /** Whether the last sync took so long that the next one should wait a millisecond for more writes. */
  get isLong(): boolean {
    return this.#took > LONG;
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
      if (this.failure) throw this.failure;
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
      await (this.sync ?? this.#syncFile)(file);
      this.#synced = newest;
    } catch (cause) {
      const message = `a sync failed (${(cause as Error).message}): restart to use the file again`;
      this.failure = new Error(message, { cause });
    }
  }

  readonly #syncFile: Sync = async (file) => {
    const start = performance.now();
    if (this.#inThread > 0) await syncInThread(file);
    else fdatasyncSync(file);
    this.#took = performance.now() - start;
    this.#inThread = this.#took > QUICK ? REST : Math.max(0, this.#inThread - 1);
  };
}
