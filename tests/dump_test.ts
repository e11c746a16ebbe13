/** How dump.ts prints entries. */
import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { type Format, printer } from "../dump/formats.ts";
import { parseJson } from "../stores/json/text.ts";
import type { Entry } from "../stores/store.ts";

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
  for (const format of ["lines", "backup", "json", "table"] as const) {
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
  return begin + written.map((it) => print(it.key, it)).join("") + end;
}

function entry(key: string, value: string, expires: number | null = null): Entry {
  return { key, value: value as Entry["value"], revision: "1", expires };
}
