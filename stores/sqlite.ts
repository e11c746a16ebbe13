/**
 * A store in one SQLite file, by `node:sqlite`, which is part of Deno.
 *
 * Writes are durable: a promise resolves after the commit was synced to disk (WAL,
 * `synchronous=FULL`). Since a sync costs far more than a write, all writes of one turn of the
 * event loop share one transaction. Reads go straight to the file, a few microseconds each.
 *
 * Keys and values are BLOBs: SQLite ends the reading of a TEXT at a NUL. Several processes may open
 * one file; a write waits {@linkcode BUSY_TIMEOUT} for another process's, then fails, unchanged.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { Changes } from "./changes.ts";
import { checked, checkRevision, expiry } from "./checks.ts";
import {
  type Entry,
  type JsonText,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "./store.ts";
import { unref } from "./timers.ts";

/** Marks the file as ours (`PRAGMA application_id`): "sess" in ASCII. */
const APPLICATION_ID = 0x73657373;
/** How long a write waits for another process's write, in milliseconds. It blocks this process. */
const BUSY_TIMEOUT = 1000;
/** The most entries removed in one transaction, so that a sweep never holds up a request. */
const SWEEP_BATCH = 500;

/**
 * What makes the tables: each text takes them to the next version (`PRAGMA user_version`), those of
 * a file that an older program has made as well.
 */
const MIGRATIONS = [
  `CREATE TABLE entries (
    key      BLOB PRIMARY KEY,
    value    BLOB NOT NULL,
    revision INTEGER NOT NULL,
    expires  INTEGER
  ) WITHOUT ROWID;
  CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires IS NOT NULL;
  CREATE TABLE last_revision (revision INTEGER NOT NULL);
  INSERT INTO last_revision VALUES (0);
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = 1`,
  // To count the entries SQLite would read all of the file.
  `CREATE TABLE entry_count (count INTEGER NOT NULL);
  INSERT INTO entry_count SELECT count(*) FROM entries;
  CREATE TRIGGER entry_added AFTER INSERT ON entries
    BEGIN UPDATE entry_count SET count = count + 1; END;
  CREATE TRIGGER entry_removed AFTER DELETE ON entries
    BEGIN UPDATE entry_count SET count = count - 1; END;
  PRAGMA user_version = 2`,
];

/** What {@linkcode sqliteStore} takes. */
export interface SqliteOptions {
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
  /** Whether a file that is not there is an error; by default it is made. */
  mustExist?: boolean;
  /** How often expired entries are removed from the file, in milliseconds. */
  sweepInterval?: number;
}

/** A write that waits for the next transaction. */
interface PendingWrite {
  run(): unknown;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

type Row = { key: Uint8Array; value: Uint8Array; revision: number; expires: number | null };

/**
 * Opens the store in the file at `path`, or a new one.
 *
 * @param path Of the file; `:memory:` for a database that lives as long as the store
 * @throws {StoreUnavailable} If the file cannot be opened, is damaged, or is no store of ours
 *
 * @example
 * ```ts
 * import { json } from "./json_text.ts";
 * import { sqliteStore } from "./sqlite.ts";
 *
 * const store = sqliteStore(":memory:");
 * const { revision } = await store.set("a", json(1));
 * await store.set("a", json(2), { ifRevision: revision });
 * await store.close();
 * ```
 */
export function sqliteStore(
  path: string,
  { now = Date.now, mustExist = false, sweepInterval = 1000 }: SqliteOptions = {},
): Store {
  const database = openDatabase(path, mustExist);
  const selectEntry = database.prepare(
    "SELECT key, value, revision, expires FROM entries WHERE key = ?",
  );
  const upsertEntry = database.prepare(
    `INSERT INTO entries (key, value, revision, expires) VALUES (?, ?, ?, ?)
     ON CONFLICT (key) DO UPDATE SET
       value = excluded.value, revision = excluded.revision, expires = excluded.expires`,
  );
  const deleteEntry = database.prepare("DELETE FROM entries WHERE key = ?");
  const selectKeys = database.prepare(
    `SELECT key FROM entries WHERE key >= ? AND key < ?
       AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?`,
  );
  const selectCount = database.prepare("SELECT count FROM entry_count");
  const selectExpired = database.prepare("SELECT 1 FROM entries WHERE expires <= ? LIMIT 1");
  const deleteExpired = database.prepare(
    `DELETE FROM entries WHERE key IN
       (SELECT key FROM entries WHERE expires <= ? ORDER BY expires LIMIT ${SWEEP_BATCH})`,
  );
  const selectRevision = database.prepare("SELECT revision FROM last_revision");
  const updateRevision = database.prepare("UPDATE last_revision SET revision = ?");
  // Prepared, since an error of `exec` would not say by its code that the disk is full.
  const beginTransaction = database.prepare("BEGIN IMMEDIATE");
  const commitTransaction = database.prepare("COMMIT");

  const changes = new Changes();
  let pending: PendingWrite[] = [];
  let revision = 0; // of the last write; read anew in each transaction
  let changed: string[] = []; // the keys that this transaction writes or removes
  let closing: Promise<void> | undefined;
  const timer = setInterval(sweep, sweepInterval);
  unref(timer);

  function find(key: string): Entry | null {
    const row = selectEntry.get(Buffer.from(key)) as Row | undefined;
    if (row === undefined || (row.expires !== null && row.expires <= now())) return null;
    return {
      key,
      value: text(row.value) as JsonText,
      revision: String(row.revision),
      expires: row.expires,
    };
  }

  function write(key: string, value: JsonText, expires: number | null): Entry {
    revision++;
    upsertEntry.run(Buffer.from(key), Buffer.from(value), revision, expires);
    changed.push(key);
    return { key, value, revision: String(revision), expires };
  }

  /** Has `run` done in the next transaction, and resolves once that one is on disk. */
  function transact<T>(run: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (pending.length === 0) setImmediate(commit);
      pending.push({ run, resolve: resolve as (result: unknown) => void, reject });
    });
  }

  function commit(): void {
    const writes = pending;
    pending = [];
    changed = [];
    const settle: (() => void)[] = [];
    try {
      beginTransaction.run();
      const last = selectRevision.get() as { revision: number };
      // A file that was made anew, or brought back from a copy, does not know all of its revisions.
      revision = Math.max(last.revision, now() * 1000);
      for (const { run, resolve, reject } of writes) {
        try {
          const result = run();
          settle.push(() => resolve(result));
        } catch (error) {
          // A conflict is one write's own affair, and it has changed nothing.
          if (!(error instanceof RevisionConflict)) throw error;
          settle.push(() => reject(error));
        }
      }
      updateRevision.run(revision);
      commitTransaction.run();
    } catch (cause) {
      // On a full disk SQLite has rolled back by itself.
      if (database.isTransaction) database.exec("ROLLBACK");
      const error = writeError(path, cause);
      for (const { reject } of writes) reject(error);
      return;
    }
    for (const key of changed) changes.add(key);
    for (const done of settle) done();
  }

  async function sweep(): Promise<void> {
    try {
      // A look first: a transaction with nothing to remove would still cost a sync.
      while (!closing && selectExpired.get(now())) await transact(() => deleteExpired.run(now()));
    } catch (error) {
      // The next sweep tries again, and no reader sees an expired entry.
      console.error(`sqlite: cannot sweep "${path}": ${(error as Error).message}`);
    }
  }

  /** Runs a read, and says what a failure of SQLite means. */
  function read<T>(query: () => T): T {
    try {
      return query();
    } catch (cause) {
      throw new StoreUnavailable(`Cannot read "${path}": ${(cause as Error).message}`, {
        cause,
        outcome: "unchanged",
      });
    }
  }

  return checked({
    async get(key) {
      return read(() => find(key));
    },

    async set(key, value, { ttl, ifRevision }) {
      const expires = expiry(ttl, now());
      return await transact(() => {
        const current = find(key);
        checkRevision(key, current, ifRevision);
        return { ...write(key, value, expires), created: current === null };
      });
    },

    async setAll(values, { ttl }) {
      const expires = expiry(ttl, now());
      const copy = [...values];
      await transact(() => {
        for (const [key, value] of copy) write(key, value, expires);
      });
    },

    async delete(key, { ifRevision }) {
      return await transact(() => {
        const current = find(key);
        checkRevision(key, current, ifRevision);
        deleteEntry.run(Buffer.from(key));
        if (current) changed.push(key);
        return current;
      });
    },

    async list(prefix, { after = "", limit }) {
      // One lower bound: of two, SQLite would seek to the first and read on to the second.
      const start = after === "" ? "" : `${after}\0`; // what comes next behind `after`
      const [, from = ""] = [Buffer.from(prefix), Buffer.from(start)].sort(Buffer.compare);
      // One more than asked for tells whether there is a next page.
      const query = [from, endOf(prefix), now(), limit + 1];
      const rows = read(() => selectKeys.all(...query)) as { key: Uint8Array }[];
      const keys = rows.slice(0, limit).map((row) => text(row.key));
      return { keys, next: rows.length > limit ? keys.at(-1) ?? null : null };
    },

    async count() {
      return (read(() => selectCount.get()) as { count: number }).count;
    },

    async watch(prefix, { since }) {
      return changes.watch(prefix, since, (key) => read(() => Promise.resolve(find(key))));
    },

    close() {
      changes.end();
      clearInterval(timer);
      // Behind the writes that are pending. One of nothing would fail where nothing can be written.
      closing = new Promise(setImmediate).then(() => database.close());
      return closing;
    },
  });
}

function openDatabase(path: string, mustExist: boolean): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    if (mustExist) statSync(path);
    database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT });
    // Looked at before anything is changed: another program's file stays as it is.
    versionOf(database);
    useWal(database);
    database.exec("PRAGMA synchronous = FULL; BEGIN IMMEDIATE");
    // And again inside a transaction: another process may have made the tables meanwhile.
    for (const migration of MIGRATIONS.slice(versionOf(database))) database.exec(migration);
    database.exec("COMMIT");
    return database;
  } catch (cause) {
    database?.close();
    throw new StoreUnavailable(`Cannot open the store "${path}": ${(cause as Error).message}`, {
      cause,
      outcome: "unchanged",
    });
  }
}

/** Waits for another process that makes the same file: SQLite itself does not, for this change. */
function useWal(database: DatabaseSync): void {
  const SQLITE_BUSY = 5;
  const until = performance.now() + BUSY_TIMEOUT;
  // Prepared, since an error of `exec` has no code.
  const change = database.prepare("PRAGMA journal_mode = WAL");
  for (;;) {
    try {
      change.get();
      return;
    } catch (error) {
      const isBusy = (error as { errcode?: number }).errcode === SQLITE_BUSY;
      if (!isBusy || performance.now() > until) throw error;
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  }
}

/**
 * The version of the file's tables; 0 where there are none.
 *
 * @throws {Error} If it has others than ours, or those of a newer program
 */
function versionOf(database: DatabaseSync): number {
  const { tables, application, version } = database.prepare(
    `SELECT count(*) AS tables, application_id AS application, user_version AS version
     FROM sqlite_schema, pragma_application_id, pragma_user_version`,
  ).get() as { tables: number; application: number; version: number };
  if (tables === 0) return 0;
  if (application !== APPLICATION_ID) throw new Error("it is another program's database");
  if (version > MIGRATIONS.length) {
    throw new Error(`its tables have version ${version}, expected ${MIGRATIONS.length} at most`);
  }
  return version;
}

/** What a failed transaction means. It was rolled back, so nothing of it was written. */
function writeError(path: string, cause: unknown): StoreUnavailable | StoreFull {
  const message = `Cannot write "${path}": ${(cause as Error).message}`;
  const SQLITE_FULL = 13;
  return (cause as { errcode?: number }).errcode === SQLITE_FULL
    ? new StoreFull(message, { cause })
    : new StoreUnavailable(message, { cause, outcome: "unchanged" });
}

/** The first bytes after every key that begins with `prefix`. UTF-8 has no byte of 0xff. */
function endOf(prefix: string): Uint8Array {
  const bytes = Buffer.from(prefix);
  if (bytes.length === 0) return Buffer.of(0xff);
  bytes[bytes.length - 1] = (bytes.at(-1) as number) + 1;
  return bytes;
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
}
