/**
 * A SQLite file, and what of it is on the disk. What a failed sync should have kept may never get
 * there though later syncs succeed, and each process that has the log open is told of the failure
 * once (Linux, `errseq_t`).
 */
import { statSync, utimesSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { Order } from "../helpers/orders.ts";
import { sqliteStore } from "../../stores/sqlite/store.ts";
import type { Store } from "../../stores/store.ts";

/** The processes that have the file open. */
export const PROCESSES = ["a", "b"];

/** What is stored after a transaction. */
export interface Commit {
  readonly revision: number;
  readonly values: ReadonlyMap<string, string>;
}

/** What is written to one file, and what of it is on the disk. */
export class Disk {
  readonly commits: Commit[] = [];
  /** Which of `commits` was the last one that got to the disk. */
  kept = 0;
  /** Whether the log has commits that a failed sync has dropped. */
  #hasDropped = false;
  /** The processes whose next sync fails. */
  readonly #failing = new Set<string>();
  readonly #syncing = new Set<() => void>();
  readonly #database: DatabaseSync;

  constructor(readonly path: string) {
    this.#database = new DatabaseSync(path);
    this.note();
  }

  get last(): number {
    return this.commits.length - 1;
  }

  get revision(): number {
    return this.commits[this.kept]?.revision ?? NaN;
  }

  /** Notes the newest commit. */
  note(): void {
    const { revision } = this.#database.prepare("SELECT revision FROM totals").get() ?? {};
    if (revision === this.commits.at(-1)?.revision) return;
    const rows = this.#database.prepare("SELECT CAST(key AS TEXT) AS key, value FROM entries")
      .all();
    const values = new Map(rows.map(({ key, value }) => [String(key), String(value)]));
    this.commits.push({ revision: Number(revision), values });
  }

  /** Whether what was found in the commit `last` has been the same since one that is on the disk. */
  keeps(found: string | null, last: number, find: (commit?: Commit) => string | null): boolean {
    let same = last;
    while (same > this.kept && find(this.commits[same - 1]) === found) same--;
    return same <= this.kept && find(this.commits[same]) === found;
  }

  /** Opens the file as a new process. */
  open(process: string, order: Order, onFailure: () => void): Store {
    const log = `${this.path}-wal`;
    utimesSync(log, 0, 0);
    const store = sqliteStore(this.path, {
      // Time stands still, and nothing is swept.
      now: () => (this.note(), 0),
      sweepInterval: 2 ** 31 - 1,
      sync: () => this.#sync(process, order, onFailure),
    });
    this.#failing.delete(process);
    if (statSync(log).mtimeMs > 0) this.#hasDropped = false;
    return store;
  }

  #sync(process: string, order: Order, onFailure: () => void): Promise<void> {
    this.note();
    const { last } = this;
    return new Promise((resolve, reject) => {
      const fail = () => {
        for (const other of PROCESSES) this.#failing.add(other);
        this.#failing.delete(process);
        this.#hasDropped = true;
        onFailure();
        reject(new Error("EIO"));
      };
      const end = () => {
        if (this.#failing.has(process)) return fail();
        if (!this.#hasDropped) this.kept = Math.max(this.kept, last);
        resolve();
      };
      this.#syncing.add(resolve);
      order.add(process, "synced", end, { "sync failed": fail });
    });
  }

  close(): void {
    for (const resolve of this.#syncing) resolve();
    this.#database.close();
  }
}
