/**
 * What a large SQLite file costs: one of many keys beside an empty one, each opened by a process of
 * its own. `deno run -A bench/sqlite.ts FILE KEYS` is such a process.
 */
import { join } from "node:path";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { json } from "../stores/json/text.ts";
import { MAX_PAGE, type Store } from "../stores/store.ts";
import { temporaryDirectory } from "../tests/helpers/programs.ts";
import { type Options, progress, whole } from "./load.ts";
import { table } from "./tables.ts";

/** A file of `options.keys` keys beside an empty one. */
export async function sqlite({ keys }: Options): Promise<string> {
  await using directory = await temporaryDirectory();
  const [full, empty] = [join(directory.path, "full.db"), join(directory.path, "empty.db")];
  const store = sqliteStore(full);
  await fill(store, keys);
  await store.close();
  await sqliteStore(empty).close();
  const { size } = await Deno.stat(full);
  const columns = [await measured(empty, keys), await measured(full, keys)];
  const rows = Object.keys(columns[0] ?? {}).map((name) => [
    name,
    ...columns.map((column) => column[name] ?? ""),
  ]);
  return table(["", "Empty", `${whole(keys)} keys, ${whole(size / 2 ** 20)} MiB`], rows);
}

async function measured(file: string, keys: number): Promise<Record<string, string>> {
  progress(`measuring ${file}`);
  const args = ["run", "--allow-all", import.meta.filename ?? "", file, String(keys)];
  const { stdout } = await new Deno.Command(Deno.execPath(), { args, stderr: "inherit" }).output();
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Writes `key0`, `key1` and so on. */
export async function fill(
  store: Store,
  keys: number,
  value: (n: number) => unknown = (count) => ({ count }),
): Promise<void> {
  for (let i = 0; i < keys; i += MAX_PAGE) {
    const page = Array.from({ length: Math.min(MAX_PAGE, keys - i) }, (_, j) => i + j);
    await store.setAll(new Map(page.map((n) => [`key${n}`, json(value(n))])));
  }
}

async function measure(file: string, size: number): Promise<Record<string, string>> {
  const count = Math.ceil(size / 100);
  const before = memory();
  const start = performance.now();
  const store = sqliteStore(file);
  await store.get("key0");
  const opened = performance.now() - start;
  const after = memory();

  let keys = 0;
  let most = 0;
  let cursor: string | undefined;
  do {
    const page = await store.list("", { after: cursor });
    keys += page.keys.length;
    most = Math.max(most, memory());
    cursor = page.next ?? undefined;
  } while (cursor !== undefined);

  const reads = await perSecond(count, async () => {
    for (let i = 0; i < count; i++) await store.get(`key${(i * 7919) % Math.max(keys, 1)}`);
  });
  const alone = await perSecond(count, async () => {
    for (let i = 0; i < count; i++) await store.set(`new${i}`, json(i));
  });
  const together = await perSecond(count, async () => {
    const numbers = Array.from({ length: count }, (_, i) => i);
    await Promise.all(numbers.map((i) => store.set(`new${i}`, json(i))));
  });
  await store.close();
  return {
    "open and read one entry, ms": opened.toFixed(1),
    "memory before, MiB": String(before),
    "memory after, MiB": String(after),
    "most memory while listing all keys, MiB": String(most),
    "reads a second, one by one": whole(reads),
    "synced writes a second, one by one": whole(alone),
    "synced writes a second, at once": whole(together),
  };
}

async function perSecond(count: number, run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await run();
  return count / (performance.now() - start) * 1000;
}

/** The memory of this process, in MiB. */
function memory(): number {
  return Math.round(Deno.memoryUsage().rss / 2 ** 20);
}

if (import.meta.main) {
  console.log(JSON.stringify(await measure(Deno.args[0] ?? "", Number(Deno.args[1]))));
}
