/** One task after the other for each key, beside a list of the tasks of each key. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { KeyedQueue } from "../sessions/keyed_queue.ts";
import { StoreUnavailable } from "../stores/store.ts";

const KEYS = ["a", "b", "c"];
const MOST = 4;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Begins a task, or ends one that runs. */
const step = fc.record({
  key: fc.constantFrom(...KEYS),
  ends: fc.constantFrom(null, null, "done", "failed", "unavailable"),
});

Deno.test("KeyedQueue runs the tasks of a key in order, for any tasks and ends", async () => {
  const happened = {
    waited: 0,
    "beside others": 0,
    "failed together": 0,
    "after a failure": 0,
    refused: 0,
  };
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: "max" }), async (steps) => {
      const queue = new KeyedQueue(MOST);
      const error = new StoreUnavailable("gone", { outcome: "unchanged" });
      /** The tasks of each key that are not over: the first one runs. */
      const tasks = new Map(KEYS.map((key): [string, number[]] => [key, []]));
      const running = new Map<number, PromiseWithResolvers<string>>();
      const ends = new Map<number, string>();
      const expected = new Map<number, string>();
      for (const [number, { key, ends: end }] of steps.entries()) {
        const waiting = tasks.get(key) ?? [];
        const [first, ...others] = waiting;
        if (end === null) {
          if (first !== undefined) happened.waited++;
          if (waiting.length < MOST) waiting.push(number);
          else {
            happened.refused++;
            expected.set(number, "The session has too many requests");
          }
          queue.run(key, () => {
            const task = Promise.withResolvers<string>();
            running.set(number, task);
            return task.promise;
          }).then((value) => ends.set(number, value), (it) => ends.set(number, it.message));
        } else if (first !== undefined) {
          const ended = end === "unavailable" ? waiting : [first];
          for (const it of ended) expected.set(it, end === "unavailable" ? "gone" : end);
          tasks.set(key, end === "unavailable" ? [] : others);
          if (end === "unavailable") happened["failed together"] += others.length;
          if (end === "failed") happened["after a failure"] += Math.min(others.length, 1);
          const task = running.get(first);
          running.delete(first);
          if (end === "done") task?.resolve(end);
          else task?.reject(end === "failed" ? new Error(end) : error);
        }
        await turn();
        const firsts = [...tasks.values()].flatMap(([first]) => first ?? []);
        assertEquals([...running.keys()].sort(), firsts.sort(), "those that run");
        assertEquals(new Map([...ends].sort()), new Map([...expected].sort()), "those that ended");
        if (firsts.length > 1) happened["beside others"]++;
      }
    }),
    { numRuns: 200 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 20, `${what}: ${times}`);
});
