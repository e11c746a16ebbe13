/** SQLite files on disks that are slow, whose power is cut, or that fail. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { httpStore } from "../stores/http/store.ts";
import { json } from "../stores/json/text.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { StoreUnavailable } from "../stores/store.ts";
import { DISK, disk, type DiskOptions } from "./helpers/disk.ts";
import type { Told } from "./helpers/disk_client.ts";
import {
  PROJECT,
  runToEnd,
  startScript,
  temporaryDirectory,
  testWith,
} from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";

const WRITER = ["set", "setAll", "delete", "conflict", "get", "list", "count", "watch"];
const READER = ["get", "list", "count"];

/** Runs two processes on one file, one that writes and one that reads, and returns what they were told. */
async function runOnDisk(directory: string, options: DiskOptions): Promise<[Told[], Told[]]> {
  await using made = await disk();
  const [copies, taken] = ["copies", "taken"].map((name) => join(directory, name)) as [
    string,
    string,
  ];
  for (const path of [copies, taken]) await Deno.mkdir(path);
  const script = join(PROJECT, "tests/helpers/disk_client.ts");
  const run = async (role: string): Promise<Told[]> => {
    const args = [role, join(directory, "kv.db"), copies, taken];
    const env = made.env({ DISK_COPIES: copies, ...options });
    const { stdout, stderr } = await runToEnd(Deno.execPath(), ["run", "-A", script, ...args], {
      env,
    });
    assertEquals(stderr, "");
    return JSON.parse(stdout);
  };
  return await Promise.all([run("write"), run("read")]);
}

/** Returns what was told and is not on the disk as it was then. */
function findLost(told: Told[]): Told[] {
  return [...Map.groupBy(told, (one) => one.disk)].flatMap(([path, answers]) => {
    const database = new DatabaseSync(join(path, "kv.db"), { readOnly: true });
    const count = database.prepare("SELECT count FROM totals").get()?.count as number;
    const select = database.prepare("SELECT value FROM entries WHERE key = ?");
    const lost = answers.filter(({ call, key, number }) => {
      // An entry that another call has removed meanwhile may be counted.
      if (call === "count") return count < (number ?? 0) - 1;
      const row = select.get(Buffer.from(key));
      if (row === undefined || number === null) return (row ?? null) !== number;
      return JSON.parse(row.value as string).number < number;
    });
    database.close();
    return lost;
  });
}

for (const delay of ["0", "4"]) {
  testWith(
    DISK,
    `sqliteStore() answers what is on a disk whose syncs take ${delay} ms more`,
    async () => {
      await using directory = await temporaryDirectory();
      const clients = await runOnDisk(directory.path, { DISK_DELAY: delay });
      for (const [i, calls] of [WRITER, READER].entries()) {
        const told = clients[i] ?? [];
        assertEquals(findLost(told), []);
        for (const call of calls) {
          const count = told.filter((one) => one.call === call).length;
          assert(count >= 20, `only ${count} answers to ${call}`);
        }
      }
    },
  );
}

testWith(DISK, "a disk that skips syncs loses what sqliteStore() has answered", async () => {
  await using directory = await temporaryDirectory();
  const skips = join(directory.path, "skips");
  const [written, read] = await runOnDisk(directory.path, { DISK_SKIPS: skips });
  for (const call of WRITER) assert(findLost(written).some((lost) => lost.call === call), call);
  for (const call of READER) assert(findLost(read).some((lost) => lost.call === call), call);
});

Deno.test("sqliteStore() writes a log again that it finds: a sync of it may have failed", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "kv.db");
  const left = join(directory.path, "left.db");
  const store = sqliteStore(path);
  await store.set("a", json(1));
  for (const suffix of ["", "-wal"]) await Deno.copyFile(path + suffix, left + suffix);
  await store.close();

  const log = await Deno.readFile(`${left}-wal`);
  await Deno.utime(`${left}-wal`, 0, 0);
  await using reopened = scoped(sqliteStore(left));
  const { mtime } = await Deno.stat(`${left}-wal`);
  assert(mtime !== null && mtime.getTime() > 0);
  assertEquals(await Deno.readFile(`${left}-wal`), log);
  assertEquals((await reopened.get("a"))?.value, "1");
});

// The clock stands still, or was set back: revisions are then counted from the last one of the file.
Deno.test("sqliteStore() syncs a removal whose revision one of its own would have had", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "kv.db");
  let ticks = Infinity;
  const now = () => {
    if (ticks-- === 0) throw new Error("broken");
    return 0;
  };
  let syncs = 0;
  const sync = () => Promise.resolve(void syncs++);
  await using store = scoped(sqliteStore(path, { now, sync }));
  await store.set("k", json(1), { ttl: 60 });
  // The fourth look at the clock, in the second write, fails both: the first one has got a revision.
  ticks = 3;
  const writes = [store.set("x", json(1)), store.set("k", json(2))];
  for (const write of writes) await assertRejects(() => write, StoreUnavailable, "broken");
  ticks = Infinity;
  const committed = Promise.withResolvers<void>();
  const slow = Promise.withResolvers<void>();
  const other = sqliteStore(path, {
    now: () => 0,
    sync: () => (committed.resolve(), slow.promise),
  });
  const removal = other.delete("k");
  await committed.promise;
  const before = syncs;
  assertEquals(await store.get("k"), null);
  assertEquals(syncs, before + 1);
  slow.resolve();
  await removal;
  await other.close();
});

Deno.test("sqliteStore() logs a sweep that fails", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "kv.db");
  let time = 0;
  const sync = () => time === 0 ? Promise.resolve() : Promise.reject(new Error("EIO"));
  const store = sqliteStore(path, { now: () => time, sync, sweepInterval: 1 });
  await store.set("a", json(1), { ttl: 60 });
  const { error } = console;
  const message = await new Promise<string>((resolve, reject) => {
    // The store's own timer does not keep the program alive.
    const timer = setTimeout(reject, 60_000);
    console.error = (text) => (clearTimeout(timer), resolve(text));
    time = 60_000;
  });
  console.error = error;
  await store.close();
  assertMatch(message, /^sqlite: cannot sweep ".*kv\.db": .*EIO/);
});

/** kv.ts, and a client of it. Leaving the scope stops both. */
async function serve(env: Record<string, string>) {
  const program = startScript("kv.ts", [], { env: { PORT: "0", ...env } });
  const [, port] = await program.printed(/kv: http\S+:(\d+)/);
  const url = `http://127.0.0.1:${port}`;
  const store = httpStore(url);
  const stop = async () => {
    await store.close();
    assertEquals(await program.stop(), 0, program.output);
  };
  return { program, url, store, [Symbol.asyncDispose]: stop };
}

testWith(
  DISK,
  "kv.ts writes no more after a sync that failed, until it is started again",
  async () => {
    await using made = await disk();
    await using directory = await temporaryDirectory();
    const DISK_FAILS = join(directory.path, "fails");
    const DBM = join(directory.path, "kv.db");
    {
      await using service = await serve({ DBM, ...made.env({ DISK_FAILS }) });
      const { program, url, store } = service;
      await store.set("kept", json(1));
      await store.set("removed", json(1));
      const outcomeOf = async (write: Promise<unknown>) =>
        (await assertRejects(() => write, StoreUnavailable)).outcome;

      await Deno.writeTextFile(DISK_FAILS, "");
      const unknown = [store.set("added", json(1)), store.delete("removed")].map(outcomeOf);
      assertEquals(await Promise.all(unknown), ["unknown", "unknown"]);
      await Deno.remove(DISK_FAILS);
      assertEquals(await outcomeOf(store.set("other", json(1))), "unchanged");
      assertMatch(program.output, /Cannot write ".*kv\.db": a sync failed \(.+\): restart/);
      assertEquals((await store.get("kept"))?.value, "1");
      const health = await fetch(`${url}/?health`);
      await health.body?.cancel();
      assertEquals(health.status, 503);
      for (const key of ["added", "removed"]) {
        await assertRejects(() => store.get(key), StoreUnavailable, "503");
      }
      await assertRejects(() => store.list(""), StoreUnavailable, "503");
    }
    await using service = await serve({ DBM });
    await service.store.set("other", json(2));
    assertEquals((await service.store.get("other"))?.value, "2");
  },
);
