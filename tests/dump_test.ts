/** The parts of dump.ts: reading a store, printing it, and restoring what was printed. */
import { assertEquals, assertMatch, assertNotMatch, assertRejects } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { entries } from "../dump.ts";
import { type Format, printer } from "../dump/formats.ts";
import { restore } from "../dump/restore.ts";
import { json, parseJson } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Entry, MAX_VALUE_BYTES, type Store, StoreFull } from "../stores/store.ts";

// ---- Reading -------------------------------------------------------------------------------

Deno.test("entries() gives every entry once, over many pages", async () => {
  const store = memoryStore();
  const keys = Array.from({ length: 2500 }, (_, i) => `key${String(i).padStart(4, "0")}`);
  await store.setAll(new Map(keys.map((key, i) => [key, json(i)])));
  const seen: string[] = [];
  for await (const { key, value } of entries(store)) {
    assertEquals(value, String(keys.indexOf(key)));
    seen.push(key);
  }
  assertEquals(seen, keys);
  await store.close();
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

Deno.test("entries() holds at most as many entries at a time as it is asked to", async () => {
  const memory = memoryStore();
  await memory.setAll(new Map(Array.from({ length: 1100 }, (_, i) => [`k${i}`, json(i)])));
  let held = 0;
  let most = 0;
  const get: Store["get"] = (key) => {
    most = Math.max(most, ++held);
    return memory.get(key);
  };
  for await (const _ of entries({ ...memory, get }, "", 16)) held--;
  assertEquals([held, most], [0, 16]);
  await memory.close();
});

// ---- Formats -------------------------------------------------------------------------------

// Those of this process; the program has colors in a test below.
setColorEnabled(false);

const KEY = "a\n\x1b[2J\x9b\u202e";
const ESCAPED = String.raw`a\u000a\u001b[2J\u009b\u202e`;

Deno.test("printer() prints lines and JSON that another program reads as they were", () => {
  const written = [entry("a", "1.10"), entry(KEY, `"\u2028\x9b"`)];
  const lines = printed("lines", null, written);
  const objects = lines.trimEnd().split("\n").map((it) => parseJson(it));
  assertEquals(objects, [{ a: parseJson("1.10") }, { [KEY]: "\u2028\x9b" }]);
  assertEquals(parseJson(printed("json", null, written)), Object.assign({}, ...objects));
  assertEquals(printed("json", null, []), "{\n}\n");
});

Deno.test("printer() escapes what controls a terminal, in every format", () => {
  for (const format of ["lines", "json", "table"] as const) {
    const text = printed(format, 200, [entry(KEY, `"\u2028\x9b"`)]);
    assertNotMatch(text.replaceAll("\n", ""), /[\p{Cc}\u2028\u202e]/u);
    assertMatch(
      text,
      format === "table" ? /a\\u000a\\u001b\[2J/ : /"a\\n\\u001b\[2J\\u009b\\u202e"/,
    );
  }
});

Deno.test("printer() fits a table into the terminal", () => {
  const text = printed("table", 60, [
    entry("short", '"漢字 value that is longer than the terminal is wide"', Date.now() + 7_200_500),
    entry("fits", '"just fitted"', Date.now() + 150_000),
    entry("key", "null"),
  ]);
  assertEquals(text.split("\n"), [
    "KEY                                   EXPIRES  VALUE",
    'short                                     2 h  "漢字 value …',
    'fits                                    2 min  "just fitted"',
    "key                                     never  null",
    "",
  ]);
  const full = printed("table", null, [entry(KEY, `"${"x".repeat(300)}"`)]);
  assertMatch(full, /x{300}"\n$/);
  assertEquals(full.includes(ESCAPED), true);
});

function printed(format: Format, columns: number | null, written: Entry[]): string {
  const { begin, print, end } = printer(format, columns);
  return begin() + written.map((it) => print(it.key, it)).join("") + end();
}

function entry(key: string, value: string, expires: number | null = null): Entry {
  return { key, value: value as Entry["value"], revision: "1", expires };
}

// ---- Restoring -----------------------------------------------------------------------------

Deno.test("restore() writes every line, with all digits, the last one of a key", async () => {
  const store = memoryStore();
  const many = Array.from({ length: 2500 }, (_, i) => `{"k${i}": ${i}}`);
  const lines = ['{"a": 1}', "", '{"a": 12345678901234567890}\r', '{"b": {"c": 1.10}}', ...many];
  assertEquals(await restore(store, stream(lines.join("\n"))), 2503);
  assertEquals((await store.get("a"))?.value, "12345678901234567890");
  assertEquals((await store.get("b"))?.value, '{"c":1.10}');
  assertEquals(await store.count?.(), 2502);
  await store.close();
});

Deno.test("restore() stops at the first line that is not an entry, and names it", async () => {
  const huge = `{"k": "${"x".repeat(MAX_VALUE_BYTES)}"}`;
  const deep = `{"k": ${"[".repeat(50_000)}1.0${"]".repeat(50_000)}}`;
  const twice = '{"b": 1, "b": 2}';
  for (const bad of ["x", "{}", "[1]", '{"a": 1, "b": 2}', '{"": 1}', twice, huge, deep]) {
    const store = memoryStore();
    const error = await restore(store, stream(`{"a": 1}\n${bad}\n{"c": 3}`)).catch((it) => it);
    assertMatch(error.message, /^Cannot restore line 2: .* \(restored before it: 1\)$/);
    assertEquals(await store.count?.(), 1);
    await store.close();
  }
});

Deno.test("restore() stops where the dump is not UTF-8, and says behind which line", async () => {
  const store = memoryStore();
  const chunks = [new TextEncoder().encode('{"a": 1}\n{"b": 2}\n'), Uint8Array.of(0x7b, 0xff)];
  const error = await restore(store, ReadableStream.from(chunks)).catch((it) => it);
  const message = "Cannot restore what follows line 2: it is not UTF-8 (restored before it: 2)";
  assertEquals(error.message, message);
  assertEquals(await store.count?.(), 2);
  await store.close();
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
    return restore(store, stream(lines.join("")), (sum) => void progress.push(sum));
  };
  assertEquals(await restored(0), 0);
  assertEquals(written, [], "nothing is written for an empty dump");
  await assertRejects(() => restored(2500), StoreFull);
  assertEquals([written, progress], [[1000, 1000], [0, 1000, 2000]]);
  await memory.close();
});

function stream(text: string): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new Blob([text]).stream();
}
