/**
 * A store in one SQLite file, by `node:sqlite`, which is part of Deno and Node. Several processes may
 * open one file. A promise resolves when what it did or found is on disk.
 *
 * Keys are BLOBs, since SQLite ends a TEXT at a NUL, which a key may contain. JSON text has none.
 */
import { Buffer } from "node:buffer";
import { Changes } from "../changes.ts";
import { checked, checkRevision, expiry } from "../checks.ts";
import { abandoned, openDatabase } from "./database.ts";
import type { KeyRow, Row } from "./statements.ts";
import type { Sync } from "./syncs.ts";
import { type Found, transactionsOf } from "./transactions.ts";
import { type Entry, type JsonText, MAX_PAGE, type Store } from "../store.ts";
import { forwardOnly, unref } from "../timers.ts";

/** About how many bytes of the file a write changes beside its value: one page. */
const WRITE_SIZE = 4096;
/**
 * The highest revision from the clock, in microseconds since 1970: the year 2200. A clock that is
 * further ahead would take revisions beyond JavaScript's integers, and make the file unreadable.
 */
const MAX_CLOCK_REVISION = Date.UTC(2200) * 1000;

/** What {@linkcode sqliteStore} takes. */
export interface SqliteOptions {
  /** The clock, in milliseconds since 1970. */
  now?: () => number;
  /** For a store that is only read: its file has to exist, and may be read-only. */
  mustExist?: boolean;
  /** How often expired entries are removed from the file, in milliseconds. */
  sweepInterval?: number;
  /** The most entries that one page of a listing looks at: many may have expired. */
  scanned?: number;
  /**
   * How much one transaction reads and writes, in bytes, before the next one has to do the rest, so
   * that large values delay no other call for long: by default 4 MiB.
   */
  transactionBytes?: number;
  /** Syncs an open file to the disk: by default `fdatasync`. */
  sync?: Sync;
}

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
export function sqliteStore(path: string, options: SqliteOptions = {}): Store {
  const { now = () => Date.now(), mustExist = false, sweepInterval = 1000 } = options;
  const { scanned = 2 * MAX_PAGE, transactionBytes = 4 * 1024 * 1024, sync } = options;
  const { database, sql, syncs, findReplaced } = openDatabase(path, mustExist, sync);
  let clock = forwardOnly(now);
  const changes = new Changes();
  let lastRead: number | undefined; // the last revision that the reads of a turn see, once one needs it
  let before = 0; // the last revision when this transaction began
  let revision = 0; // of this transaction's last write
  let ownCommit = 0; // the revision of the last transaction that this store committed
  let changed = new Set<string>(); // the keys that this transaction writes or removes
  let hasChanged = false;
  let size = 0; // about how many bytes this transaction reads and writes
  let isClosed = false;
  const timer = unref(setInterval(sweep, sweepInterval));

  const transactions = transactionsOf(path, database, syncs, {
    begunReading() {
      lastRead = undefined;
    },
    begun() {
      checkReplaced();
      changed = new Set();
      hasChanged = false;
      size = 0;
      before = totals().revision;
      // A file that was restored from a copy lacks revisions that were given since.
      revision = Math.max(before, Math.min(clock() * 1000, MAX_CLOCK_REVISION));
      return before;
    },
    isFull: () => size >= transactionBytes,
    ending() {
      if (!hasChanged) return null;
      // A transaction that only removes entries has a revision, too, so that others wait for its sync.
      sql.updateRevision.run(++revision);
      return revision;
    },
    committed() {
      ownCommit = revision;
    },
    synced() {
      for (const key of changed) changes.add(key);
    },
  });

  function checkReplaced(): void {
    const replaced = findReplaced();
    if (replaced !== null) {
      throw new Error(`"${replaced}" was deleted or replaced: restart to use what is there now`);
    }
  }

  /** Whether a file was replaced, or its directory can no longer be read. */
  function isLost(): boolean {
    try {
      return findReplaced() !== null;
    } catch {
      return true; // each write has said why
    }
  }

  function totals(): { revision: number; count: number } {
    const row = sql.selectTotals.get();
    if (row === undefined) throw new Error("it is damaged: the table totals is empty");
    return row as { revision: number; count: number };
  }

  function find(key: string): Found<Entry | null> {
    const row = sql.selectEntry.get(Buffer.from(key)) as unknown as Row | undefined;
    if (row === undefined) {
      lastRead ??= totals().revision; // for a write it does not matter
      // No commit after `before` has removed it: the only one is ours, and did not.
      const isUntouched = lastRead === ownCommit && !changed.has(key);
      return { result: null, revision: isUntouched ? before : lastRead };
    }
    const [value, written, expires] = row;
    size += value.length;
    const isExpired = expires !== null && expires <= clock();
    const entry = { key, value: value as JsonText, revision: String(written), expires };
    return { result: isExpired ? null : entry, revision: written };
  }

  function write(key: string, value: JsonText, expires: number | null): Entry {
    sql.upsertEntry.run(Buffer.from(key), value, ++revision, expires);
    noteChange(key, value.length);
    return { key, value, revision: String(revision), expires };
  }

  function noteChange(key: string, length: number): void {
    changed.add(key);
    hasChanged = true;
    size += length + WRITE_SIZE;
  }

  function hasExpired(time: number): boolean {
    return sql.selectExpired.get(time, 1) !== undefined;
  }

  function removeExpired(): void {
    const expired = sql.selectExpired.all(clock(), Math.ceil(transactionBytes / WRITE_SIZE));
    for (const { key, length } of expired as (KeyRow & { length: number })[]) {
      if (size >= transactionBytes) return;
      sql.deleteEntry.run(key);
      hasChanged = true;
      size += length + WRITE_SIZE;
    }
  }

  async function sweep(): Promise<void> {
    try {
      // Read first: a write transaction holds up other processes.
      const isDue = () => {
        const result = hasExpired(clock());
        // Every entry that a reader saw as expired is removed: a clock that was ahead may go back.
        if (!result) clock = forwardOnly(now);
        return { result, revision: 0 };
      };
      while (!isClosed && await transactions.read(isDue)) {
        if (!isClosed) await transactions.write(removeExpired);
      }
    } catch (error) {
      // The next sweep tries again; no reader sees an expired entry.
      console.error(`sqlite: cannot sweep "${path}": ${(error as Error).message}`);
    }
  }

  return checked({
    get: (key) => transactions.read(() => find(key)),

    async set(key, value, { ttl, ifRevision }) {
      return await transactions.write(() => {
        const current = find(key).result;
        checkRevision(key, current, ifRevision);
        return { ...write(key, value, expiry(ttl, clock())), created: current === null };
      });
    },

    async setAll(values, { ttl }) {
      const copy = [...values];
      await transactions.write(() => {
        const expires = expiry(ttl, clock());
        for (const [key, value] of copy) write(key, value, expires);
      });
    },

    delete: (key, { ifRevision }) =>
      transactions.write(() => {
        const current = find(key).result;
        checkRevision(key, current, ifRevision);
        // An expired entry is left to the sweep.
        if (current === null) return null;
        sql.deleteEntry.run(Buffer.from(key));
        noteChange(key, current.value.length);
        return current;
      }),

    list(prefix, { after = "", limit }) {
      // One lower bound: with two, SQLite seeks to the first and reads on to the second.
      const [, from = ""] = [Buffer.from(prefix), keyAfter(after)].sort(Buffer.compare);
      const end = endOf(prefix);
      return transactions.read(() => {
        const time = clock();
        const isMixed = hasExpired(time);
        const row = isMixed ? sql.selectNthKey.get(from, end, scanned - 1) : undefined;
        const last = row && textOf(row as KeyRow);
        const to = last === undefined ? end : keyAfter(last);
        // One more than asked for tells whether there is a next page.
        const rows = sql.selectKeys.all(from, to, isMixed ? time : null, limit + 1) as KeyRow[];
        const keys = rows.slice(0, limit).map(textOf);
        const next = (rows.length > limit ? keys.at(-1) : last) ?? null;
        return { result: { keys, next }, revision: totals().revision };
      });
    },

    count: () =>
      transactions.read(() => {
        const { count, revision } = totals();
        return { result: count, revision };
      }),

    watch: async (prefix, { since }) =>
      changes.watch(prefix, since, (key) => transactions.read(() => find(key))),

    check: () =>
      transactions.check(() => {
        checkReplaced();
        totals(); // each call reads them
        sql.probe();
      }),

    async close() {
      isClosed = true;
      changes.end();
      clearInterval(timer);
      await transactions.close();
      await syncs.close();
      if (isLost() || syncs.failure !== undefined) abandoned.push(database);
      else database.close();
    },
  });
}

/** Returns the first key after `key`, as bytes; after "", the first of all. */
function keyAfter(key: string): Uint8Array {
  return Buffer.from(key === "" ? "" : `${key}\0`);
}

/** Returns the first bytes after all keys that begin with `prefix`. UTF-8 has no byte 0xff. */
function endOf(prefix: string): Uint8Array {
  const bytes = Buffer.from(prefix);
  if (bytes.length === 0) return Buffer.of(0xff);
  bytes[bytes.length - 1] = (bytes.at(-1) as number) + 1;
  return bytes;
}

function textOf({ key }: KeyRow): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString();
}
