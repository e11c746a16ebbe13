/** Copies of a store in use: what `dump.ts --to` does. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import fc from "fast-check";
import { copy, type CopyOptions, CopyStopped, UnfitTarget } from "../dump/copy.ts";
import { entries } from "../stores/dumps.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { prefixed } from "../stores/prefix.ts";
import { ChangesLost, type Store, StoreUnavailable } from "../stores/store.ts";
import { eventually } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";

const NO_WATCH: CopyOptions = {
  prefix: "",
  watch: false,
  tell() {},
  onProgress() {},
  onCopied() {},
};

Deno.test("copy() writes every entry under the prefix, with its lifetime to the second", async () => {
  const [from, to] = [memoryStore(), memoryStore()];
  const keys = Array.from({ length: 1500 }, (_, i) => `k${i}`);
  await from.setAll(new Map(keys.map((key, i) => [key, json(i)])));
  const { expires } = await from.set("k7", json("short"), { ttl: 3600 });
  await from.set("other", json(1));
  const progress: number[] = [];
  let copied = 0;
  await copy(from, to, {
    ...NO_WATCH,
    prefix: "k",
    onProgress: (count) => void progress.push(count),
    onCopied: (count) => copied = count,
  });
  assertEquals([copied, progress.at(-1)], [1500, 1500]);
  assert(progress.length > 10);
  assertEquals(await contents(to), await contents(from, "k"));
  const there = (await to.get("k7"))?.expires ?? 0;
  assert(there >= (expires ?? 0) && there < (expires ?? 0) + 60_000, `${there} for ${expires}`);
  await from.close();
  await to.close();
});

Deno.test("copy() ends with both the same, for any changes while it copies and follows", async () => {
  const happened = { "changed before it was copied": 0, "changed after": 0, removed: 0 };
  const key = fc.constantFrom(...Array.from({ length: 15 }, (_, i) => `k${10 * i}`));
  const change = fc.record({
    key,
    op: fc.constantFrom("set", "delete"),
    pause: fc.nat({ max: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 80, size: "max" }), async (changes) => {
      const [source, memory] = [memoryStore(), memoryStore()];
      for (let i = 0; i < 150; i += 2) await source.set(`k${i}`, json(0));
      const from: Store = {
        ...source,
        list: (prefix, { after } = {}) => source.list(prefix, { after, limit: 5 }),
      };
      let isCopied = false;
      // A removal takes longer than a write: one that was not awaited would undo a later write.
      const to: Store = {
        ...memory,
        async set(...args) {
          await turns(1);
          return await memory.set(...args);
        },
        async delete(...args) {
          await turns(9);
          return await memory.delete(...args);
        },
      };
      const copying = copy(from, to, { ...NO_WATCH, watch: true, onCopied: () => isCopied = true });
      for (const [i, { key, op, pause }] of changes.entries()) {
        await turns(pause);
        happened[isCopied ? "changed after" : "changed before it was copied"]++;
        if (op === "set") await from.set(key, json(i));
        else if (await from.delete(key)) happened.removed++;
      }
      await from.set("~last", json(1));
      await eventually(
        "the last change in the copy",
        async () => await memory.get("~last") !== null,
      );
      await turns(20); // what was copied together with it
      assertEquals(await contents(memory), await contents(from));
      await from.close();
      await copying;
      await memory.close();
    }),
    { numRuns: 60 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

Deno.test("copy() has few large values on their way at a time, in both passes", async () => {
  const [small, large] = [json("x"), json("x".repeat(256 * 1024))];
  const values = (prefix: string) =>
    new Map(
      Array.from({ length: 240 }, (_, i) => [`${prefix}${100 + i}`, i < 200 ? small : large]),
    );
  const [source, memory] = [memoryStore(), memoryStore()];
  const most = { read: 0, written: 0 };
  const now = { read: 0, written: 0 };
  const carry = async (way: "read" | "written", length: number) => {
    now[way] += length;
    most[way] = Math.max(most[way], now[way]);
    await turns(1);
    now[way] -= length;
  };
  const from: Store = {
    ...source,
    async get(key) {
      const entry = await source.get(key);
      await carry("read", entry?.value.length ?? 0);
      return entry;
    },
  };
  const to: Store = {
    ...memory,
    async set(key, value, options) {
      await carry("written", value.length);
      return await memory.set(key, value, options);
    },
  };
  await source.setAll(values("before"));
  const copied = Promise.withResolvers<void>();
  const onCopied = () => copied.resolve();
  const copying = copy(from, to, { ...NO_WATCH, watch: true, onCopied });
  await copied.promise;
  const check = (pass: string) => {
    assert(most.read > 0 && most.read <= 17 * large.length, `${pass}: ${most.read} read`);
    assert(
      most.written > 0 && most.written <= 2 * large.length,
      `${pass}: ${most.written} written`,
    );
    most.read = most.written = 0;
  };
  check("first pass");
  await source.setAll(values("later"));
  await eventually("the changes in the copy", async () => await memory.get("later339") !== null);
  check("changes");
  assertEquals(await contents(memory), await contents(source));
  await source.close();
  await copying;
  await memory.close();
});

Deno.test("copy() writes nothing if its source would read the copy", async () => {
  const cases = [["", "", ""], ["", "x:", ""], ["a:", "a:x:", ""], ["", "x:", "x"]] as const;
  for (const [source, target, prefix] of cases) {
    await using store = scoped(memoryStore());
    const [from, to] = [prefixed(store, source), prefixed(store, target)];
    const isSame = source === target;
    if (!isSame) await from.setAll(new Map([["k1", json(1)], ["xk", json(2)]]));
    const before = await contents(store);
    for (const watch of [false, true]) {
      const copying = () => copy(from, to, { ...NO_WATCH, prefix, watch });
      await assertRejects(copying, UnfitTarget, "Cannot copy a store into itself");
    }
    assertEquals(await contents(store), before);
  }
});

Deno.test("copy() copies within a store what its source does not read again", async () => {
  const cases = [["a:", "b:", ""], ["", "old:", "user:"]] as const;
  for (const [source, target, prefix] of cases) {
    await using store = scoped(memoryStore());
    const [from, to] = [prefixed(store, source), prefixed(store, target)];
    await from.set("user:ann", json(1));
    await copy(from, to, { ...NO_WATCH, prefix });
    const expected = [[`${source}user:ann`, "1"], [`${target}user:ann`, "1"]] as const;
    assertEquals(await contents(store), new Map(expected));
  }
});

Deno.test("copy() writes into no store that has entries", async () => {
  const [from, to] = [memoryStore(), memoryStore()];
  await from.set("a", json(1));
  await to.set("b", json(2));
  const error = await assertRejects(() => copy(from, to, NO_WATCH), UnfitTarget);
  assertMatch(error.message, /^Cannot copy: the target has "b" already/);
  assertEquals(await contents(to), new Map([["b", "2"]]));
  await copy(from, to, { ...NO_WATCH, prefix: "a" });
  assertEquals([...await contents(to)], [["a", "1"], ["b", "2"]]);
  await from.close();
  await to.close();
});

Deno.test("copy() goes on after one that was killed, and names a prefix that leaves no room", async () => {
  const [from, to] = [memoryStore(), memoryStore()];
  await from.set("a", json(1));
  await to.set(`dump.ts-${crypto.randomUUID()}`, json(null), { ttl: 600 });
  await copy(from, to, NO_WATCH);
  assertEquals((await to.get("a"))?.value, "1");
  const prefix = "p".repeat(981);
  const error = await assertRejects(() => copy(from, to, { ...NO_WATCH, prefix }), UnfitTarget);
  assertEquals(error.message, "Cannot copy under a prefix of more than 980 bytes");
  await Promise.all([from.close(), to.close()]);
});

Deno.test("copy() names a key that is too long for the target, and counts what it copied", async () => {
  await using store = scoped(memoryStore());
  const [from, memory] = [memoryStore(), prefixed(store, "counter:")];
  // Later than the one that fails.
  const to: Store = {
    ...memory,
    async set(...args) {
      const written = await memory.set(...args);
      await turns(1);
      return written;
    },
  };
  const long = "L".repeat(1020);
  await from.setAll(new Map([["a", json(1)], [long, json(2)], ["z", json(3)]]));
  const error = await assertRejects(
    () => copy(from, to, NO_WATCH),
    CopyStopped,
    `Cannot copy "${long}": Cannot use the key: it is over 1024 bytes`,
  );
  assert(error.cause instanceof UnfitTarget);
  assertEquals([error.copied, (await memory.list("")).keys], [2, ["a", "z"]]);
  await from.close();
});

Deno.test("copy() counts what has expired by its own clock apart", async () => {
  const [source, to] = [memoryStore(), memoryStore()];
  await source.setAll(new Map([["a", json(1)], ["b", json(2)], ["c", json(3)]]));
  const from: Store = {
    ...source,
    async get(key) {
      const entry = await source.get(key);
      return entry && key === "b" ? { ...entry, expires: Date.now() - 1000 } : entry;
    },
  };
  const counts: number[][] = [];
  await copy(from, to, { ...NO_WATCH, onCopied: (...args) => void counts.push(args) });
  assertEquals([counts, (await to.list("")).keys], [[[2, 1]], ["a", "c"]]);
  await source.close();
  await to.close();
});

Deno.test("copy() resumes the watch of a source that is unavailable for a while", async () => {
  const [source, to] = [memoryStore(), memoryStore()];
  const told: string[] = [];
  const waits: number[] = [];
  let cut = () => {};
  let downFor = 0;
  let time = 0;
  let isPaused = false;
  const gone = new StoreUnavailable("gone", { outcome: "unchanged" });
  const from: Store = {
    ...source,
    get(key) {
      assert(!isPaused);
      if (key === "b" && downFor-- > 0) throw gone;
      return source.get(key);
    },
    async watch(...args) {
      assert(!isPaused);
      if (downFor-- > 0) throw gone;
      const watch = await source.watch(...args);
      const isCut = Promise.withResolvers<never>();
      cut = () => isCut.reject(gone);
      isCut.promise.catch(() => {});
      const reader = watch.changes.getReader();
      const cuttable = new ReadableStream({
        async pull(controller) {
          const { value, done } = await Promise.race([reader.read(), isCut.promise]);
          if (done) controller.close();
          else controller.enqueue(value);
        },
      }, { highWaterMark: 0 });
      return { ...watch, changes: cuttable };
    },
  };
  const sleep = async (pause: number) => {
    waits.push(pause);
    isPaused = true;
    await turns(1);
    isPaused = false;
    time += pause;
  };
  const copied = Promise.withResolvers<void>();
  const copying = copy(from, to, {
    ...NO_WATCH,
    watch: true,
    tell: (message) => told.push(message),
    sleep,
    now: () => time,
    onCopied: () => copied.resolve(),
  });
  await copied.promise;
  await source.set("a", json(1));
  await eventually("a in the copy", async () => await to.get("a") !== null);
  downFor = 59;
  cut();
  await source.set("b", json(2));
  await eventually("b in the copy", async () => await to.get("b") !== null);
  assertEquals(waits, Array(59).fill(1000));
  assertEquals(told, [
    "gone: trying to follow the changes again",
    "gone: trying again",
    "Following the changes again",
  ]);
  downFor = 30;
  await source.set("b", json(3));
  await eventually("b in the copy", async () => (await to.get("b"))?.value === "3");
  assertEquals(waits.length, 59 + 30);
  downFor = Infinity;
  cut();
  await assertRejects(() => copying, StoreUnavailable, "gone");
  assertEquals(waits.length, 59 + 30 + 61);
  await source.close();
  await to.close();
});

Deno.test("copy() fails when the watch of its source does, or a write", async () => {
  const [from, to] = [memoryStore(), memoryStore()];
  await from.set("a", json(1));
  const lost = new ChangesLost("x");
  const failing: Store = {
    ...from,
    async watch(...args) {
      const { position, changes } = await from.watch(...args);
      await changes.cancel();
      return {
        position,
        changes: new ReadableStream({ start: (controller) => controller.error(lost) }),
      };
    },
  };
  await assertRejects(() => copy(failing, to, { ...NO_WATCH, watch: true }), ChangesLost);
  await to.delete("a");
  const full = new Error("full");
  const refusing: Store = { ...to, set: () => Promise.reject(full) };
  await assertRejects(() => copy(from, refusing, NO_WATCH), Error, "full");
  await from.close();
  await to.close();
});

async function contents(store: Store, prefix = ""): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { key, value } of entries(store, prefix)) found.set(key, value);
  return found;
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}
