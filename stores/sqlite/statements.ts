/** The SQL of a SQLite store. */
import type { DatabaseSync, StatementSync } from "node:sqlite";

/** How many bytes have to fit on a disk that is not full. */
const PROBE_SIZE = 64 * 1024;

/** An entry. */
export type Row = [value: string, revision: number, expires: number | null];
/** A key as it is stored. */
export type KeyRow = { key: Uint8Array };

export function statementsOf(database: DatabaseSync) {
  const selectEntry = database.prepare(
    "SELECT value, revision, expires FROM entries WHERE key = ?",
  );
  // An array costs half as much as an object. Deno's types lack this method.
  (selectEntry as StatementSync & { setReturnArrays(on: boolean): void }).setReturnArrays(true);
  const insertProbe = database.prepare(
    `INSERT INTO entries (key, revision, value) VALUES (x'', 0, zeroblob(${PROBE_SIZE}))`,
  );
  return {
    selectEntry,
    upsertEntry: database.prepare(
      `INSERT INTO entries (key, value, revision, expires) VALUES (?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE SET
         value = excluded.value, revision = excluded.revision, expires = excluded.expires`,
    ),
    deleteEntry: database.prepare("DELETE FROM entries WHERE key = ?"),
    // Without a time (?3) it does not look up when an entry expires.
    selectKeys: database.prepare(
      `SELECT key FROM entries WHERE key >= ?1 AND key < ?2
         AND (?3 IS NULL OR expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4`,
    ),
    selectNthKey: database.prepare(
      "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?",
    ),
    selectTotals: database.prepare("SELECT revision, count FROM totals"),
    updateRevision: database.prepare("UPDATE totals SET revision = ?"),
    selectExpired: database.prepare(
      `SELECT key, octet_length(value) AS length FROM entries
       WHERE expires <= ? ORDER BY expires LIMIT ?`,
    ),

    /** Writes some pages to the log, for a transaction that is rolled back. */
    probe(): void {
      // With a small cache SQLite writes them before the commit.
      database.exec("PRAGMA cache_size = 4");
      try {
        insertProbe.run();
      } finally {
        database.exec("PRAGMA cache_size = -2000"); // the default
      }
    },
  };
}
