/**
 * Every order in which a few calls to one SQLite file, from two processes, can meet the syncs of its
 * log, which end or fail.
 */
import { assert, assertEquals } from "@std/assert";
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { everyOrder, type Order, type Program, type Tried } from "../helpers/orders.ts";
import { json } from "../../stores/json/text.ts";
import { sqliteStore } from "../../stores/sqlite/store.ts";
import { type Commit, Disk, PROCESSES } from "./sqlite_disk.ts";
import { RevisionConflict, type Store, StoreUnavailable } from "../../stores/store.ts";

type Key = "k" | "x";
type Operation = "list" | "watch" | "reopen" | `${"set" | "add" | "delete" | "get"} ${Key}`;
/** A process, and what it does. */
export type Call = `${"a" | "b"} ${Operation}`;

/** Where the files are: each order begins with a new one. */
const MEMORY = existsSync("/dev/shm") ? { dir: "/dev/shm" } : {};
const WRITES = ["set", "add", "delete"];

/** One process: it begins its calls in this order, and waits for none. */
class Client {
  #store: Store;
  #hasFailed = false;
  #isClosed = false;
  #values = 0;
  #waiting = 0;
  /** The keys of the changes that a watch of the open store has reported. */
  #reported: string[] | undefined;
  /** What they have to be, from which one on. */
  #expected: { key: string; from: number }[] = [];
  readonly #unchanged: string[] = [];

  constructor(readonly name: string, readonly disk: Disk, readonly order: Order) {
    this.#store = this.#open();
  }

  #open(): Store {
    this.#hasFailed = false;
    this.#reported = undefined;
    this.#expected = [];
    return this.disk.open(this.name, this.order, () => this.#hasFailed = true);
  }

  /** Offers its calls, one after the other. */
  run(calls: readonly string[], wrong: unknown[]): void {
    const [call, ...others] = calls;
    if (call === undefined) return;
    this.order.add(this.name, call, () => {
      this.#waiting++;
      const done = this.#call(call).catch((error) => wrong.push(error))
        .finally(() => this.#waiting--);
      if (call === "reopen") void done.then(() => this.run(others, wrong));
      else this.run(others, wrong);
    });
  }

  async #call(call: string): Promise<void> {
    const [operation = "", key = ""] = call.split(" ");
    const hadFailed = this.#hasFailed;
    const store = this.#store;
    const value = `"${this.name}${++this.#values}"`;
    try {
      await this.#answered(operation, key, value);
      assert(!hadFailed || !WRITES.includes(operation), `${call} after a sync that failed`);
    } catch (error) {
      if (error instanceof RevisionConflict) {
        const { revision } = error.current ?? {};
        assert(this.disk.revision >= Number(revision), `${call}: a conflict that may vanish`);
        return;
      }
      if (!(error instanceof StoreUnavailable)) throw error;
      const isClosed = this.#isClosed || store !== this.#store;
      assert(this.#hasFailed || isClosed, `${call}: ${error.message}`);
      if (error.outcome === "unchanged") this.#unchanged.push(value);
      else assert(!hadFailed && WRITES.includes(operation), `${call}: ${error.outcome}`);
    }
  }

  async #answered(operation: string, key: string, value: string): Promise<void> {
    const { disk } = this;
    disk.note();
    const { last, kept } = disk;
    const from = this.#reported?.length ?? 0;
    const find = (commit?: Commit) => commit?.values.get(key) ?? null;
    if (operation === "get") {
      const found = (await this.#store.get(key))?.value ?? null;
      assert(disk.keeps(found, last, find), `get: ${found} is not on the disk`);
    } else if (operation === "list") {
      const keysOf = (commit?: Commit) => String([...commit?.values.keys() ?? []].sort());
      const keys = String((await this.#store.list("")).keys);
      assert(disk.keeps(keys, last, keysOf), `list: ${keys} are not on the disk`);
    } else if (operation === "watch") {
      await this.#watch();
    } else if (operation === "reopen") {
      this.#isClosed = true;
      await this.#store.close();
      this.#store = this.#open();
      this.#isClosed = false;
    } else if (operation === "delete") {
      const entry = await this.#store.delete(key);
      const since = disk.commits.slice(kept, disk.kept + 1).map(find);
      assert(entry ? disk.revision > Number(entry.revision) : since.includes(null), "delete");
      if (entry) assert(find(disk.commits[disk.kept]) !== entry.value, "delete");
      if (entry) this.#expected.push({ key, from });
    } else {
      const condition = operation === "add" ? { ifRevision: null } : {};
      const text = json(JSON.parse(value));
      const { revision } = await this.#store.set(key, text, condition);
      assert(disk.revision >= Number(revision), `${operation}: it is not on the disk`);
      this.#expected.push({ key, from });
    }
  }

  async #watch(): Promise<void> {
    const { changes } = await this.#store.watch("");
    this.#waiting--; // it ends with the store
    const reported: string[] = [];
    this.#reported = reported;
    this.#expected = [];
    try {
      for await (const { key, entry } of changes) {
        assert(this.disk.revision >= Number(entry?.revision ?? 0), "watch: not on the disk");
        reported.push(key);
      }
    } finally {
      this.#waiting++;
    }
  }

  check(): void {
    assertEquals(this.#waiting, 0, "each call is answered");
    // A watch ends with an error if it cannot read.
    for (const { key, from } of this.#hasFailed ? [] : this.#expected) {
      assert(this.#reported?.includes(key, from) ?? true, `a change of ${key} was not reported`);
    }
    for (const value of this.#unchanged) {
      const found = this.disk.commits.findIndex(({ values }) =>
        [...values.values()].includes(value)
      );
      assertEquals(found, -1, `${value} is unchanged, and was written`);
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#store.close();
  }
}

/** Starts two processes on a copy of a file. */
function processes(directory: string, asked: readonly Call[]): Program {
  return (order) => {
    const own = Deno.makeTempDirSync({ dir: directory });
    const path = join(own, "kv.db");
    copyFileSync(join(directory, "kv.db"), path);
    const disk = new Disk(path);
    const wrong: unknown[] = [];
    const clients = PROCESSES.map((name) => new Client(name, disk, order));
    for (const client of clients) {
      const calls = asked.filter((it) => it.startsWith(client.name)).map((it) => it.slice(2));
      client.run(calls, wrong);
    }
    return Promise.resolve({
      check() {
        for (const error of wrong) throw error;
        for (const client of clients) client.check();
        return Promise.resolve();
      },
      async end() {
        disk.close();
        for (const client of clients) await client.close();
        await Deno.remove(own, { recursive: true });
      },
    });
  };
}

/** Calls that meet, and how many of their syncs may fail. */
export interface Meeting {
  readonly faults: number;
  readonly asked: readonly Call[];
}

/** All orders of these take some seconds. */
export const MEETINGS: Meeting[] = [
  { faults: 0, asked: ["a set x", "a delete k", "a get k", "b list"] },
  { faults: 0, asked: ["a set x", "a get k", "b delete k"] },
  { faults: 0, asked: ["a set k", "a add k", "b get k"] },
  { faults: 1, asked: ["a set k", "a set x", "b delete k"] },
  { faults: 1, asked: ["a watch", "a set k", "b delete k"] },
  { faults: 1, asked: ["a set k", "a reopen", "a get k", "b get k"] },
];

/** All orders of these take minutes. */
export const LARGE_MEETINGS: Meeting[] = [
  { faults: 0, asked: ["a delete k", "a get k", "a set x", "b get k", "b set k"] },
  { faults: 0, asked: ["a watch", "a set k", "a get k", "b delete k", "b get x"] },
  { faults: 1, asked: ["a add x", "a set k", "b get k", "b set k"] },
  { faults: 2, asked: ["a set k", "a reopen", "a set x", "b list"] },
  { faults: 1, asked: ["a set k", "a reopen", "a get k", "b set k", "b reopen"] },
  { faults: 1, asked: ["a watch", "a set k", "a reopen", "b delete k"] },
];

/** Names a meeting. */
export function nameOf({ faults, asked }: Meeting): string {
  return asked.join(", ") + (faults === 0 ? "" : `, and ${faults} of the syncs may fail`);
}

/** Runs all orders of a meeting. The file has one entry before. */
export async function meet({ faults, asked }: Meeting): Promise<Tried> {
  const directory = await Deno.makeTempDir(MEMORY);
  try {
    const store = sqliteStore(join(directory, "kv.db"), { now: () => 0 });
    await store.set("k", json("first"));
    await store.close();
    return await everyOrder(processes(directory, asked), { faults });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
