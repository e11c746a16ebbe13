/**
 * Transactions that calls share. A sync costs far more than a write, so all writes that arrive during
 * one are committed together after it; beginning a transaction costs more than a read, so all reads
 * of a turn of the event loop are in one. A read may therefore miss what another process has
 * committed since the turn began.
 *
 * No call returns anything that is not on disk yet, whoever has committed it.
 *
 * @module
 */
import type { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { isBusy, isFull, LOCK_TIMEOUT } from "./database.ts";
import type { Syncs } from "./syncs.ts";
import { RevisionConflict, StoreFull, StoreUnavailable } from "../store.ts";

/** How long a process writes before it lets others write, if the file is contended, in milliseconds. */
const TURN = 5;
/** How long the file counts as contended after another process was seen writing, in milliseconds. */
const CONTENDED = 100;

/** What a query has found. */
export interface Found<T> {
  readonly result: T;
  /** The revision of the last commit that the result depends on. */
  readonly revision: number;
}

/** What every write transaction does besides its writes. */
export interface TransactionHooks {
  /**
   * Runs before the first write. What it throws fails them all, unchanged.
   *
   * @returns The revision of the last commit
   */
  begun(): number;
  /** Returns whether the rest has to wait for the next transaction. */
  isFull(): boolean;
  /** Runs after the last write. Returns the revision of this transaction, or null: nothing to commit. */
  ending(): number | null;
  /** Runs when the transaction is on disk. */
  committed(): void;
}

/** A write that waits for the next transaction. */
interface PendingWrite {
  run(): unknown;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** The transactions of one database. */
export class Transactions {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #syncs: Syncs;
  readonly #hooks: TransactionHooks;
  // Prepared, since an error of `exec` would not say by its code that the disk is full.
  readonly #begin;
  readonly #beginImmediate;
  readonly #commit;
  readonly #rollback;
  #isReading = false;
  #pending: PendingWrite[] = [];
  #writing: Promise<void> | undefined;
  /** When this process last waited before it could write. */
  #turnStart = -Infinity;
  /** When another process was last seen writing. */
  #lastBusy = -Infinity;

  constructor(path: string, database: DatabaseSync, syncs: Syncs, hooks: TransactionHooks) {
    this.#path = path;
    this.#database = database;
    this.#syncs = syncs;
    this.#hooks = hooks;
    this.#begin = database.prepare("BEGIN");
    this.#beginImmediate = database.prepare("BEGIN IMMEDIATE");
    this.#commit = database.prepare("COMMIT");
    this.#rollback = database.prepare("ROLLBACK");
  }

  /**
   * Runs a query, and waits until what it has found is on disk.
   *
   * @throws {StoreUnavailable} If one of both fails, or the file stays locked
   */
  async read<T>(query: () => Found<T>): Promise<T> {
    for (const start = performance.now();;) {
      try {
        this.#beginReading();
        const { result, revision } = query();
        if (!this.#syncs.has(revision)) await this.#syncs.cover(revision);
        return result;
      } catch (cause) {
        this.#endReading();
        if (!isBusy(cause) || performance.now() - start > LOCK_TIMEOUT) {
          throw this.#unavailable("read", cause, "unchanged");
        }
      }
      await delay(1);
    }
  }

  /**
   * Runs `run` in the next write transaction, and resolves when that is on disk. It must not change
   * anything if it throws a {@linkcode RevisionConflict}, which fails this write and no other.
   *
   * @throws {StoreFull | StoreUnavailable} If the transaction fails
   */
  write<T>(run: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#pending.push({ run, resolve: resolve as (result: unknown) => void, reject });
      this.#writing ??= this.#writePending();
    });
  }

  /**
   * Runs `run` in a write transaction, and rolls that back.
   *
   * @throws {StoreFull | StoreUnavailable} If that fails, or writes do
   */
  async check(run: () => void): Promise<void> {
    try {
      await this.#locked(() => {
        run();
        this.#rollback.run();
      });
    } catch (cause) {
      throw this.#failed(cause, "unchanged");
    }
  }

  /** Ends the writes that are pending, and the transaction that reads. */
  async close(): Promise<void> {
    // A transaction of nothing would fail on a file that cannot be written.
    await this.#writing;
    this.#endReading();
  }

  async #writePending(): Promise<void> {
    while (this.#pending.length > 0) {
      await new Promise((resolve) => setImmediate(resolve));
      await this.#writeSome();
      // Those who were just answered may come back within a millisecond, and share the next sync.
      if (this.#pending.length > 0 && this.#syncs.isSlow) await delay(1);
    }
    this.#writing = undefined;
  }

  /** One transaction and its sync. None begins before that, as it would have to wait for another. */
  async #writeSome(): Promise<void> {
    const conflicts: (() => void)[] = [];
    const settle: (() => void)[] = [];
    let taken = 0;
    let outcome: "unchanged" | "unknown" = "unchanged";
    try {
      const revision = await this.#locked(() => {
        const last = this.#hooks.begun();
        for (const { run, resolve, reject } of this.#pending) {
          if (this.#hooks.isFull()) break;
          taken++;
          try {
            const result = run();
            settle.push(() => resolve(result));
          } catch (error) {
            if (!(error instanceof RevisionConflict)) throw error;
            conflicts.push(() => reject(error));
          }
        }
        const written = this.#hooks.ending();
        if (written !== null) outcome = "unknown";
        (written === null ? this.#rollback : this.#commit).run();
        return written ?? last;
      });
      await this.#syncs.cover(revision);
      this.#hooks.committed();
    } catch (cause) {
      const error = this.#failed(cause, outcome);
      for (const { reject } of this.#pending.splice(0, taken || Infinity)) reject(error);
      return;
    }
    this.#pending.splice(0, taken);
    // Who lost is told first, and so tries again before who won comes back with another write.
    for (const done of [...conflicts, ...settle]) done();
  }

  /**
   * Runs `run` in a write transaction, at once, so that nothing else comes in between. While another
   * process writes, it tries again each millisecond, which gives each of them the same chance;
   * SQLite's own waiting grows longer at each try.
   */
  async #locked<T>(run: () => T): Promise<T> {
    if (this.#syncs.failure) throw this.#syncs.failure;
    const start = performance.now();
    const isContended = start - this.#lastBusy < CONTENDED;
    // Right after its commit this process would lock the file again before a waiting one looks.
    let hasWaited = isContended && start - this.#turnStart > TURN;
    for (;;) {
      if (hasWaited) await delay(1);
      this.#endReading();
      try {
        this.#beginImmediate.run();
        break;
      } catch (cause) {
        if (!isBusy(cause) || performance.now() - start > LOCK_TIMEOUT) throw cause;
        this.#lastBusy = performance.now();
        hasWaited = true;
      }
    }
    if (hasWaited) this.#turnStart = performance.now();
    return run();
  }

  #beginReading(): void {
    if (this.#isReading) return;
    this.#begin.run();
    this.#isReading = true;
    setImmediate(() => this.#endReading());
  }

  #endReading(): void {
    if (!this.#isReading) return;
    this.#isReading = false;
    // An error may have ended the transaction.
    if (this.#database.isTransaction) this.#rollback.run();
  }

  /** Rolls back, and says what became of the writes. */
  #failed(cause: unknown, outcome: "unchanged" | "unknown"): StoreFull | StoreUnavailable {
    // On a full disk SQLite has rolled back by itself.
    if (this.#database.isTransaction) this.#rollback.run();
    if (isFull(cause)) {
      return new StoreFull(`Cannot write "${this.#path}": ${(cause as Error).message}`, { cause });
    }
    // A sync that failed may have brought the commit to the disk: after a crash it may be there.
    return this.#unavailable("write", cause, isBusy(cause) ? "unchanged" : outcome);
  }

  #unavailable(verb: string, cause: unknown, outcome: "unchanged" | "unknown"): StoreUnavailable {
    const reason = (cause as Error).message;
    return new StoreUnavailable(`Cannot ${verb} "${this.#path}": ${reason}`, { cause, outcome });
  }
}
