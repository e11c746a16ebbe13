import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Changes, MAX_CHANGES } from "../stores/changes.ts";
import { json } from "../stores/json/text.ts";
import { type Change, ChangesLost, type Entry, type Watch } from "../stores/store.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));
const read = (key: string): Promise<Entry | null> =>
  Promise.resolve({ key, value: json(1), revision: "1", expires: null });

/** A watch, and what the list of all changes says that it reports next. */
interface Watching {
  prefix: string;
  watch: Watch;
  reader: ReadableStreamDefaultReader<Change>;
  /** How many changes it has passed. */
  at: number;
  /** A read that waits for a change. */
  pending: Promise<ReadableStreamReadResult<Change>> | null;
}

Deno.test("Changes reports a list of all changes, or that some are lost, for any calls", async () => {
  const happened = { forgot: 0, resumed: 0, "resumed too late": 0, "fell behind": 0, waited: 0 };
  const calls = fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.record({ op: fc.constant("add"), n: fc.nat({ max: 5 }) }) },
      {
        weight: 5,
        arbitrary: fc.record({
          op: fc.constantFrom("watch", "read", "read", "read", "resume", "cancel"),
          n: fc.nat(),
        }),
      },
    ),
    { maxLength: 120, size: "max" },
  );
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 5 }), calls, async (kept, calls) => {
      const changes = new Changes(kept);
      const all: string[] = [];
      const ids: string[] = [];
      let watches: Watching[] = [];
      const watch = (prefix: string, at: number, since?: string) => {
        const watch = changes.watch(prefix, since, read);
        watches.push({ prefix, at, watch, reader: watch.changes.getReader(), pending: null });
      };
      /** Whether a watch has to be told that changes are lost: between one and two times `kept`. */
      const isLost = (at: number) => at < (Math.floor(all.length / kept) - 1) * kept;
      ids.push(changes.watch("", undefined, read).position());
      for (const { op, n } of calls) {
        const watching = watches[n % watches.length];
        if (op === "add") {
          const key = `${"ab"[n % 2]}${n}`;
          all.push(key);
          changes.add(key);
          ids[all.length] = changes.watch("", undefined, read).position();
          if (all.length % kept === 0) happened.forgot++;
          // Who waits has passed it before the next.
          if (watches.some(({ pending }) => pending)) await turn();
          for (const it of watches) {
            if (it.pending === null) continue;
            it.at = all.length;
            const isFor = key.startsWith(it.prefix);
            // It has not read the change that was made for it.
            assertEquals(it.watch.position(), ids[isFor ? all.length - 1 : all.length]);
            if (!isFor) continue;
            assertEquals((await it.pending).value?.key, key);
            it.pending = null;
            happened.waited++;
          }
        } else if (op === "watch") watch(["", "a", "b"][n % 3] ?? "", all.length);
        else if (op === "resume") {
          const at = n % ids.length;
          try {
            watch("", at, ids[at]);
            assert(!isLost(at));
            happened.resumed++;
          } catch (error) {
            assert(error instanceof ChangesLost && isLost(at), String(error));
            happened["resumed too late"]++;
          }
        } else if (watching === undefined || watching.pending !== null) continue;
        else if (op === "cancel") {
          await watching.reader.cancel();
          watches = watches.filter((it) => it !== watching);
        } else {
          const { prefix, at } = watching;
          const next = all.findIndex((key, i) => i >= at && key.startsWith(prefix));
          const reading = watching.reader.read();
          reading.catch(() => {}); // It may fail before it is awaited.
          if (next === -1 && !isLost(at)) {
            watching.at = all.length;
            watching.pending = reading;
            await turn();
            assertEquals(watching.watch.position(), ids[all.length]);
            continue;
          }
          try {
            assertEquals((await reading).value?.key, all[next]);
            assertEquals(watching.watch.position(), ids[next]);
            assert(!isLost(at));
            watching.at = next + 1;
          } catch (error) {
            assert(error instanceof ChangesLost && isLost(at), String(error));
            watches = watches.filter((it) => it !== watching);
            happened["fell behind"]++;
          }
        }
      }
      changes.end();
      for (const { pending } of watches) if (pending) assertEquals((await pending).done, true);
    }),
    { numRuns: 300 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

Deno.test("Changes ends the watch of a reader too far behind, and delays no writer", async () => {
  const changes = new Changes();
  const { position, changes: stream } = changes.watch("", undefined, read);
  const since = position();
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

Deno.test("Changes reads a change once for all watches, and the next of its key again", async () => {
  const changes = new Changes();
  const reads: PromiseWithResolvers<Entry | null>[] = [];
  const watches = [1, 2, 3].map(() =>
    changes.watch("", undefined, () => {
      reads.push(Promise.withResolvers());
      return reads.at(-1)?.promise ?? Promise.resolve(null);
    }).changes.getReader()
  );
  const first = watches.map((reader) => reader.read());
  changes.add("a");
  await turn();
  assertEquals(reads.length, 1);
  const older = await read("a");
  changes.add("a"); // while the entry before it is read
  reads[0]?.resolve(older);
  for (const { value } of await Promise.all(first)) assertEquals(value?.entry, older);
  const second = watches.map((reader) => reader.read());
  await turn();
  assertEquals(reads.length, 2);
  reads[1]?.resolve(null);
  for (const { value } of await Promise.all(second)) assertEquals(value?.entry, null);
});
