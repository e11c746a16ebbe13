/**
 * The database of a SQLite store: opens the file, creates its tables, and tells if it was replaced.
 */
import { Buffer } from "node:buffer";
import {
  closeSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { statementsOf } from "./statements.ts";
import { StoreUnavailable } from "../store.ts";
import { type Sync, Syncs } from "./syncs.ts";

/** How long a call waits for another process that has locked the file, in milliseconds. */
export const LOCK_TIMEOUT = 3000;
/** Marks the file as ours (`PRAGMA application_id`): "sess" in ASCII. */
const APPLICATION_ID = 0x73657373;

/** The version of the tables (`PRAGMA user_version`). */
const VERSION = 4;
/**
 * The primary key is a number: SQLite reads whole rows to compare primary keys of text. The value is
 * the last column, since SQLite reads through it to a later one. Triggers count the entries, since
 * `count(*)` reads the whole file.
 */
const TABLES = `
  CREATE TABLE entries (
    id       INTEGER PRIMARY KEY,
    key      BLOB NOT NULL UNIQUE,
    expires  INTEGER,
    revision INTEGER NOT NULL,
    value    TEXT NOT NULL
  );
  CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires IS NOT NULL;
  CREATE TABLE totals (revision INTEGER NOT NULL, count INTEGER NOT NULL);
  INSERT INTO totals VALUES (0, 0);
  CREATE TRIGGER entry_added AFTER INSERT ON entries
    BEGIN UPDATE totals SET count = count + 1; END;
  CREATE TRIGGER entry_removed AFTER DELETE ON entries
    BEGIN UPDATE totals SET count = count - 1; END;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${VERSION}`;
/** Converts the tables of an older version. The first one has no `entry_count`. */
const UPGRADE = `
  ALTER TABLE entries RENAME TO older;
  DROP INDEX entries_by_expiry;
  DROP TRIGGER IF EXISTS entry_added;
  DROP TRIGGER IF EXISTS entry_removed;
  ${TABLES};
  INSERT INTO entries (key, expires, revision, value)
    SELECT key, expires, revision, CAST(value AS TEXT) FROM older;
  UPDATE totals SET revision = (SELECT revision FROM last_revision);
  DROP TABLE older;
  DROP TABLE last_revision;
  DROP TABLE IF EXISTS entry_count`;

/**
 * Opens the file, and creates the tables if they are missing. Its `findReplaced` returns which file
 * was deleted or replaced since, or null: SQLite would go on writing to the old one, and without the
 * `-shm` file, which has the locks, two processes would damage the database.
 *
 * @throws {StoreUnavailable} If the file cannot be opened, is damaged, or is not a store
 */
export function openDatabase(path: string, mustExist: boolean, sync?: Sync) {
  let database: DatabaseSync | undefined;
  try {
    if (path !== ":memory:") prepareFile(path, mustExist);
    database = new DatabaseSync(path, { timeout: LOCK_TIMEOUT });
    versionOf(database); // first, so that another program's file stays as it is
    // SQLite's own waiting blocks the process, grows with each try, and does not cover WAL.
    database.exec("PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 0");
    const mode = untilUnlocked(database.prepare("PRAGMA journal_mode = WAL"));
    if (mode?.["journal_mode"] === "delete") throw new Error(`cannot create its log${IS_FULL}`);
    untilUnlocked(database.prepare("BEGIN IMMEDIATE"));
    // Again, since another process may have created the tables meanwhile.
    const version = versionOf(database);
    if (version < VERSION) database.exec(version === 0 ? TABLES : UPGRADE);
    // Changes nothing, but fails if the file is read-only, for which BEGIN does not look.
    if (!mustExist) database.prepare("DELETE FROM entries WHERE false").run();
    // Beside the file that a link points to. Absolute, since the program may change its directory.
    const log = path === ":memory:" ? null : `${realpathSync(path)}-wal`;
    if (log !== null) rewrite(log);
    database.exec("COMMIT");
    const sql = statementsOf(database); // fails if a table or a column is missing
    const paths = log === null ? [] : [resolve(path), log, log.replace(/wal$/, "shm")];
    const opened = paths.map(identityOf);
    const findReplaced = () => paths.find((path, i) => opened[i] !== identityOf(path)) ?? null;
    return { database, sql, syncs: new Syncs(log, sync), findReplaced };
  } catch (cause) {
    database?.close();
    const message = `Cannot open the store "${path}": ${(cause as Error).message}${hint(cause)}`;
    throw new StoreUnavailable(message, { cause, outcome: "unchanged" });
  }
}

/**
 * @throws {Error} If it is not a file, or one with several names; or if there is none or an empty one,
 * and a log of another
 */
function prepareFile(path: string, mustExist: boolean): void {
  const file = statSync(path, { throwIfNoEntry: mustExist });
  if (file?.isFile() === false) throw new Error("it is not a file");
  if (file && file.nlink > 1) {
    // SQLite takes the log of the name that it is given, and closes each over the writes of the others.
    throw new Error(
      "it has several names (hard links), and would get a log by each: keep one, or open a copy",
    );
  }
  if (file?.size) return;
  let target = path;
  while (lstatSync(target, { throwIfNoEntry: false })?.isSymbolicLink()) {
    const to = readlinkSync(target);
    // Not by resolve(): a ".." in a linked directory leads to another one.
    target = isAbsolute(to) ? to : `${dirname(target)}/${to}`;
  }
  const log = `${target}-wal`;
  if (statSync(log, { throwIfNoEntry: false })?.size) {
    // SQLite would delete it, with the last writes of a file that was moved without it.
    throw new Error(`its log is there without it: move "${log}" to its file, or delete it`);
  }
  // SQLite would let others read it: keys may be session ids. The files beside it get its mode.
  // By no link: without all rights, Deno creates no file through one.
  if (!file) closeSync(openSync(target, "a", 0o600));
}

const IS_FULL = ": is the disk full? A store needs 64 KiB to begin";

/** What else to know about an error of SQLite. */
function hint(error: unknown): string {
  if (isUnopened(error)) return ", or create one beside it: is the directory read-only?";
  if (isReadOnly(error)) return ": may this user write it, its directory, and the files beside it?";
  // SQLITE_IOERR_SHMSIZE
  return Object(error).errcode === 4874 ? IS_FULL : "";
}

/**
 * Writes a log again as it is, while nobody else can. A process whose sync failed may have left
 * commits that the system holds in memory and takes for synced: no later sync would write them.
 */
function rewrite(path: string): void {
  const file = openSync(path, "r+");
  try {
    const block = Buffer.alloc(1024 * 1024);
    let length: number;
    for (let at = 0; (length = readSync(file, block, 0, block.length, at)) > 0;) {
      at += writeSync(file, block, 0, length, at);
    }
  } finally {
    closeSync(file);
  }
}

/** Runs a statement; while another process has locked the file, again each millisecond. */
function untilUnlocked(statement: StatementSync) {
  for (const start = performance.now();;) {
    try {
      return statement.get();
    } catch (error) {
      if (!isBusy(error) || performance.now() - start > LOCK_TIMEOUT) throw error;
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
}

/** Returns the version of the tables, or 0: there are none. Fails if they are not ours, or too new. */
function versionOf(database: DatabaseSync): number {
  const { tables, application, version } = database.prepare(
    `SELECT count(*) AS tables, application_id AS application, user_version AS version
     FROM sqlite_schema, pragma_application_id, pragma_user_version`,
  ).get() as { tables: number; application: number; version: number };
  if (tables === 0) return 0;
  if (application !== APPLICATION_ID) throw new Error("it is another program's database");
  if (version > VERSION) {
    throw new Error(`its tables have version ${version}, expected ${VERSION} at most`);
  }
  return version;
}

/** Whether another process has locked the file (SQLITE_BUSY). */
export const isBusy = hasCode(5);
/** Whether the file, or one beside it, cannot be opened (SQLITE_CANTOPEN). */
const isUnopened = hasCode(14);
/** Whether the file, or one beside it, may not be written (SQLITE_READONLY). */
const isReadOnly = hasCode(8);
/** Whether the disk is full (SQLITE_FULL). */
export const isFull = hasCode(13);

/** Tells of an error whether it has a primary code, the last eight bits of an extended one. */
function hasCode(code: number): (error: unknown) => boolean {
  return (error) => ((error as { errcode?: number }).errcode ?? 0) % 256 === code;
}

/**
 * Databases that the garbage collector must not close: that would copy the log into the file, over the
 * pages of a process with another log. A program that ends without `Deno.exit` or `process.exit` closes
 * them nonetheless.
 */
export const abandoned: DatabaseSync[] = [];

/** In Deno, its own call takes half the time of `node:fs`. Each write transaction makes three. */
const stat = globalThis.Deno?.statSync ?? statSync;

function identityOf(path: string): string {
  try {
    const { dev, ino } = stat(path);
    return `${dev}:${ino}`;
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
    return "";
  }
}
