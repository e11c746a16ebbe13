/** JSON read a value at a time: what it accepts, and what comes out, beside `JSON.parse`. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import fc from "fast-check";
import { JsonReader } from "../stores/json/reader.ts";
import { byteLength, json } from "../stores/json/text.ts";
import { InvalidArgument, MAX_DEPTH, MAX_VALUE_BYTES, ValueTooLarge } from "../stores/store.ts";

function readValue(text: string | Uint8Array<ArrayBuffer>): string {
  const reader = new JsonReader(typeof text === "string" ? new TextEncoder().encode(text) : text);
  const value = reader.value();
  reader.end();
  return value;
}

/** Whether `JSON.parse` accepts a text. */
function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

Deno.test("JsonReader compacts a value and keeps every digit", () => {
  const cases: [string, string][] = [
    [' {"a" : [ 1.10 , -0 ] ,\r\n\t"b":null } ', '{"a":[1.10,-0],"b":null}'],
    ["12345678901234567890", "12345678901234567890"],
    ["[1e400,-1.0E+10,0.1e-7]", "[1e400,-1.0E+10,0.1e-7]"],
    ['" a\\n\\" \\\\ "', '" a\\n\\" \\\\ "'],
    ["[ ]", "[]"],
    ["{ }", "{}"],
    ["[true , false,null]", "[true,false,null]"],
    ['"\ufeff"', '"\ufeff"'],
    ['\ufeff"bom"', '"bom"'],
  ];
  for (const [text, compact] of cases) assertEquals(readValue(text), compact);
});

Deno.test("JsonReader replaces the escapes of printable characters", () => {
  const cases: [string, string][] = [
    ['"\\u00e9\\u20ac\\/\\u0041\\uD83D\\ude00"', '"é€/A\u{1f600}"'],
    ['{"\\u00e9":"é"}', '{"é":"é"}'],
    // The ends of what UTF-8 writes in one to four bytes.
    ['"\\u0020\\u007e\\u0080\\u07ff\\u0800\\uffff"', '" ~\x80\u07ff\u0800\uffff"'],
    ['"\\ud800\\udc00\\udbff\\udfff"', '"\u{10000}\u{10ffff}"'],
    // Not printable, needed, or half of a pair.
    ['"\\u0007\\u001f\\u0022\\u005C"', '"\\u0007\\u001f\\u0022\\u005C"'],
    ['"\\ud83d \\ude00\\udfff\\ud83dx\\ud83d\\u0041"', '"\\ud83d \\ude00\\udfff\\ud83dx\\ud83dA"'],
    ['"\\ud83d\\ue000\\ud83d\\udbff"', '"\\ud83d\ue000\\ud83d\\udbff"'],
    ['"\\ud83d\\ndc00\\ud83dxudc00"', '"\\ud83d\\ndc00\\ud83dxudc00"'],
  ];
  for (const [text, compact] of cases) {
    assertEquals(readValue(text), compact);
    assertEquals(JSON.parse(compact), JSON.parse(text));
  }
});

Deno.test("JsonReader accepts what JSON.parse accepts, and nothing else", () => {
  const bad = [
    "",
    " ",
    "{",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{,}",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    "{a:1}",
  ];
  bad.push("01", "-", "1.", ".1", "1e", "1e+", "+1", "0x1", "NaN", "tru", "nul", "truex", "1 1");
  bad.push("'a'", '"a', '"\\x"', '"\\u12g4"', '"\\u12', '"\n"', '"\\', "{]", "[}", "]", '{"a":1]');
  for (const text of bad) {
    assert(!isJson(text));
    assertThrows(() => readValue(text), SyntaxError);
  }
  const token = fc.constantFrom(
    ...'{}[],:"\\ 01-.eE+tfn/u\n',
    '"a"',
    "true",
    "null",
    "1.0",
    "\\u00e9",
  );
  const text = fc.oneof(
    fc.json(),
    fc.jsonValue().map((value) => JSON.stringify(value, null, 1)),
    fc.array(token, { maxLength: 12 }).map((tokens) => tokens.join("")),
    fc.string({ unit: "binary" }).map((text) => JSON.stringify(text)),
  );
  fc.assert(
    fc.property(text, (text) => {
      if (!isJson(text)) {
        assertThrows(() => readValue(text), SyntaxError);
        return;
      }
      const compact = readValue(text);
      assertEquals(JSON.parse(compact), JSON.parse(text));
      assertEquals(readValue(compact), compact);
      assert(compact.length <= text.length);
    }),
    { numRuns: 5000 },
  );
});

Deno.test("JsonReader reads objects and arrays element by element", () => {
  const bytes = new TextEncoder().encode('[ {"\\u00e9\\n": 1.0 , "é":[ 2 ]}, "x\\t", {}, [] ]');
  const reader = new JsonReader(bytes);
  const seen: unknown[] = [];
  reader.array(() => {
    if (reader.peek() === "{") reader.object((name) => seen.push([name, reader.value()]));
    else if (reader.peek() === "[") reader.array(() => seen.push(reader.value()));
    else seen.push(reader.string());
  });
  reader.end();
  assertEquals(seen, [["é\n", "1.0"], ["é", "[2]"], "x\t"]);
});

Deno.test("JsonReader says what is wrong, and where", () => {
  const cases: [string, RegExp][] = [
    ["[1,x]", /^unexpected "x" at 3$/],
    ["[1", /^it ends too early$/],
    ['"\n"', /^unexpected byte 10 at 1$/],
    ["1 }", /^unexpected "}" at 2$/],
    ['"\\ "', /^unexpected byte 32 at 2$/],
    ["\x7f", /^unexpected byte 127 at 0$/],
  ];
  for (const [text, message] of cases) {
    assertMatch(assertThrows(() => readValue(text), SyntaxError).message, message);
  }
  const latin1 = new Uint8Array([0x22, 0xe9, 0x22]);
  assertEquals(assertThrows(() => readValue(latin1), SyntaxError).message, "expected UTF-8");
});

Deno.test("json() says why a value has no text", () => {
  const cycle: unknown[] = [];
  cycle.push(cycle);
  assertMatch(assertThrows(() => json(cycle), InvalidArgument).message, /^Cannot store .*circular/);
});

Deno.test("JsonReader limits the depth and the length of a value", () => {
  const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
  assertEquals(readValue(nested(MAX_DEPTH)), nested(MAX_DEPTH));
  const error = assertThrows(() => readValue(nested(MAX_DEPTH + 1)), InvalidArgument);
  assertMatch(error.message, /nested deeper than 500 levels/);
  const filled = (length: number) => `"${"x".repeat(length - 2)}"`;
  assertEquals(readValue(filled(MAX_VALUE_BYTES)).length, MAX_VALUE_BYTES);
  assertThrows(() => readValue(filled(MAX_VALUE_BYTES + 1)), ValueTooLarge);
  // What is compacted away does not count.
  const escaped = `"${"\\u0041".repeat(MAX_VALUE_BYTES - 2)}"`;
  assertEquals(readValue(escaped).length, MAX_VALUE_BYTES);
  const spaced = (length: number) => `[ ${"1 , ".repeat((length - 3) / 2)}1 ]`;
  assertEquals(readValue(spaced(MAX_VALUE_BYTES - 1)).length, MAX_VALUE_BYTES - 1);
  assertThrows(() => readValue(spaced(MAX_VALUE_BYTES + 1)), ValueTooLarge);
});

Deno.test("JsonReader keeps its limits for any value and any limits", () => {
  const happened = { "read": 0, "too deep": 0, "too long": 0, "long name": 0, "limit met": 0 };
  const name = fc.string({ unit: fc.constantFrom("a", '"', "\\", "é", "\u{1f600}", "[") });
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: "large", withCrossShrink: true },
      fc.constantFrom(null, true, 1, "", "[{", 12.5),
      name,
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(name, tie("value"), { maxKeys: 2 }),
    ),
  }));
  const limits = fc.record({
    depth: fc.integer({ min: 1, max: 5 }),
    valueBytes: fc.integer({ min: 1, max: 80 }),
    stringBytes: fc.integer({ min: 2, max: 20 }),
  });
  fc.assert(
    fc.property(value, limits, fc.constantFrom("", " ", "\n\t"), (value, limits, space) => {
      const compact = JSON.stringify(value);
      const bytes = Buffer.byteLength(compact);
      const read = () => {
        const reader = new JsonReader(Buffer.from(JSON.stringify(value, null, space)), limits);
        const text = reader.value();
        reader.end();
        return text;
      };
      const depth = depthOf(value);
      if (depth > limits.depth) {
        assertMatch(assertThrows(read, InvalidArgument).message, /nested deeper/);
        happened["too deep"]++;
      } else if (bytes > limits.valueBytes) {
        assertThrows(read, ValueTooLarge);
        happened["too long"]++;
      } else {
        assertEquals(read(), compact);
        happened[depth === limits.depth || bytes === limits.valueBytes ? "limit met" : "read"]++;
      }
      if (typeof value !== "string") return;
      const readName = () => new JsonReader(Buffer.from(compact), limits).string();
      if (bytes <= limits.stringBytes) assertEquals(readName(), value);
      else {
        assertMatch(assertThrows(readName, SyntaxError).message, /^a string over \d+ bytes at 0$/);
        happened["long name"]++;
      }
    }),
    { numRuns: 5000 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

Deno.test("json() counts bytes and levels as the plain way does", () => {
  const happened = { under: 0, at: 0, over: 0 };
  const text = fc.string({ unit: fc.constantFrom("a", "é", "€", "\u{1f600}"), maxLength: 30 });
  fc.assert(
    fc.property(text, fc.nat({ max: 60 }), (text, limit) => {
      const bytes = Buffer.byteLength(text);
      assertEquals(byteLength(text, limit) > limit, bytes > limit);
      happened[bytes < limit ? "under" : bytes === limit ? "at" : "over"]++;
    }),
    { numRuns: 5000 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 50, `${what}: ${times}`);
});

/** How deep arrays and objects are nested in a value. */
function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

Deno.test("JsonReader reads names and strings of 64 KiB at most", () => {
  const read = (length: number) => new JsonReader(Buffer.from(`"${"x".repeat(length)}"`)).string();
  assertEquals(read(65_000).length, 65_000);
  assertMatch(assertThrows(() => read(66_000), SyntaxError).message, /^a string over 65536 bytes/);
});
