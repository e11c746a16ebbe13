/** Long work in short steps. */
import { assert, assertEquals } from "@std/assert";
import { pause } from "../kv/pace.ts";

/** Keeps the thread busy. */
function work(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

Deno.test("pause() lets others go on after a long step, one large request at a time", async () => {
  await pause();
  work(25);
  const events: string[] = [];
  const other = new Promise<void>((resolve) =>
    setTimeout(() => {
      events.push("other");
      resolve();
    }, 0)
  );
  const large = async (name: string) => {
    await pause();
    events.push(name);
    work(25);
  };
  await Promise.all([large("a"), large("b"), large("c"), other]);
  assertEquals(events, ["other", "a", "b", "c"]);
});

Deno.test("pause() does not wait during a short step", async () => {
  work(25);
  await pause();
  const begun = performance.now();
  for (let i = 0; i < 100; i++) await pause();
  // A timer for each would take 100 ms at least.
  assert(performance.now() - begun < 90);
});
