/** A store as lines: reading every entry, and restoring what was printed. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import { kv } from "../kv.ts";
import { json, parseJson } from "../stores/json/text.ts";
import { entries, LIMITS, restore, RestoreStopped } from "../stores/dumps.ts";
import { backupLine, line } from "../stores/lines.ts";
import { memoryStore } from "../stores/memory.ts";
import { prefixed } from "../stores/prefix.ts";
import {
  type Entry,
  InvalidArgument,
  type JsonText,
  MAX_KEY_BYTES,
  MAX_TTL,
  MAX_VALUE_BYTES,
  type Store,
  StoreFull,
} from "../stores/store.ts";
import { answeredBy } from "./helpers/http_store.ts";
import { scoped } from "./helpers/scoped.ts";

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
      await using memory = scoped(memoryStore());
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
    }),
    { numRuns: 200 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

Deno.test("entries() skips what is removed meanwhile", async () => {
  await using memory = scoped(memoryStore());
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
});

// ---- Restoring -----------------------------------------------------------------------------

const NOW = 1_700_000_000_000;

/** A line, and the entry that it has. */
interface Line {
  bytes: Uint8Array;
  entry?: Pick<Entry, "key" | "value" | "expires">;
  isBad?: boolean;
}

const goodLine = fc.record({
  key: fc.constantFrom("a", "b", "key", "é\u{1f600}", "__proto__", "c\n"),
  value: fc.oneof(
    fc.string({ maxLength: 12 }).map((it) => json(it)),
    fc.constantFrom("1.10", "12345678901234567890", "null").map((it) => json(parseJson(it))),
  ),
  /** Seconds, of which some have passed; null: for ever; undefined: a line without a lifetime. */
  left: fc.constantFrom(undefined, undefined, null, null, 0.001, 1, 1.5, 9, -1),
}).map(({ key, value, left }): Line => {
  const expires = typeof left === "number" ? NOW + left * 1000 : null;
  const entry = { key, value, expires, revision: "" };
  return { bytes: Buffer.from(left === undefined ? line(entry) : backupLine(entry)), entry };
});
const blankLine = fc.constantFrom("", "\r", " \t").map((it): Line => ({ bytes: Buffer.from(it) }));
const badLine = fc.constantFrom("x", "{}", '{"a":1,"b":2}', '{"":1}', "\xff", "x".repeat(190))
  .map((it): Line => ({ bytes: Buffer.from(it, "latin1"), isBad: true }));

Deno.test("restore() writes the lines before the first bad one, however they are cut", async () => {
  const happened = { batches: 0, good: 0, expired: 0, cut: 0, bad: 0, "two of a key": 0 };
  const lines = fc.array(
    fc.oneof(
      { weight: 40, arbitrary: goodLine },
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
      const entriesOfLines = lines.slice(0, bad === -1 ? lines.length : bad)
        .flatMap(({ entry }) => entry ? [entry] : []);
      const good = entriesOfLines.filter(({ expires }) => (expires ?? Infinity) > NOW);
      const expired = entriesOfLines.length - good.length;
      const memory = memoryStore({ now: () => NOW });
      let written = 0;
      const store: Store = {
        ...memory,
        async set(...args) {
          written++;
          return await memory.set(...args);
        },
        async setAll(values, options) {
          written += values.size;
          await memory.setAll(values, options);
        },
      };
      const onProgress = () => {
        assert(written <= limits.batchLines, `${written} were written at once`);
        written = 0;
        happened.batches++;
      };
      const bytes = Buffer.concat(lines.flatMap(({ bytes }) => [bytes, Buffer.from("\n")]));
      const outcome = await restore(store, chunksOf(bytes, chunk), {
        now: () => NOW,
        onProgress,
        limits: { ...LIMITS, lineBytes: 180, ...limits },
      }).catch((error: unknown) => error);
      if (bad === -1) assertEquals(outcome, { restored: good.length, expired });
      else {
        assert(outcome instanceof RestoreStopped, String(outcome));
        assertEquals([outcome.line, outcome.restored], [bad + 1, good.length]);
        assertMatch(outcome.message, new RegExp(`^Cannot restore line ${bad + 1}: `));
        happened.bad++;
      }
      const found: (readonly [string, unknown])[] = [];
      for await (const { key, value, expires } of entries(memory)) {
        found.push([key, { value, expires }]);
      }
      // Lifetimes are whole seconds, and none gets shorter.
      const expected = good.map(({ key, value, expires }) => {
        const left = expires === null ? null : Math.ceil((expires - NOW) / 1000) * 1000;
        return [key, { value, expires: left === null ? null : NOW + left }] as const;
      });
      assertEquals(new Map(found), new Map(expected));
      await memory.close();
      happened.good += good.length;
      happened.expired += expired;
      happened.cut += bytes.length / chunk > lines.length ? good.length : 0;
      happened["two of a key"] += good.length - found.length;
    }),
    { numRuns: 300 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 50, `${what}: ${times}`);
});

Deno.test("restore() stops at the first key that is too long for the prefix of its store", async () => {
  const [long, longer] = ["L", "M"].map((it) => it.repeat(MAX_KEY_BYTES - 1));
  const lines = ['{"a": 1}', `{"key": "b", "value": 2, "expires": ${NOW + 9000}}`, '{"a": 3}']
    .concat(`{"${long}": 1}`, '{"b": 4}', `{"${longer}": 1}`, `{"${long}": 2}`);
  for (
    const [isRemote, batchLines] of [1, 2, 7, 1000].flatMap((n) => [[true, n], [false, n]] as const)
  ) {
    await using memory = scoped(memoryStore({ now: () => NOW }));
    const service = kv(prefixed(memory, "p:"));
    const store = isRemote
      ? answeredBy(async (url, init) => await service.request(url, init)).store
      : prefixed(memory, "p:");
    const error = await assertRejects(
      () =>
        restore(store, new Blob([lines.join("\n")]).stream(), {
          now: () => NOW,
          limits: { ...LIMITS, batchLines },
        }),
      RestoreStopped,
      "Cannot restore line 4: Cannot use the key: it is over 1024 bytes",
    );
    assertEquals([error.line, error.restored], [4, 3]);
    const found = await Promise.all(["p:a", "p:b"].map((key) => memory.get(key)));
    assertEquals(found.map((entry) => entry?.value), [json(3), json(2)]);
    assertEquals((await memory.list("")).keys, ["p:a", "p:b"]);
  }
});

Deno.test("restore() gives the ttl to lines without a lifetime only", async () => {
  await using store = scoped(memoryStore({ now: () => NOW }));
  const dump = [
    '{"plain": 1}',
    '{"key": "forever", "value": 2, "expires": null}',
    `{"expires": ${NOW + 7000}, "key": "short", "value": 3}`,
  ];
  const options = { ttl: 60, now: () => NOW };
  assertEquals(await restore(store, new Blob([dump.join("\n")]).stream(), options), {
    restored: 3,
    expired: 0,
  });
  const expiries: (number | null)[] = [];
  for await (const { expires } of entries(store)) expiries.push(expires);
  assertEquals(expiries, [null, NOW + 60_000, NOW + 7000]);
});

Deno.test("restore() keeps the longest ttl of a clock that was ahead", async () => {
  await using store = scoped(memoryStore({ now: () => NOW }));
  const expires = NOW + (MAX_TTL + 5) * 1000;
  const line = JSON.stringify({ key: "k", value: 1, expires });
  await restore(store, new Blob([line]).stream(), { now: () => NOW });
  assertEquals((await store.get("k"))?.expires, NOW + MAX_TTL * 1000);
});

Deno.test("restore() restores the lines that share a chunk with one that is not UTF-8", async () => {
  await using store = scoped(memoryStore());
  const dump = [Buffer.from('{"a": 1}\n{"b": 2}\n{"\xff": 3}\n{"c": 4}\n', "latin1")];
  const error = await assertRejects(
    () => restore(store, ReadableStream.from(dump)),
    RestoreStopped,
  );
  assertMatch(error.message, /^Cannot restore line 3: .*expected UTF-8/);
  assertEquals([error.restored, (await store.list("")).keys], [2, ["a", "b"]]);
});

const NOT_AN_ENTRY =
  /^Cannot restore line 2: expected one entry a line, {"key": value} or {"key": "a", "value": 1, "expires": null}$/;

Deno.test("restore() names a line that is too long, too deep or not an entry", async () => {
  const long = `{"k": "${"x".repeat(MAX_VALUE_BYTES)}"}`;
  const longer = `{"k": "${"x".repeat(LIMITS.lineBytes)}"}`;
  const deep = `{"k": ${"[".repeat(50_000)}1.0${"]".repeat(50_000)}}`;
  const cases: [string, RegExp][] = [
    [
      "x",
      /^Cannot restore line 2: expected one entry a line, {"key": value} or .* \(unexpected "x" at 0\)$/,
    ],
    ...["[1]", "{}", '{"b": 1, "b": 2}', '{"key": "k", "value": 1}'].concat(
      '{"key": 1, "value": 1, "expires": null}',
      '{"key": "k", "value": 1, "expires": null, "more": 1}',
      '{"key": "k", "key": "l", "expires": null}',
      // Of a long line, no more than four members are read.
      '{"a": 1, "b": 2, "c": 3, "d": 4, x',
    ).map((bad) => [bad, NOT_AN_ENTRY] as [string, RegExp]),
    ...['"2027-01-01"', "-1", "1.5", "true"].map((it): [string, RegExp] => [
      `{"key": "k", "value": 1, "expires": ${it}}`,
      new RegExp(
        `^Cannot restore line 2: "expires" is ${it}: expected milliseconds since 1970, or null$`,
      ),
    ]),
    [
      '{"key": "k", "value": 1, "expires": 9999999999999999}',
      /^Cannot restore line 2: Cannot keep/,
    ],
    [
      '{"key": ".", "value": 1, "expires": null}',
      /^Cannot restore line 2: Cannot use the key "\."/,
    ],
    ['{"": 1}', /^Cannot restore line 2: Cannot use the key ""/],
    [long, /^Cannot restore line 2: .* is over 1048576 bytes/],
    [longer, /^Cannot restore line 2: it is over 2097152 bytes/],
    [deep, /^Cannot restore line 2: .* deeper than 500 levels/],
  ];
  for (const [bad, message] of cases) {
    await using store = scoped(memoryStore());
    const dump = new Blob([`{"a": 1}\n${bad}\n{"c": 3}`]).stream();
    const error = await assertRejects(() => restore(store, dump), RestoreStopped);
    assertMatch(error.message, message);
    assertEquals((await store.list("")).keys, ["a"]);
  }
});

Deno.test("restore() writes one batch after another, and stops when its store fails", async () => {
  await using memory = scoped(memoryStore());
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
  assertEquals(await restored(0), { restored: 0, expired: 0 });
  assertEquals(written, [], "nothing is written for an empty dump");
  const error = await assertRejects(() => restored(2500), RestoreStopped, "full");
  assert(error.cause instanceof StoreFull);
  assertEquals([error.line, error.restored], [undefined, 2000]);
  assertEquals([written, progress], [[1000, 1000], [1000, 2000]]);
  await assertRejects(() => restore(store, new Blob().stream(), { ttl: 0 }), InvalidArgument);
});

/** Yields the bytes in pieces of this length. */
async function* chunksOf(bytes: Buffer, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}
