/** A store as lines: reading every entry, and restoring what was printed. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import { json, type JsonText, parseJson } from "../stores/json/text.ts";
import { entries, LIMITS, line, restore, RestoreStopped } from "../stores/lines.ts";
import { memoryStore } from "../stores/memory.ts";
import { InvalidArgument, MAX_VALUE_BYTES, type Store, StoreFull } from "../stores/store.ts";

// ---- Reading -------------------------------------------------------------------------------

Deno.test("entries() gives every entry once, for any sizes, pages and limits", async () => {
  const happened = { pages: 0, "fetched again": 0, "fetched together": 0 };
  const run = fc.record({
    lengths: fc.array(fc.nat({ max: 60 }), { maxLength: 30 }),
    page: fc.integer({ min: 1, max: 12 }),
    fetched: fc.integer({ min: 1, max: 9 }),
    fetchedLength: fc.integer({ min: 1, max: 90 }),
  });
  await fc.assert(
    fc.asyncProperty(run, async ({ lengths, page, fetched, fetchedLength }) => {
      const memory = memoryStore();
      const values = lengths.map((length, i) => [`k${10 + i}`, json("x".repeat(length))] as const);
      await memory.setAll(new Map(values));
      let gets: JsonText[] = [];
      const store: Store = {
        ...memory,
        async list(prefix, { after } = {}) {
          if (after !== undefined) happened.pages++;
          return await memory.list(prefix, { after, limit: page });
        },
        async get(key) {
          const entry = await memory.get(key);
          if (entry !== null) gets.push(entry.value);
          return entry;
        },
      };
      const seen: [string, string][] = [];
      for await (
        const { key, value } of entries(store, "", { ...LIMITS, fetched, fetchedLength })
      ) {
        seen.push([key, value]);
        assert(gets.length <= fetched, `${gets.length} were fetched at once`);
        if (gets.length > 1) happened["fetched together"]++;
        if (gets.length > 1 && gets.join("").length > fetchedLength) happened["fetched again"]++;
        gets = [];
      }
      assertEquals(seen, values.map(([key, value]) => [key, value]));
      await memory.close();
    }),
    { numRuns: 200 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

Deno.test("entries() skips what is removed meanwhile", async () => {
  const memory = memoryStore();
  await memory.setAll(new Map([["a", json(1)], ["b", json(2)]]));
  const store: Store = {
    ...memory,
    async list(...args) {
      const page = await memory.list(...args);
      await memory.delete("a");
      return page;
    },
  };
  const seen: string[] = [];
  for await (const { key } of entries(store)) seen.push(key);
  assertEquals(seen, ["b"]);
  await memory.close();
});

// ---- Restoring -----------------------------------------------------------------------------

/** A line, and the entry that it has. */
interface Line {
  bytes: Uint8Array;
  entry?: [string, JsonText];
  isBad?: boolean;
}

const lineOfEntry = fc.tuple(
  fc.constantFrom("a", "b", "é\u{1f600}", "__proto__", "c\n"),
  fc.oneof(
    fc.string({ maxLength: 12 }).map((it) => json(it)),
    fc.constantFrom("1.10", "12345678901234567890", "null").map((it) => json(parseJson(it))),
  ),
).map(([key, value]): Line => {
  return {
    bytes: Buffer.from(line({ key, value, revision: "", expires: null })),
    entry: [key, value],
  };
});
const blankLine = fc.constantFrom("", "\r", " \t").map((it): Line => ({ bytes: Buffer.from(it) }));
const badLine = fc.constantFrom("x", "{}", '{"a":1,"b":2}', '{"":1}', "\xff", "x".repeat(150))
  .map((it): Line => ({ bytes: Buffer.from(it, "latin1"), isBad: true }));

Deno.test("restore() writes the lines before the first bad one, however they are cut", async () => {
  const happened = { "batches": 0, "good lines": 0, "cut lines": 0, "bad lines": 0, "twice": 0 };
  const lines = fc.array(
    fc.oneof(
      { weight: 40, arbitrary: lineOfEntry },
      { weight: 2, arbitrary: blankLine },
      { weight: 1, arbitrary: badLine },
    ),
    { maxLength: 60, size: "max" },
  );
  const limits = fc.record({
    batchLines: fc.integer({ min: 1, max: 5 }),
    batchBytes: fc.integer({ min: 1, max: 200 }),
  });
  const chunk = fc.integer({ min: 1, max: 100 });
  await fc.assert(
    fc.asyncProperty(lines, limits, chunk, async (lines, limits, chunk) => {
      const bad = lines.findIndex(({ isBad }) => isBad);
      const good = lines.slice(0, bad === -1 ? lines.length : bad)
        .flatMap(({ entry }) => entry ? [entry] : []);
      const memory = memoryStore();
      let writes = 0;
      const setAll: Store["setAll"] = async (values) => {
        writes++;
        assert(values.size <= limits.batchLines);
        await memory.setAll(values);
      };
      const bytes = Buffer.concat(lines.flatMap(({ bytes }) => [bytes, Buffer.from("\n")]));
      const options = { limits: { ...LIMITS, lineBytes: 140, ...limits } };
      const outcome = await restore({ ...memory, setAll }, chunksOf(bytes, chunk), options)
        .catch((error: unknown) => error);
      if (bad === -1) assertEquals(outcome, good.length);
      else {
        assert(outcome instanceof RestoreStopped, String(outcome));
        assertEquals([outcome.line, outcome.restored], [bad + 1, good.length]);
        assertMatch(outcome.message, new RegExp(`^Cannot restore line ${bad + 1}: `));
        happened["bad lines"]++;
      }
      const written = new Map<string, string>();
      for await (const { key, value } of entries(memory)) written.set(key, value);
      assertEquals(written, new Map(good));
      await memory.close();
      happened.batches += writes;
      happened["good lines"] += good.length;
      happened["cut lines"] += bytes.length / chunk > lines.length ? good.length : 0;
      happened.twice += good.length - written.size;
    }),
    { numRuns: 300 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 50, `${what}: ${times}`);
});

Deno.test("restore() restores the lines that share a chunk with one that is not UTF-8", async () => {
  const store = memoryStore();
  const dump = [Buffer.from('{"a": 1}\n{"b": 2}\n{"\xff": 3}\n{"c": 4}\n', "latin1")];
  const error = await assertRejects(
    () => restore(store, ReadableStream.from(dump)),
    RestoreStopped,
  );
  assertMatch(error.message, /^Cannot restore line 3: .*expected UTF-8/);
  assertEquals([error.restored, (await store.list("")).keys], [2, ["a", "b"]]);
  await store.close();
});

Deno.test("restore() names a line that is too long, too deep or not an entry", async () => {
  const long = `{"k": "${"x".repeat(MAX_VALUE_BYTES)}"}`;
  const longer = `{"k": "${"x".repeat(LIMITS.lineBytes)}"}`;
  const deep = `{"k": ${"[".repeat(50_000)}1.0${"]".repeat(50_000)}}`;
  const cases: [string, RegExp][] = [
    ["x", /^Cannot restore line 2: expected one entry, {"key": value} \(unexpected "x" at 0\)$/],
    ["[1]", /^Cannot restore line 2: expected one entry, {"key": value}$/],
    ["{}", /^Cannot restore line 2: expected one entry, {"key": value}$/],
    ['{"b": 1, "b": 2}', /^Cannot restore line 2: expected one entry, {"key": value}$/],
    ['{"": 1}', /^Cannot restore line 2: Cannot use the key ""/],
    [long, /^Cannot restore line 2: .* is over 1048576 bytes/],
    [longer, /^Cannot restore line 2: it is over 2097152 bytes/],
    [deep, /^Cannot restore line 2: .* deeper than 500 levels/],
  ];
  for (const [bad, message] of cases) {
    const store = memoryStore();
    const dump = new Blob([`{"a": 1}\n${bad}\n{"c": 3}`]).stream();
    const error = await assertRejects(() => restore(store, dump), RestoreStopped);
    assertMatch(error.message, message);
    assertEquals((await store.list("")).keys, ["a"]);
    await store.close();
  }
});

Deno.test("restore() writes one batch after another, and stops when its store fails", async () => {
  const memory = memoryStore();
  const written: number[] = [];
  const store: Store = {
    ...memory,
    async setAll(values) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      if (written.length === 2) throw new StoreFull("full");
      written.push(values.size);
    },
  };
  const progress: number[] = [];
  const restored = (count: number) => {
    const lines = Array.from({ length: count }, (_, i) => `{"${i}":1}\n`);
    const onProgress = (sum: number) => void progress.push(sum);
    return restore(store, new Blob(lines).stream(), { onProgress });
  };
  assertEquals(await restored(0), 0);
  assertEquals(written, [], "nothing is written for an empty dump");
  const error = await assertRejects(() => restored(2500), RestoreStopped, "full");
  assert(error.cause instanceof StoreFull);
  assertEquals([error.line, error.restored], [undefined, 2000]);
  assertEquals([written, progress], [[1000, 1000], [1000, 2000]]);
  await assertRejects(() => restore(store, new Blob().stream(), { ttl: 0 }), InvalidArgument);
  await memory.close();
});

/** Yields the bytes in pieces of this length. */
async function* chunksOf(bytes: Buffer, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}
