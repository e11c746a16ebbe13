/**
 * What a large SQLite file costs: `deno run --allow-all bench/sqlite.ts [keys]`.
 *
 * Fills a file (by default with 1,000,000 keys), then opens it and an empty one, each in a process
 * of its own, and prints for both how long opening takes, what the memory is, and how it grows while
 * all keys are listed and many are read. What a cache would have to ask at each read, whether another
 * process has written, is measured beside. Then writes one by one and at once, for what gathering
 * the writes of a turn into one transaction gains.
 */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { sqliteStore } from "../stores/sqlite.ts";
import { json } from "../stores/json_text.ts";
import { MAX_PAGE, type Store } from "../stores/store.ts";

const READS = 100_000;
const WRITES = 2_000;

const [argument = "1000000", path] = Deno.args;
if (argument === "measure") await measure(path ?? "");
else await compare(Number(argument));

async function compare(keys: number): Promise<void> {
  const directory = await Deno.makeTempDir();
  const [full, empty] = [join(directory, "full.db"), join(directory, "empty.db")];
  const store = sqliteStore(full);
  const filled = await time(() => fill(store, keys));
  await store.close();
  await sqliteStore(empty).close();
  const size = (await Deno.stat(full)).size / 2 ** 20;
  console.log(`${keys} keys, ${size.toFixed(0)} MiB, written in ${filled.toFixed(0)} ms`);

  for (const [name, file] of [["empty", empty], [`${keys} keys`, full]]) {
    console.log(`\n${name}`);
    const measuring = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", import.meta.filename ?? "", "measure", file ?? ""],
      stdout: "inherit",
    });
    await measuring.output();
  }
  await Deno.remove(directory, { recursive: true });
}

async function fill(store: Store, keys: number): Promise<void> {
  for (let i = 0; i < keys; i += MAX_PAGE) {
    const page = Array.from({ length: Math.min(MAX_PAGE, keys - i) }, (_, j) => i + j);
    await store.setAll(new Map(page.map((n) => [`key${n}`, json({ count: n })])));
  }
}

async function measure(file: string): Promise<void> {
  const before = memory();
  let store = sqliteStore(":memory:");
  const opened = await time(async () => void (store = sqliteStore(file)));
  report("open and read one", `${(opened + await time(() => store.get("key0"))).toFixed(1)} ms`);
  report("memory before, and then", `${before} MiB, ${memory()} MiB`);

  let keys = 0;
  let most = 0;
  const listed = await time(async () => {
    let after: string | undefined;
    do {
      const page = await store.list("", { after });
      keys += page.keys.length;
      most = Math.max(most, memory());
      after = page.next ?? undefined;
    } while (after !== undefined);
  });
  report("list all", `${keys} keys in ${listed.toFixed(0)} ms, at most ${most} MiB`);

  const read = await time(async () => {
    for (let i = 0; i < READS; i++) await store.get(`key${(i * 7919) % Math.max(keys, 1)}`);
  });
  report("read, one by one", `${perSecond(READS, read)} a second, then ${memory()} MiB`);

  const database = new DatabaseSync(file);
  const version = database.prepare("PRAGMA data_version");
  const asked = await time(async () => {
    for (let i = 0; i < READS; i++) version.get();
  });
  database.close();
  report("ask whether it changed", `${perSecond(READS, asked)} a second: ${ratio(read, asked)}`);

  const alone = await time(async () => {
    for (let i = 0; i < WRITES; i++) await store.set(`new${i}`, json(i));
  });
  const together = await time(async () => {
    const numbers = Array.from({ length: WRITES }, (_, i) => i);
    await Promise.all(numbers.map((i) => store.set(`new${i}`, json(i))));
  });
  report("write, one by one", `${perSecond(WRITES, alone)} a second`);
  report("write, at once", `${perSecond(WRITES, together)} a second: ${ratio(alone, together)}`);
  await store.close();
}

async function time(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

/** The memory of this process, in MiB. */
function memory(): number {
  return Math.round(Deno.memoryUsage().rss / 2 ** 20);
}

function perSecond(count: number, milliseconds: number): number {
  return Math.round(count / milliseconds * 1000);
}

function ratio(slow: number, fast: number): string {
  return `${(slow / fast).toFixed(1)} times as many`;
}

function report(what: string, figure: string): void {
  console.log(`  ${what.padEnd(24)} ${figure}`);
}
