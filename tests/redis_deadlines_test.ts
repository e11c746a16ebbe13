import { assert, assertEquals, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { Deadlines } from "../stores/redis/deadlines.ts";

const late = () => new Error("late");

Deno.test("Deadlines ends each call at its own deadline", async () => {
  const deadlines = new Deadlines(100);
  const never = () => new Promise<never>(() => {});
  const start = performance.now();
  const first = assertRejects(() => deadlines.run(never, late), Error, "late");
  await delay(60);
  const second = assertRejects(() => deadlines.run(never, late), Error, "late");
  assertEquals(await deadlines.run(() => Promise.resolve("done"), late), "done");
  await assertRejects(
    () => deadlines.run(() => Promise.reject(new Error("no")), late),
    Error,
    "no",
  );
  await first;
  assert(performance.now() - start >= 99);
  await second;
  assert(performance.now() - start >= 159);
  await deadlines.close();
});

Deno.test("Deadlines tells a call that waits whether its deadline has passed", async () => {
  const deadlines = new Deadlines(20);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const call = deadlines.run(async (isLate) => {
    assertEquals(isLate(), false);
    await delay(60);
    resolve(isLate());
  }, late);
  await assertRejects(() => call, Error, "late");
  assertEquals(await promise, true);
  await deadlines.close();
});

Deno.test("Deadlines waits for its calls before it closes, and leaves no timer", async () => {
  const deadlines = new Deadlines(60_000);
  let isDone = false;
  const call = deadlines.run(async () => {
    await delay(30);
    isDone = true;
  }, late);
  await deadlines.close();
  assert(isDone);
  await call;
});
