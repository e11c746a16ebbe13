import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Changes, MAX_CHANGES } from "../stores/changes.ts";
import { json } from "../stores/json/text.ts";
import { ChangesLost, type Entry } from "../stores/store.ts";

const read = (key: string): Promise<Entry | null> =>
  Promise.resolve({ key, value: json(1), revision: "1", expires: null });

Deno.test("Changes ends the watch of a reader too far behind, and delays no writer", async () => {
  const changes = new Changes();
  const { since, changes: stream } = changes.watch("", undefined, read);
  for (let i = 0; i < 3 * MAX_CHANGES; i++) changes.add(`key${i}`);
  await assertRejects(() => stream.getReader().read(), ChangesLost);
  assertThrows(() => changes.watch("", since, read), ChangesLost);
});

Deno.test("Changes resumes from any of the last MAX_CHANGES", async () => {
  const changes = new Changes();
  const ids: string[] = [];
  const reader = changes.watch("", undefined, read).changes.getReader();
  for (let i = 0; i < 3 * MAX_CHANGES + 7; i++) {
    changes.add(`key${i}`);
    ids.push((await reader.read()).value?.id ?? "");
  }
  await reader.cancel();
  for (const i of [0, 1, MAX_CHANGES / 2, MAX_CHANGES - 1]) {
    const { changes: again } = changes.watch("", ids.at(-2 - i), read);
    const resumed = again.getReader();
    assertEquals((await resumed.read()).value?.key, `key${3 * MAX_CHANGES + 6 - i}`);
    await resumed.cancel();
  }
});

Deno.test("Changes ends a watch with the error of the store or of a read", async () => {
  const changes = new Changes();
  const failing = changes.watch("", undefined, () => Promise.reject(new Error("no answer")));
  const waiting = changes.watch("z", undefined, read);
  const next = waiting.changes.getReader().read();
  changes.add("a");
  assertMatch(String(await assertRejects(() => failing.changes.getReader().read())), /no answer/);
  changes.end(new Error("the connection was lost"));
  assertMatch(String(await assertRejects(() => next)), /the connection was lost/);
});

Deno.test("Changes reads nothing more for a watch that was cancelled while it waited", async () => {
  const changes = new Changes();
  const keys: string[] = [];
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const reader = changes.watch("", undefined, (key) => (keys.push(key), read(key))).changes
    .getReader();
  const next = reader.read();
  await turn(); // until it waits
  await reader.cancel();
  changes.add("a");
  assertEquals((await next).done, true);
  await turn();
  assertEquals(keys, []);
});
