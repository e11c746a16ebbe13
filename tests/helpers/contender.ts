/** A worker that raises one number in a SQLite store, by compare-and-swap, until its time is over. */
import { json } from "../../stores/json/text.ts";
import { sqliteStore } from "../../stores/sqlite/store.ts";
import { RevisionConflict } from "../../stores/store.ts";

/** What a contender is told. */
export interface Contest {
  path: string;
  milliseconds: number;
}

/** What it reports. */
export interface Score {
  updates: number;
  /** The longest update, in milliseconds. */
  longest: number;
}

if (self.name === "contender") {
  self.addEventListener("message", async (event) => {
    const { path, milliseconds }: Contest = (event as MessageEvent).data;
    const store = sqliteStore(path);
    const score: Score = { updates: 0, longest: 0 };
    let entry = await store.get("count");
    const end = performance.now() + milliseconds;
    while (performance.now() < end) {
      const start = performance.now();
      for (;;) {
        try {
          const next = json(Number(entry?.value ?? 0) + 1);
          entry = await store.set("count", next, { ifRevision: entry?.revision ?? null });
          break;
        } catch (error) {
          if (!(error instanceof RevisionConflict)) throw error;
          entry = error.current;
        }
      }
      score.updates++;
      score.longest = Math.max(score.longest, performance.now() - start);
    }
    await store.close();
    (self as unknown as Worker).postMessage(score);
  });
}
