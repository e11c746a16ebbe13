/**
 * A process on a disk that keeps what was synced (`disk.c`). It writes to a store, or reads what
 * another process writes there. At each answer it takes what is on the disk, and notes what it was
 * told, as JSON on standard output:
 *
 *     deno run -A disk_client.ts write|read FILE COPIES TAKEN
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { json } from "../../stores/json/text.ts";
import { sqliteStore } from "../../stores/sqlite/store.ts";
import { type Entry, RevisionConflict } from "../../stores/store.ts";

/** What an answer has told: that a key's number is at least so large, or that the key is gone. */
export interface Told {
  call: string;
  key: string;
  number: number | null;
  /** The directory with what was on the disk then. */
  disk: string;
}

const ROUNDS = 50;
/** Makes the log so long that SQLite copies it into the file, and begins it again. */
const FILLER = "x".repeat(10_000);

const [role = "", file = "", copies = "", taken = ""] = Deno.args;
/** There once the reader has read so often. */
const enough = join(taken, "enough");
const READS = 20;
const skips = Deno.env.get("DISK_SKIPS");
const store = sqliteStore(file);
const told: Told[] = [];

function tell(call: string, key: string, number: number | null): void {
  told.push({ call, key, number, disk: take() });
}

function tellEntry(call: string, key: string, entry: Entry | null): void {
  if (entry === null) tell(call, key, null);
  // One that is told may be removed before the disk is looked at.
  else if (!key.startsWith("gone")) tell(call, key, JSON.parse(entry.value).number);
}

/** Links to the copies, which are replaced but never changed: perhaps by another process just now. */
function take(): string {
  for (;;) {
    let disk: string | undefined;
    try {
      const name = `${role}-${inodes(copies)}`;
      if (told.at(-1)?.disk === join(taken, name)) return join(taken, name);
      disk = join(taken, name);
      Deno.mkdirSync(disk);
      for (const part of ["kv.db", "kv.db-wal"]) {
        Deno.linkSync(join(copies, part), join(disk, part));
      }
      if (name === `${role}-${inodes(disk)}`) return disk;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    if (disk !== undefined) Deno.removeSync(disk, { recursive: true });
  }
}

function inodes(directory: string): string {
  return ["kv.db", "kv.db-wal"].map((part) => Deno.statSync(join(directory, part)).ino).join("-");
}

async function read(): Promise<void> {
  for (const key of ["a", "b", "c"]) tellEntry("get", key, await store.get(key));
  const { keys } = await store.list("new");
  const last = keys.at(-1);
  if (last !== undefined) tell("list", last, 0);
  tell("count", "", await store.count?.() ?? 0);
  const [gone] = (await store.list("gone")).keys;
  if (gone !== undefined) tellEntry("get", gone, await store.get(gone));
}

async function write(round: number): Promise<void> {
  const [value, gone] = [json({ number: round, FILLER }), `gone${round}`];
  const set = async (key: string) => tellEntry("set", key, await store.set(key, value));
  await Promise.all([
    ...["a", "b", "c", `new${1000 + round}`, `new${1000 + round}b`].map(set),
    store.setAll(new Map([["d", value], ["e", value]])).then(() => tell("setAll", "e", round)),
    store.set("a", value, { ifRevision: "0" }).catch((error) => {
      if (!(error instanceof RevisionConflict)) throw error;
      tellEntry("conflict", "a", error.current);
    }),
    delay(1).then(read),
  ]);
  await Promise.all([
    store.delete(gone).then(() => tell("delete", gone, null)),
    delay(1).then(async () => tellEntry("get", gone, await store.get(gone))).then(read),
  ]);
}

/** Tells the changes until the store is closed. */
async function watch(): Promise<void> {
  const { changes } = await store.watch("");
  for await (const { key, entry } of changes) tellEntry("watch", key, entry);
}

if (role === "write") {
  const gone = Array.from({ length: ROUNDS + 1 }, (_, round) => `gone${round}`);
  await store.setAll(new Map(gone.map((key) => [key, json(key)])));
  await write(0);
  if (skips !== undefined) Deno.writeTextFileSync(skips, "");
  const watching = watch();
  for (let round = 1; round <= ROUNDS || !existsSync(enough); round++) await write(round);
  await store.set("done", json(1));
  await Promise.all([watching, store.close()]);
} else {
  while (await store.get("a") === null) await delay(1);
  let reads = 0;
  for (let done = false; !done; await delay(1)) {
    done = await store.get("done") !== null;
    await read();
    if (++reads === READS) Deno.writeTextFileSync(enough, "");
  }
  await store.close();
}
console.log(JSON.stringify(told));
