/**
 * Transactions that calls share. A sync costs far more than a write, so the writes that arrive during
 * one are committed together after it. Beginning a transaction costs more than a read, so the reads
 * of a turn of the event loop share one, and may miss what another process commits meanwhile.
 *
 * No call returns anything that is not on disk yet, whoever has committed it.
 */
import type { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { isBusy, isFull, LOCK_TIMEOUT } from "./database.ts";
import type { Syncs } from "./syncs.ts";
import { RevisionConflict, StoreFull, StoreUnavailable } from "../store.ts";

/** How long a process writes to a contended file before it lets others write, in milliseconds. */
const TURN = 5;
/** How long the file counts as contended after another process was seen writing, in milliseconds. */
const CONTENDED = 100;

export interface Found<T> {
  readonly result: T;
  /** The revision of the last commit that the result depends on. */
  readonly revision: number;
}

/** What transactions do besides their reads and writes. */
export interface TransactionHooks {
  /** Runs before the first read. */
  begunReading(): void;
  /** Runs before the first write. Returns the revision of the last commit. */
  begun(): number;
  /** Returns whether the rest has to wait for the next transaction. */
  isFull(): boolean;
  /** Runs after the last write. Returns the revision of this transaction, or null: nothing to commit. */
  ending(): number | null;
  /** Runs after the commit. */
  committed(): void;
  /** Runs when the transaction is on disk. */
  synced(): void;
}

interface PendingWrite {
  run(): unknown;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** Returns the transactions of the database in the file at `path`. */
export function transactionsOf(
  path: string,
  database: DatabaseSync,
  syncs: Syncs,
  hooks: TransactionHooks,
) {
  // Prepared, since an error of `exec` would not say by its code that the disk is full.
  const begin = database.prepare("BEGIN");
  const beginImmediate = database.prepare("BEGIN IMMEDIATE");
  const commit = database.prepare("COMMIT");
  const rollback = database.prepare("ROLLBACK");
  const pending: PendingWrite[] = [];
  let writing: Promise<void> | undefined;
  let isReading = false;
  let turnStart = -Infinity; // when this process last waited before it could write
  let lastBusy = -Infinity; // when another process was last seen writing

  /**
   * Runs a query, and waits until what it has found is on disk.
   *
   * @throws {StoreUnavailable} If one of both fails, or the file stays locked
   */
  async function read<T>(query: () => Found<T>): Promise<T> {
    for (let start: number | undefined;;) {
      try {
        beginReading();
        const { result, revision } = query();
        if (!syncs.has(revision)) await syncs.cover(revision);
        return result;
      } catch (cause) {
        endReading();
        start ??= performance.now();
        if (!isBusy(cause) || performance.now() - start > LOCK_TIMEOUT) {
          throw unavailable("read", cause, "unchanged");
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
  function write<T>(run: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      pending.push({ run, resolve: resolve as (result: unknown) => void, reject });
      writing ??= writePending();
    });
  }

  /** Runs `run` in a write transaction, and rolls that back. Fails as a write would. */
  async function check(run: () => void): Promise<void> {
    try {
      await locked(() => {
        run();
        rollback.run();
      });
    } catch (cause) {
      throw failed(cause, "unchanged");
    }
  }

  /** Waits for pending writes: an empty transaction instead would fail on a read-only file. */
  async function close(): Promise<void> {
    await writing;
    endReading();
  }

  async function writePending(): Promise<void> {
    while (pending.length > 0) {
      await new Promise((resolve) => setImmediate(resolve));
      await writeSome();
      // Callers who were just answered may write again within a millisecond, and share the next sync.
      if (pending.length > 0 && syncs.isLong) await delay(1);
    }
    writing = undefined;
  }

  /** Runs one transaction and its sync. Another one could only wait for the same disk. */
  async function writeSome(): Promise<void> {
    const conflicts: (() => void)[] = [];
    const settle: (() => void)[] = [];
    let taken = 0;
    let outcome: "unchanged" | "unknown" = "unchanged";
    try {
      const revision = await locked(() => {
        const last = hooks.begun();
        for (const { run, resolve, reject } of pending) {
          if (hooks.isFull()) break;
          taken++;
          try {
            const result = run();
            settle.push(() => resolve(result));
          } catch (error) {
            if (!(error instanceof RevisionConflict)) throw error;
            conflicts.push(() => reject(error));
          }
        }
        const written = hooks.ending();
        if (written !== null) outcome = "unknown";
        (written === null ? rollback : commit).run();
        if (written !== null) hooks.committed();
        return written ?? last;
      });
      await syncs.cover(revision);
      hooks.synced();
    } catch (cause) {
      const error = failed(cause, outcome);
      for (const { reject } of pending.splice(0, taken || Infinity)) reject(error);
      return;
    }
    pending.splice(0, taken);
    // Reject the losers first, so that they retry before the winner writes again.
    for (const done of [...conflicts, ...settle]) done();
  }

  /**
   * Begins a write transaction and runs `run` in it, with nothing in between. While another process
   * writes, it tries again each millisecond, so that all have the same chance: SQLite's own waiting
   * grows longer with each try.
   */
  async function locked<T>(run: () => T): Promise<T> {
    if (syncs.failure) throw syncs.failure;
    const start = performance.now();
    // Right after its commit this process would lock the file again before a waiting one looks.
    let hasWaited = start - lastBusy < CONTENDED && start - turnStart > TURN;
    for (;;) {
      if (hasWaited) await delay(1);
      endReading();
      try {
        beginImmediate.run();
        break;
      } catch (cause) {
        if (!isBusy(cause) || performance.now() - start > LOCK_TIMEOUT) throw cause;
        lastBusy = performance.now();
        hasWaited = true;
      }
    }
    if (hasWaited) turnStart = performance.now();
    return run();
  }

  function beginReading(): void {
    if (isReading) return;
    begin.run();
    hooks.begunReading();
    isReading = true;
    setImmediate(endReading);
  }

  function endReading(): void {
    if (!isReading) return;
    isReading = false;
    rollBack();
  }

  /**
   * An error may have ended the transaction: SQLite rolls back by itself if the disk is full. A check
   * that waited for its turn may come after the close.
   */
  function rollBack(): void {
    if (database.isOpen && database.isTransaction) rollback.run();
  }

  /** Rolls back, and returns the error of the writes. */
  function failed(cause: unknown, outcome: "unchanged" | "unknown"): StoreFull | StoreUnavailable {
    rollBack();
    if (isFull(cause)) {
      return new StoreFull(`Cannot write "${path}": ${(cause as Error).message}`, { cause });
    }
    // A sync that failed may have brought the commit to the disk: after a crash it may be there.
    return unavailable("write", cause, isBusy(cause) ? "unchanged" : outcome);
  }

  function unavailable(verb: string, cause: unknown, outcome: "unchanged" | "unknown") {
    const reason = (cause as Error).message;
    return new StoreUnavailable(`Cannot ${verb} "${path}": ${reason}`, { cause, outcome });
  }

  return { read, write, check, close };
}
