/** SQLite files whose process is killed, whose disk is full, or that another process has open. */
import {
  assert,
  assertEquals,
  AssertionError,
  assertMatch,
  assertNotMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { httpStore } from "../../stores/http/store.ts";
import { json } from "../../stores/json/text.ts";
import { sqliteStore } from "../../stores/sqlite/store.ts";
import { RevisionConflict, type Store, StoreFull, StoreUnavailable } from "../../stores/store.ts";
import { runToEnd, startScript, temporaryDirectory, testWith } from "../helpers/programs.ts";
import { allPages } from "../conformance/store.ts";

const KILLS = 10;
const WRITERS = 8;
/** Acknowledged writes before the process is killed. */
const WRITES = 100;

/** kv.ts over a file, and a client of it. Leaving the scope stops both. */
async function serve(file: string) {
  const program = startScript("kv.ts", [], { env: { PORT: "0", DBM: file } });
  const [, port] = await program.printed(/kv: http\S+:(\d+)/);
  const url = `http://127.0.0.1:${port}`;
  const store = httpStore(url);
  const stop = async () => {
    await program.stop();
    await store.close();
  };
  return { program, store, health: () => healthOf(url), [Symbol.asyncDispose]: stop };
}

async function healthOf(url: string): Promise<number> {
  const { status, body } = await fetch(`${url}/?health`);
  await body?.cancel();
  return status;
}

/** What a writer knows about its key. */
interface Known {
  key: string;
  acknowledged: number;
  sent: number;
  revisions: Set<string>;
}

/** Writes 1, 2, 3 … under a key until the service is gone. */
async function count(store: Store, known: Known, acknowledge: () => void): Promise<void> {
  for (;;) {
    known.sent++;
    try {
      const { revision } = await store.set(known.key, json(known.sent));
      assert(!known.revisions.has(revision), `the revision ${revision} was used before`);
      known.revisions.add(revision);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      return;
    }
    known.acknowledged = known.sent;
    acknowledge();
  }
}

Deno.test(`kv.ts loses no acknowledged write, killed ${KILLS} times while writing`, async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "kv.db");
  const writers: Known[] = Array.from(
    { length: WRITERS },
    (_, i) => ({ key: `writer${i}`, acknowledged: 0, sent: 0, revisions: new Set() }),
  );
  for (let round = 0; round < KILLS; round++) {
    await using service = await serve(file);
    const { program, store } = service;
    for (const known of writers) {
      const entry = await store.get(known.key);
      const value = Number(entry?.value ?? 0);
      const { key, acknowledged, sent } = known;
      assert(value >= acknowledged && value <= sent, `${key}: ${value}, not ${acknowledged}`);
      if (entry && value > acknowledged) {
        assert(!known.revisions.has(entry.revision), `${entry.revision} was used before`);
      }
      known.revisions.add(entry?.revision ?? "");
    }
    const enough = Promise.withResolvers<void>();
    let writes = 0;
    const acknowledge = () => ++writes === WRITES && enough.resolve();
    const ends = writers.map((known) => count(store, known, acknowledge));
    await Promise.race([enough.promise, Promise.all(ends)]);
    await program.stop("SIGKILL");
    await Promise.all(ends);
  }
});

Deno.test("httpStore() reports no write as unchanged that is in the file, killed 8 times under 40 writers", async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "kv.db");
  const ends: Record<"done" | "unchanged" | "unknown", string[]> = {
    done: [],
    unchanged: [],
    unknown: [],
  };
  for (let round = 0; round < 8; round++) {
    await using service = await serve(file);
    const { program, store } = service;
    const enough = Promise.withResolvers<void>();
    const writers = Array.from({ length: 40 }, async (_, writer) => {
      for (let n = 0, failures = 0; failures < 3; n++) {
        const key = `${round}-${writer}-${n}`;
        const error = await store.set(key, json(n)).then(() => null, (error) => error);
        if (error === null) ends.done.push(key);
        else if (error instanceof StoreUnavailable) ends[error.outcome].push(key);
        else throw error;
        if (error !== null) failures++;
        if (ends.done.length === (round + 1) * 1000) enough.resolve();
      }
    });
    await Promise.race([enough.promise, Promise.all(writers)]);
    // At any moment: as an answer comes, the service has nothing to do.
    await delay(20 * Math.random());
    await program.stop("SIGKILL");
    await Promise.all(writers);
  }
  await using service = await serve(file);
  const stored = new Set((await allPages(service.store, "")).flat());
  assertEquals(ends.unchanged.filter((key) => stored.has(key)), []);
  assertEquals(ends.done.filter((key) => !stored.has(key)), []);
  assert(ends.unchanged.length > 0 && ends.unknown.length > 0, `${ends.unknown.length} unknown`);
});

Deno.test("kv.ts in two processes on one file loses no update", async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "kv.db");
  await using first = await serve(file);
  await using second = await serve(file);
  const add = async (store: Store) => {
    for (;;) {
      const entry = await store.get("count");
      try {
        const value = json(Number(entry?.value ?? 0) + 1);
        await store.set("count", value, { ifRevision: entry?.revision ?? null });
        return;
      } catch (error) {
        if (!(error instanceof RevisionConflict)) throw error;
      }
    }
  };
  await Promise.all([first, second].flatMap(({ store }) =>
    Array.from({ length: 4 }, async () => {
      for (let i = 0; i < 25; i++) await add(store);
    })
  ));
  assertEquals((await first.store.get("count"))?.value, "200");
});

/** A file system of 4 MiB in memory. */
async function withSmallDisk(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  const mount = await runToEnd("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", directory]);
  assertEquals(mount.code, 0, mount.stderr);
  try {
    await use(directory);
  } finally {
    const unmount = await runToEnd("umount", ["--lazy", directory]);
    assertEquals(unmount.code, 0, unmount.stderr);
    await Deno.remove(directory);
  }
}

const canMount = Deno.uid() === 0 ? ["mount", "umount"] : ["root's rights"];

testWith(
  canMount,
  "kv.ts on a full disk keeps what it has, and writes again once there is room",
  () =>
    withSmallDisk(async (directory) => {
      const filler = join(directory, "filler");
      await Deno.writeFile(filler, new Uint8Array(1024 * 1024));
      await using service = await serve(join(directory, "kv.db"));
      const { program, store, health } = service;
      assertEquals(await health(), 200);
      const value = (size = 64 * 1024) => json(randomBytes(size).toString("base64"));
      const kept = new Map<string, string>();
      let full: unknown;
      for (let i = 0; i < 100 && full === undefined; i++) {
        const written = value();
        try {
          await store.set(`key${i}`, written);
          kept.set(`key${i}`, written);
        } catch (error) {
          full = error;
        }
      }
      assert(full instanceof StoreFull, `${full}: ${program.output}`);
      assert(kept.size > 5, `${kept.size} values fitted`);
      await assertRejects(() => store.set("key0", value(128 * 1024)), StoreFull);
      for (const [key, written] of kept) assertEquals((await store.get(key))?.value, written);
      assertEquals((await store.list("")).keys.length, kept.size);
      for (let i = 0; i < 20; i++) assertEquals(await health(), 507);
      await assertRejects(() => store.check(), StoreFull);

      await Deno.remove(filler);
      await store.set("again", json(1));
      assertEquals((await store.get("again"))?.value, "1");
      assertEquals(await health(), 200);
      await store.check();
      assertEquals(await program.stop(), 0);
    }),
);

testWith(
  canMount,
  "a store says that the disk is too full to open it",
  () =>
    withSmallDisk(async (directory) => {
      const [kept, fresh] = ["kept.db", "fresh.db"].map((name) => join(directory, name));
      await sqliteStore(kept ?? "").close();
      const filler = await Deno.create(join(directory, "filler"));
      let written = 1;
      while (written > 0) written = await filler.write(new Uint8Array(4096)).catch(() => 0);
      for (const room of [0, 4096]) {
        await filler.truncate((await filler.stat()).size - room);
        for (const path of [kept, fresh]) {
          const error = assertThrows(() => sqliteStore(path ?? ""), StoreUnavailable);
          assertMatch(error.message, /disk is full$|: is the disk full\? A store needs 64 KiB/);
        }
      }
      filler.close();
      await Deno.remove(join(directory, "filler"));
      await sqliteStore(kept ?? "").close();
    }),
);

testWith(
  canMount,
  "kv.ts says that its file cannot be written to",
  () =>
    withSmallDisk(async (directory) => {
      const file = join(directory, "kv.db");
      await Deno.writeFile(file, new Uint8Array());
      await runToEnd("mount", ["-o", "remount,ro", directory]);
      const program = startScript("kv.ts", [], { env: { PORT: "0", DBM: file } });
      assertEquals(await program.exited, 1);
      assertMatch(program.output, /^kv: Cannot open the store ".*kv\.db": .*(readonly|read-only)/);
      assertNotMatch(program.output, / at /);
    }),
);

testWith(
  canMount,
  "kv.ts does not start on a store that it may not write to, and dump.ts reads it",
  () =>
    withSmallDisk(async (directory) => {
      const file = join(directory, "kv.db");
      const made = sqliteStore(file);
      await made.set("a", json(1));
      await made.close();
      // The directory stays writable, and root may write to any file that is not mounted.
      await runToEnd("mount", ["--bind", "-o", "ro", file, file]);
      await using program = startScript("kv.ts", [], { env: { PORT: "0", DBM: file } });
      const [said] = await program.printed(/^kv: .*\n/);
      assertMatch(
        said,
        /^kv: Cannot open the store ".*kv\.db": .*readonly.*: may this user write it/,
      );
      assertEquals(await program.exited, 1);
      const dump = await runToEnd(Deno.execPath(), ["run", "-A", "dump.ts", file]);
      assertEquals(dump, { code: 0, stdout: '{"a": 1}\n', stderr: "" });
    }),
);
