/** What moving a service costs: the dump of one `kv.ts` piped into another. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { NDJSON } from "../kv/dumps.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { memory, type Options, type Started, whole } from "./load.ts";
import { Servers } from "./servers.ts";
import { fill } from "./sqlite.ts";
import { table } from "./tables.ts";

/**
 * Moves `options.keys` keys from one SQLite file to another, each served by a process of its own.
 *
 * @throws {Error} If the two differ in the end
 */
export async function dump({ keys }: Options): Promise<string> {
  await using servers = new Servers();
  const directory = await servers.directory();
  const full = join(directory, "full.db");
  const store = sqliteStore(full);
  await fill(store, keys, (count) => ({ count, user: crypto.randomUUID() }));
  await store.close();
  const from = await servers.kv(full);
  const to = await servers.kv(join(directory, "copy.db"));
  const before = [from, to].map((server) => memory(server.pids[0] ?? 0).now);

  const start = performance.now();
  const { body } = await dumpOf(from);
  const headers = { "Content-Type": NDJSON };
  const { restored } = await (await fetch(to.url, { method: "POST", body, headers })).json();
  const seconds = (performance.now() - start) / 1000;

  const peaks = [from, to].map((server) => memory(server.pids[0] ?? 0).peak);
  if (await digest(from) !== await digest(to)) throw new Error("The copy differs");
  return table(["", `${whole(restored)} keys`], [
    ["keys moved a second", whole(restored / seconds)],
    ["memory of either before, MiB", Math.max(...before)],
    ["most memory while dumping, MiB", peaks[0] ?? ""],
    ["most memory while restoring, MiB", peaks[1] ?? ""],
  ]);
}

async function dumpOf({ url }: Started): Promise<Response> {
  return await fetch(url, { headers: { Accept: NDJSON } });
}

async function digest(server: Started): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of (await dumpOf(server)).body ?? []) hash.update(chunk);
  return hash.digest("hex");
}
