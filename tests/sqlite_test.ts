import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { join } from "node:path";
import { DatabaseSync, StatementSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { json, parseJson } from "../stores/json/text.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { StoreFull, StoreUnavailable } from "../stores/store.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { eventually, PROJECT, runToEnd, temporaryDirectory } from "./helpers/programs.ts";
import { openWithClock, storeConformance } from "./conformance/store.ts";
import { compareWithMap } from "./conformance/store_model.ts";
import { testClock } from "./helpers/clock.ts";
import { scoped } from "./helpers/scoped.ts";

storeConformance("sqliteStore in memory", {
  ordered: true,
  open: () => openWithClock((now) => sqliteStore(":memory:", { now })),
});

storeConformance("sqliteStore on disk", {
  ordered: true,
  open: async () => {
    const directory = await Deno.makeTempDir();
    const opened = await openWithClock((now) => sqliteStore(join(directory, "kv.db"), { now }));
    const closeStore = opened[Symbol.asyncDispose];
    opened[Symbol.asyncDispose] = async () => {
      await closeStore();
      await Deno.remove(directory, { recursive: true });
    };
    return opened;
  },
});

/** Registers a test with the path of a store's file, in a directory of its own. */
function test(name: string, run: (path: string, directory: string) => Promise<void>): void {
  Deno.test(name, async () => {
    await using directory = await temporaryDirectory();
    await run(join(directory.path, "kv.db"), directory.path);
  });
}

test("sqliteStore() keeps entries, ttls and revisions from one run to the next", async (path) => {
  const first = sqliteStore(path);
  const a = await first.set("a", json({ count: 1 }), { ttl: 100 });
  const b = await first.set("b", json(1));
  await first.delete("b");
  await first.close();
  await using second = scoped(sqliteStore(path));
  const { created: _, ...entry } = a;
  assertEquals(await second.get("a"), entry);
  assertNotEquals((await second.set("b", json(1))).revision, b.revision);
});

Deno.test("sqliteStore() reuses no revision after its file was restored from a copy", async () => {
  await using directory = await temporaryDirectory();
  const [path, copy] = ["kv.db", "copy.db"].map((name) => join(directory.path, name)) as [
    string,
    string,
  ];
  let now = Date.now();
  const revisions: string[] = [];
  const write = async () => {
    now++; // in one millisecond there may be many writes
    await using store = scoped(sqliteStore(path, { now: () => now }));
    for (let i = 0; i < 20; i++) revisions.push((await store.set("a", json(i))).revision);
  };
  await write();
  await Deno.copyFile(path, copy);
  await write();
  await Deno.rename(copy, path);
  await write();
  await Deno.remove(path);
  await write();
  assertEquals(new Set(revisions).size, 80, `${revisions}`);
});

test("sqliteStore() keeps its file readable after a clock that was centuries ahead", async (path) => {
  const ahead = sqliteStore(path, { now: () => Date.UTC(2300) });
  const { revision } = await ahead.set("a", json(1));
  await ahead.close();
  await using store = scoped(sqliteStore(path));
  assertEquals((await store.get("a"))?.revision, revision);
  assertNotEquals((await store.set("a", json(2), { ifRevision: revision })).revision, revision);
});

test("sqliteStore() checks conditions across two stores on one file", async (path) => {
  const stores = [sqliteStore(path), sqliteStore(path)] as const;
  const { revision } = await stores[0].set("a", json(1));
  assertEquals((await stores[1].set("a", json(2), { ifRevision: revision })).value, "2");
  await assertRejects(() => stores[0].set("a", json(3), { ifRevision: revision }));
  assertEquals((await stores[0].get("a"))?.value, "2");
  for (const store of stores) await store.close();
});

test("sqliteStore() waits for another process that creates the same file", async (path) => {
  const code = `
    import { DatabaseSync, StatementSync } from "node:sqlite";
    self.onmessage = ({ data }) => {
      const database = new DatabaseSync(data);
      database.exec("BEGIN IMMEDIATE");
      self.postMessage("locked");
      setTimeout(() => {
        database.close();
        self.postMessage("released");
      }, 100);
    };
    self.postMessage("ready");
  `;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  const heard = () => new Promise((resolve) => worker.onmessage = resolve);
  const openLocked = async (attempts: number) => {
    const locked = heard();
    worker.postMessage(path);
    await locked;
    const released = heard();
    try {
      return sqliteStore(path);
    } catch (error) {
      // A stalled machine may outlast the time that a store waits.
      if (attempts === 1) throw error;
      await released;
      return await openLocked(attempts - 1);
    }
  };
  await heard();
  const store = await openLocked(5);
  assert((await store.set("a", json(1))).created);
  await store.close();
  worker.terminate();
  URL.revokeObjectURL(url);
});

test("sqliteStore() finishes pending writes before it closes, even if they fail", async (path) => {
  const store = sqliteStore(path);
  const writing = store.set("a", json(1));
  await store.close();
  assertEquals((await writing).value, "1");
  const blocked = sqliteStore(path);
  const other = new DatabaseSync(path);
  other.exec("BEGIN IMMEDIATE");
  await Promise.all([
    assertRejects(() => blocked.set("b", json(2)), StoreUnavailable, "database is locked"),
    blocked.close(),
  ]);
  other.close();
});

test("sqliteStore() sweeps expired entries from the file", async (path) => {
  const clock = testClock();
  await using store = scoped(sqliteStore(path, { now: clock.now, sweepInterval: 5 }));
  await store.setAll(new Map(Array.from({ length: 1200 }, (_, i) => [`k${i}`, json(i)])), {
    ttl: 1,
  });
  await store.set("stays", json(1));
  clock.pass(2);
  const database = new DatabaseSync(path, { readOnly: true });
  const count = database.prepare("SELECT count(*) AS n FROM entries");
  await eventually("a swept file", () => Promise.resolve(count.get()?.n === 1));
  assertEquals(await store.count?.(), 1);
  database.close();
});

test("sqliteStore() goes back with a clock that was ahead, but shows no expired entry again", async (path) => {
  const clock = testClock();
  const { now } = testClock();
  await using store = scoped(sqliteStore(path, { now: clock.now, sweepInterval: 5 }));
  await using other = scoped(sqliteStore(path, { now }));
  await other.set("seen expired", json(1), { ttl: 60 });
  clock.pass(3600);
  assertEquals(await store.get("seen expired"), null);
  clock.pass(-3600);
  const write = () => store.set("a", json(1), { ttl: 60 });
  await eventually("a store that is back", async () => (await write()).expires === now() + 60_000);
  assertEquals(await other.get("seen expired"), null);
  await other.set("b", json(2), { ttl: 60 });
  await delay(50); // some sweeps
  for (const each of [store, other]) assertEquals((await each.get("b"))?.value, "2");
});

Deno.test("sqliteStore() stops a sweep under way when it is closed", async () => {
  const { now, pass } = testClock();
  let isSweeping = false;
  let closing: Promise<void> | undefined;
  const store = sqliteStore(":memory:", {
    sweepInterval: 1,
    now() {
      if (isSweeping) closing = store.close();
      return now();
    },
  });
  await store.set("a", json(1), { ttl: 1 });
  pass(2);
  isSweeping = true; // nothing else asks for the time
  const logged = captureErrors();
  while (closing === undefined) await delay(1);
  await closing;
  await turns();
  assertEquals(logged.end(), "");
});

/** What each version of a file had in addition to the one before. */
const OLDER = [
  `CREATE TABLE entries (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, expires INTEGER
  ) WITHOUT ROWID;
  CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires IS NOT NULL;
  CREATE TABLE last_revision (revision INTEGER NOT NULL);
  INSERT INTO last_revision VALUES (7);
  INSERT INTO entries VALUES (CAST('a' AS BLOB), CAST('1.10' AS BLOB), 6, NULL);
  PRAGMA application_id = 0x73657373`,
  `CREATE TABLE entry_count (count INTEGER NOT NULL);
  INSERT INTO entry_count SELECT count(*) FROM entries;
  CREATE TRIGGER entry_added AFTER INSERT ON entries
    BEGIN UPDATE entry_count SET count = count + 1; END;
  CREATE TRIGGER entry_removed AFTER DELETE ON entries
    BEGIN UPDATE entry_count SET count = count - 1; END`,
  `INSERT INTO entries VALUES (CAST('b' AS BLOB), '{"count":2}', 7, 99999999999999)`,
];

for (const version of [1, 2, 3]) {
  test(`sqliteStore() opens a file of version ${version} and keeps its entries`, async (path) => {
    const made = new DatabaseSync(path);
    for (const part of OLDER.slice(0, version)) made.exec(part);
    made.exec(`PRAGMA user_version = ${version}`);
    made.close();
    const kept = version < 3 ? 1 : 2;
    for (const added of [0, 1]) {
      await using store = scoped(sqliteStore(path));
      assertEquals(await store.count?.(), kept + added);
      const value = json(parseJson("1.10"));
      assertEquals(await store.get("a"), { key: "a", value, revision: "6", expires: null });
      if (version === 3) assertEquals((await store.get("b"))?.expires, 99999999999999);
      assert(Number((await store.set(`new${added}`, json(1))).revision) > 7);
      assertEquals(await store.count?.(), kept + added + 1);
      assertEquals((await store.list("")).keys.slice(-1), [`new${added}`]);
    }
  });
}

test("sqliteStore() creates files that only their owner may read, and keeps a mode that was set", async (path) => {
  for (const mode of [0o600, 0o640]) {
    const store = sqliteStore(path);
    await store.set("a", json(1));
    for (const file of [path, `${path}-wal`, `${path}-shm`]) {
      assertEquals((await Deno.stat(file)).mode, 0o100000 | mode, file);
    }
    await store.close();
    await Deno.chmod(path, 0o640);
  }
});

test("sqliteStore() says that it may lack the right to create a file", async (path) => {
  await sqliteStore(path).close();
  await Deno.mkdir(`${path}-wal`);
  assertThrows(() => sqliteStore(path), StoreUnavailable, "file, or create one beside it: is the");
});

Deno.test("sqliteStore() rejects a file that is not a store, and does not change it", async () => {
  await using directory = await temporaryDirectory();
  const textFile = join(directory.path, "text");
  await Deno.writeTextFile(textFile, "a text of a person\n".repeat(100));
  const foreign = join(directory.path, "foreign.db");
  const database = new DatabaseSync(foreign);
  database.exec("CREATE TABLE mine (a)");
  database.close();
  const newer = join(directory.path, "newer.db");
  await sqliteStore(newer).close();
  const edit = new DatabaseSync(newer);
  edit.exec("PRAGMA user_version = 99");
  edit.close();
  const damaged = join(directory.path, "damaged.db");
  await sqliteStore(damaged).close();
  const damage = new DatabaseSync(damaged);
  damage.exec("DROP TABLE totals");
  damage.close();
  const missing = join(directory.path, "no", "kv.db");
  for (const path of [textFile, foreign, newer, damaged, directory.path, missing]) {
    const before = path === textFile || path === foreign ? await Deno.readFile(path) : null;
    const error = assertThrows(() => sqliteStore(path), StoreUnavailable);
    assert(error.message.startsWith(`Cannot open the store "${path}": `), error.message);
    if (before) assertEquals(await Deno.readFile(path), before);
  }
  const open = await runToEnd("ls", ["-l", `/proc/${Deno.pid}/fd`]); // empty but on Linux
  assert(!open.stdout.includes(directory.path), open.stdout);
});

test(
  "sqliteStore() leaves the log of a file that was moved without it",
  async (path, directory) => {
    await Deno.writeTextFile(`${path}-wal`, "the last writes");
    const wanted = `its log is there without it: move "${path}-wal" to its file, or delete it`;
    assertThrows(() => sqliteStore(path), StoreUnavailable, wanted);
    await Deno.mkdir(join(directory, "links"));
    const link = join(directory, "links", "kv.db");
    await Deno.symlink(path, link);
    assertThrows(() => sqliteStore(link), StoreUnavailable, wanted);
    await Deno.symlink(link, `${link}.2`);
    assertThrows(() => sqliteStore(`${link}.2`), StoreUnavailable, wanted);
    await Deno.create(path).then((file) => file.close());
    assertThrows(() => sqliteStore(path), StoreUnavailable, wanted);
    assertEquals(await Deno.readTextFile(`${path}-wal`), "the last writes");
    assertThrows(() => sqliteStore(directory), StoreUnavailable, "it is not a file");
  },
);

Deno.test("sqliteStore() commits the writes of one turn together", async () => {
  await using store = scoped(sqliteStore(":memory:"));
  const { run } = StatementSync.prototype;
  let commits = 0;
  StatementSync.prototype.run = function (...values) {
    if (this.sourceSQL === "COMMIT") commits++;
    return Reflect.apply(run, this, values);
  };
  try {
    await Promise.all(Array.from({ length: 10 }, async (_, i) => {
      for (let step = 0; step < i; step++) await null;
      await store.set(`k${i}`, json(i));
    }));
  } finally {
    StatementSync.prototype.run = run;
  }
  assertEquals(commits, 1);
});

Deno.test("sqliteStore() reports a failed commit as unknown, and a full disk as full", async () => {
  await using store = scoped(sqliteStore(":memory:"));
  await store.set("a", json(1));
  const { run } = StatementSync.prototype;
  const SQLITE_FULL = 13;
  const SQLITE_IOERR_FSYNC = 1034;
  for (const errcode of [SQLITE_IOERR_FSYNC, SQLITE_FULL]) {
    StatementSync.prototype.run = function (...values) {
      if (this.sourceSQL === "COMMIT") throw Object.assign(new Error("it failed"), { errcode });
      return Reflect.apply(run, this, values);
    };
    try {
      const error = await assertRejects(() => store.set("a", json(2)), Error, "it failed");
      if (errcode === SQLITE_FULL) assertInstanceOf(error, StoreFull);
      else assertEquals((error as StoreUnavailable).outcome, "unknown");
    } finally {
      StatementSync.prototype.run = run;
    }
    assertEquals((await store.get("a"))?.value, "1");
  }
  await store.set("a", json(3));
});

test("sqliteStore() fails its check if the file is damaged so that every call fails", async (path) => {
  await using store = scoped(sqliteStore(path));
  const other = new DatabaseSync(path);
  for (const damage of ["UPDATE totals SET revision = 9223372036854775807", "DELETE FROM totals"]) {
    await store.check();
    other.exec(`CREATE TEMP TABLE kept AS SELECT * FROM totals; ${damage}`);
    for (const call of [() => store.check(), () => store.get("a"), () => store.set("a", json(1))]) {
      assertEquals((await assertRejects(call, StoreUnavailable)).outcome, "unchanged");
    }
    other.exec("DELETE FROM totals; INSERT INTO totals SELECT * FROM kept; DROP TABLE kept");
  }
  other.close();
});

test("sqliteStore() acknowledges no write once its file was deleted or replaced", async (path) => {
  await using store = scoped(sqliteStore(path));
  await store.set("a", json(1));
  for (const file of [path, `${path}-wal`, `${path}-shm`]) {
    await Deno.rename(file, `${file}.moved`);
    for (const put of [() => {}, () => Deno.writeTextFileSync(file, "another file")]) {
      put();
      const write = () => store.set("a", json(2));
      const error = await assertRejects(write, StoreUnavailable, "was deleted or replaced");
      assertEquals(error.outcome, "unchanged");
    }
    await Deno.rename(`${file}.moved`, file);
    await store.set("a", json(3));
  }
});

Deno.test("sqliteStore() opens a link to its file, and notices that the log beside that is gone", async () => {
  await using directory = await temporaryDirectory();
  const [link, file] = [join(directory.path, "link.db"), join(directory.path, "there", "kv.db")];
  await Deno.mkdir(join(directory.path, "there"));
  await Deno.symlink(file, link);
  await using store = scoped(sqliteStore(link));
  await store.set("a", json(1));
  assertEquals((await store.get("a"))?.value, "1");
  await Deno.rename(`${file}-wal`, `${file}.moved`);
  await assertRejects(() => store.set("a", json(2)), StoreUnavailable, "was deleted or replaced");
  await Deno.rename(`${file}.moved`, `${file}-wal`);
});

test(
  "sqliteStore() creates the file that a link in a linked directory leads to",
  async (_, directory) => {
    const real = join(directory, "there", "real");
    await Deno.mkdir(real, { recursive: true });
    await Deno.symlink(real, join(directory, "linked"));
    await Deno.symlink(join("..", "kv.db"), join(real, "link.db"));
    await sqliteStore(join(directory, "linked", "link.db")).close();
    assertEquals((await Deno.stat(join(directory, "there", "kv.db"))).mode, 0o100600);
    await assertRejects(() => Deno.stat(join(directory, "kv.db")), Deno.errors.NotFound);
  },
);

test("sqliteStore() closes when its directory can no longer be read", async (path, directory) => {
  const store = sqliteStore(path);
  await store.set("a", json(1));
  await Deno.rename(directory, `${directory}.moved`);
  await Deno.symlink(directory, directory);
  await assertRejects(() => store.set("a", json(2)), StoreUnavailable, "symbolic links");
  await store.close();
  await Deno.remove(directory);
  await Deno.rename(`${directory}.moved`, directory);
  await using other = scoped(sqliteStore(path));
  assertEquals((await other.get("a"))?.value, "1");
});

test("sqliteStore() opens no file with two names, which would have two logs", async (path) => {
  await using store = scoped(sqliteStore(path));
  await Deno.link(path, `${path}.2`);
  for (const mustExist of [false, true]) {
    for (const name of [path, `${path}.2`]) {
      assertThrows(
        () => sqliteStore(name, { mustExist }),
        StoreUnavailable,
        "keep one, or open a copy",
      );
    }
  }
  await store.set("a", json(1));
  await Deno.remove(`${path}.2`);
  await using other = scoped(sqliteStore(path));
  assertEquals((await other.get("a"))?.value, "1");
});

test("sqliteStore() does not close over the writes of a process with another log", async (path) => {
  const value = json("x".repeat(1000));
  const store = sqliteStore(path);
  for (let i = 0; i < 100; i++) await store.set(`a${i}`, value);
  await Deno.remove(`${path}-shm`);
  const other = async (code: string) => {
    const all = `import { sqliteStore } from "./stores/sqlite/store.ts";
      import { json } from "./stores/json/text.ts";
      const store = sqliteStore(${JSON.stringify(path)}); ${code} await store.close();`;
    return await runToEnd(Deno.execPath(), ["eval", all], { cwd: PROJECT });
  };
  await other("for (let i = 0; i < 300; i++) await store.set(`b${i}`, json('y'.repeat(1000)));");
  await store.close();
  const { stdout, stderr } = await other("console.log(await store.count());");
  assertEquals([stdout, stderr], ["400\n", ""]);
});

test("sqliteStore() serves other calls while another process has locked the file", async (path) => {
  await using store = scoped(sqliteStore(path));
  await store.set("a", json(1));
  const other = new DatabaseSync(path);
  other.exec("BEGIN IMMEDIATE");
  const write = store.set("a", json(2));
  await delay(50);
  assertEquals((await store.get("a"))?.value, "1");
  other.exec("COMMIT");
  assertEquals((await write).value, "2");
  other.close();
});

test("sqliteStore() counts a lifetime from the write, however long that waited for its turn", async (path) => {
  const { now, pass } = testClock();
  await using store = scoped(sqliteStore(path, { now }));
  const other = new DatabaseSync(path);
  other.exec("BEGIN IMMEDIATE");
  const writes = [
    store.set("a", json(1), { ttl: 1 }),
    store.setAll(new Map([["b", json(2)]]), { ttl: 1 }),
  ];
  pass(2);
  other.exec("ROLLBACK");
  other.close();
  await Promise.all(writes);
  for (const key of ["a", "b"]) assertEquals((await store.get(key))?.expires, now() + 1000);
});

test("sqliteStore() lets a process that waits write before its own next turn", async (path) => {
  await using store = scoped(sqliteStore(path));
  const other = new DatabaseSync(path);
  let time = performance.now();
  Object.defineProperty(performance, "now", { value: () => time, configurable: true });
  try {
    other.exec("BEGIN IMMEDIATE");
    const first = store.set("a", json(1));
    await turns();
    other.exec("COMMIT");
    await first;
    time += 50;
    const written: string[] = [];
    const waiting = delay(1).then(() => {
      other.exec("BEGIN IMMEDIATE");
      written.push("other");
      other.exec("COMMIT");
    });
    const second = store.set("a", json(2)).then(() => written.push("store"));
    await Promise.all([waiting, second]);
    assertEquals(written, ["other", "store"]);
    time += 1000; // nobody else has written for long
    const third = store.set("a", json(3));
    await turns();
    const value = other.prepare("SELECT value FROM entries WHERE key = CAST('a' AS BLOB)").get();
    assertEquals(value?.value, "3", "it writes at once");
    await third;
  } finally {
    Reflect.deleteProperty(performance, "now");
  }
  other.close();
});

test("sqliteStore() says that it is unavailable to a check that it was closed under", async (path) => {
  const store = sqliteStore(path);
  const other = new DatabaseSync(path);
  other.exec("BEGIN IMMEDIATE");
  const checking = store.check();
  await store.close();
  assertEquals((await assertRejects(() => checking, StoreUnavailable)).outcome, "unchanged");
  other.close();
});

test("sqliteStore() ends a read that waits for a sync before it closes", async (path) => {
  const [writer, reader] = [sqliteStore(path), sqliteStore(path)];
  let time = performance.now();
  // Every step takes long, so that syncs run in a thread.
  Object.defineProperty(performance, "now", { value: () => time += 2, configurable: true });
  try {
    for (const value of ["1", "2", "3"]) {
      await writer.set("a", json(Number(value)));
      if (value !== "3") assertEquals((await reader.get("a"))?.value, value);
    }
    const reads = ["a", "none", "a"].map((key) => reader.get(key));
    await reader.close();
    assertEquals((await Promise.all(reads)).map((entry) => entry?.value), ["3", undefined, "3"]);
  } finally {
    Reflect.deleteProperty(performance, "now");
  }
  await writer.close();
});

Deno.test("sqliteStore() reads again while the file is locked, and fails at once if it is damaged", async () => {
  await using store = scoped(sqliteStore(":memory:"));
  await store.set("a", json(1));
  const { get } = StatementSync.prototype;
  const SQLITE_BUSY_RECOVERY = 261;
  const SQLITE_CORRUPT = 11;
  for (const [errcode, times] of [[SQLITE_BUSY_RECOVERY, 3], [SQLITE_CORRUPT, 1]] as const) {
    let failures = 0;
    StatementSync.prototype.get = function (...values) {
      if (failures++ < times) throw Object.assign(new Error("it failed"), { errcode });
      return Reflect.apply(get, this, values);
    };
    try {
      if (errcode === SQLITE_CORRUPT) {
        const error = await assertRejects(() => store.get("a"), StoreUnavailable, "it failed");
        assertEquals(error.outcome, "unchanged");
      } else {
        assertEquals((await store.get("a"))?.value, "1");
      }
    } finally {
      StatementSync.prototype.get = get;
    }
  }
});

Deno.test("sqliteStore() answers those who lost before the one who won, so that they come first next", async () => {
  await using store = scoped(sqliteStore(":memory:"));
  const { revision } = await store.set("a", json(0));
  const answered: string[] = [];
  const write = (name: string) =>
    store.set("a", json(name), { ifRevision: revision }).catch(() => {}).then(() => {
      answered.push(name);
    });
  await Promise.all(["won", "lost first", "lost last"].map(write));
  assertEquals(answered, ["lost first", "lost last", "won"]);
});

/** Lets the calls that wait for the next turn of the event loop go on. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

Deno.test("sqliteStore() is a Map with lifetimes, for any calls, pages and transactions", async () => {
  const clock = testClock();
  // Each listing looks at three entries a page, and each transaction has one or two writes.
  const limits = { scanned: 3, transactionBytes: 5000, sweepInterval: 1 };
  await using store = scoped(sqliteStore(":memory:", { now: clock.now, ...limits }));
  const reached = await compareWithMap(store, clock, true);
  for (const [what, times] of Object.entries(reached)) assert(times > 100, `${what}: ${times}`);
});
