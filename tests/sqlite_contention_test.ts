/** One key of a SQLite file that several processes change all the time, here as threads. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { sqliteStore } from "../stores/sqlite/store.ts";
import type { Score } from "./helpers/contender.ts";
import { temporaryDirectory } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";

for (const contenders of [2, 4, 8]) {
  Deno.test(`sqliteStore() gives each of ${contenders} writers of one key its share`, async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "kv.db");
    await using store = scoped(sqliteStore(path));
    const url = import.meta.resolve("./helpers/contender.ts");
    const workers = Array.from(
      { length: contenders },
      () => new Worker(url, { type: "module", name: "contender" }),
    );
    const scores = await Promise.all(workers.map((worker) => {
      const score = new Promise<Score>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
      });
      worker.postMessage({ path, milliseconds: 3000 });
      return score;
    }));
    const total = scores.reduce((sum, { updates }) => sum + updates, 0);
    const least = Math.min(...scores.map(({ updates }) => updates));
    const longest = Math.max(...scores.map(({ longest }) => longest));
    console.log(`${total} updates, the least ${least}, the longest ${longest.toFixed()} ms`);
    assertEquals((await store.get("count"))?.value, String(total), "no update is lost");
    // Half of the share and more on a quiet machine. On one with eight times the load that it has
    // processors for, it depends on who gets one.
    assert(least >= total / contenders / 10, JSON.stringify(scores));
    for (const worker of workers) worker.terminate();
  });
}
