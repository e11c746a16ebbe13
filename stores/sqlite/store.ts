/**
 * A store in one SQLite file, by `node:sqlite`, which is part of Deno and Node.
 *
 * Writes are durable: a promise resolves after the commit was synced to disk (WAL,
 * `synchronous=FULL`). Several processes may open one file.
 *
 * Keys are BLOBs, since a key may hold a NUL, at which SQLite ends a TEXT. JSON text has none.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { Changes } from "../changes.ts";
import { checked, checkRevision, expiry } from "../checks.ts";
import { abandon, openDatabase, replacementCheck } from "./database.ts";
import { Transactions } from "./transactions.ts";
import type { Entry, JsonText, Store } from "../store.ts";
import { unref } from "../timers.ts";

/** The most entries removed in one transaction, so that a sweep never delays a request for long. */
const SWEEP_BATCH = 500;
/**
 * The highest revision that the clock gives, in microseconds since 1970: the year 2200. With a clock
 * that is far ahead for a while, revisions would become larger than JavaScript's integers, and the
 * file unreadable.
 */
const MAX_CLOCK_REVISION = Date.UTC(2200) * 1000;

/** What {@linkcode sqliteStore} takes. */
export interface SqliteOptions {
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
  /** Whether a file that does not exist is an error; by default it is created. */
  mustExist?: boolean;
  /** How often expired entries are removed from the file, in milliseconds. */
  sweepInterval?: number;
}

/** A method that Deno's types of `node:sqlite` lack. */
interface ReturnsArrays {
  setReturnArrays(enabled: boolean): void;
}

type Row = [value: string, revision: number, expires: number | null];

/**
 * Opens the store in the file at `path`, or creates one.
 *
 * @param path Of the file; `:memory:` for a database that lives as long as the store
 * @throws {StoreUnavailable} If the file cannot be opened, is damaged, or is not a store
 *
 * @example
 * ```ts
 * import { json } from "../json/text.ts";
 * import { sqliteStore } from "./store.ts";
 *
 * const store = sqliteStore(":memory:");
 * const { revision } = await store.set("a", json(1));
 * await store.set("a", json(2), { ifRevision: revision });
 * await store.close();
 * ```
 */
export function sqliteStore(
  path: string,
  { now = () => Date.now(), mustExist = false, sweepInterval = 1000 }: SqliteOptions = {},
): Store {
  const database = openDatabase(path, mustExist);
  const findReplaced = path === ":memory:" ? () => null : replacementCheck(path);
  // An array costs half as much as an object. The cast is for values that an older program wrote as
  // BLOBs, and costs nothing.
  const selectEntry = database.prepare(
    "SELECT CAST(value AS TEXT), revision, expires FROM entries WHERE key = ?",
  );
  (selectEntry as typeof selectEntry & ReturnsArrays).setReturnArrays(true);
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

  const changes = new Changes();
  let revision = 0; // of the last write; read in each transaction
  let changed: string[] = []; // the keys that this transaction writes or removes
  let hasChanged = false;
  let isClosed = false;
  const timer = setInterval(sweep, sweepInterval);
  unref(timer);

  const transactions = new Transactions(path, database, {
    begun() {
      const replaced = findReplaced();
      if (replaced !== null) {
        throw new Error(`"${replaced}" was deleted or replaced: restart to use what is there now`);
      }
      changed = [];
      hasChanged = false;
      const last = selectRevision.get() as { revision: number };
      // A file that was created again, or restored from a copy, does not know all of its revisions.
      revision = Math.max(last.revision, Math.min(now() * 1000, MAX_CLOCK_REVISION));
    },
    ending() {
      if (hasChanged) updateRevision.run(revision);
      return hasChanged;
    },
    committed() {
      for (const key of changed) changes.add(key);
    },
  });

  function find(key: string): Entry | null {
    const row = selectEntry.get(Buffer.from(key)) as Row | undefined;
    if (row === undefined) return null;
    const [value, revision, expires] = row;
    if (expires !== null && expires <= now()) return null;
    return { key, value: value as JsonText, revision: String(revision), expires };
  }

  function write(key: string, value: JsonText, expires: number | null): Entry {
    revision++;
    upsertEntry.run(Buffer.from(key), value, revision, expires);
    noteChange(key);
    return { key, value, revision: String(revision), expires };
  }

  function noteChange(key: string): void {
    changed.push(key);
    hasChanged = true;
  }

  function removeExpired(): void {
    hasChanged ||= deleteExpired.run(now()).changes > 0;
  }

  async function sweep(): Promise<void> {
    try {
      // Checked first: a transaction with nothing to remove would still cost a sync.
      while (!isClosed && await transactions.read(() => selectExpired.get(now()))) {
        if (!isClosed) await transactions.write(removeExpired);
      }
    } catch (error) {
      // The next sweep tries again, and no reader sees an expired entry.
      console.error(`sqlite: cannot sweep "${path}": ${(error as Error).message}`);
    }
  }

  return checked({
    get: (key) => transactions.read(() => find(key)),

    async set(key, value, { ttl, ifRevision }) {
      const expires = expiry(ttl, now());
      return await transactions.write(() => {
        const current = find(key);
        checkRevision(key, current, ifRevision);
        return { ...write(key, value, expires), created: current === null };
      });
    },

    async setAll(values, { ttl }) {
      const expires = expiry(ttl, now());
      const copy = [...values];
      await transactions.write(() => {
        for (const [key, value] of copy) write(key, value, expires);
      });
    },

    delete: (key, { ifRevision }) =>
      transactions.write(() => {
        const current = find(key);
        checkRevision(key, current, ifRevision);
        // An expired entry is left to the sweep.
        if (current === null) return null;
        deleteEntry.run(Buffer.from(key));
        noteChange(key);
        return current;
      }),

    async list(prefix, { after = "", limit }) {
      // One lower bound: of two, SQLite would seek to the first and read on to the second.
      const start = after === "" ? "" : `${after}\0`; // the first key after `after`
      const [, from = ""] = [Buffer.from(prefix), Buffer.from(start)].sort(Buffer.compare);
      // One more than asked for tells whether there is a next page.
      const query = [from, endOf(prefix), now(), limit + 1];
      const rows = await transactions.read(() => selectKeys.all(...query)) as { key: Uint8Array }[];
      const keys = rows.slice(0, limit).map((row) => text(row.key));
      return { keys, next: rows.length > limit ? keys.at(-1) ?? null : null };
    },

    async count() {
      return (await transactions.read(() => selectCount.get()) as { count: number }).count;
    },

    watch: async (prefix, { since }) =>
      changes.watch(prefix, since, (key) => transactions.read(() => find(key))),

    async close() {
      isClosed = true;
      changes.end();
      clearInterval(timer);
      await transactions.close();
      if (findReplaced() === null) database.close();
      else abandon(database);
    },
  });
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
