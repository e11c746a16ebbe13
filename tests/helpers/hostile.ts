/** What a client can send that is expensive to reject or to answer. */
const MIB = 1024 * 1024;
const JSON_TYPE = { "Content-Type": "application/json" };
const FORM = { "Content-Type": "application/x-www-form-urlencoded" };
const PARTS = { "Content-Type": "multipart/form-data; boundary=x" };
const LINES = { "Content-Type": "application/x-ndjson" };

/** A request, made when it is sent, and the statuses that may answer it. */
export interface HostileRequest {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: () => string | null;
  readonly statuses: readonly number[];
}

function posting(
  name: string,
  headers: Record<string, string>,
  body: () => string,
): HostileRequest {
  return { name, method: "POST", path: "/", headers, body, statuses: [200, 400, 413, 415] };
}

function putting(name: string, body: () => string): HostileRequest {
  const statuses = [200, 201, 400, 413];
  return { name, method: "PUT", path: "/a", headers: JSON_TYPE, body, statuses };
}

function getting(name: string, headers: Record<string, string>, path = "/a"): HostileRequest {
  const statuses = [200, 304, 400, 401, 403, 412, 414, 431];
  return { name, method: "GET", path, headers, body: () => null, statuses };
}

/** Repeats a text up to about `bytes`. */
function filled(text: string, bytes: number): string {
  return text.repeat(Math.floor(bytes / text.length));
}

const LARGEST = 16 * MIB - 100;
const part = (i: number) => `--x\r\nContent-Disposition: form-data; name="k${i}"\r\n\r\n1\r\n`;
const many = (count: number, text: (i: number) => string, separator = ",") =>
  Array.from({ length: count }, (_, i) => text(i)).join(separator);

/** Requests against the limits of the service. */
export const HOSTILE_REQUESTS: HostileRequest[] = [
  posting("1.4 million keys", JSON_TYPE, () => `{${many(1_400_000, (i) => `"k${i}":1`)}}`),
  posting("one key, 1.4 million times", JSON_TYPE, () => `{${filled('"a":1,', LARGEST)}"a":1}`),
  posting(
    "10,000 keys of escapes",
    JSON_TYPE,
    () => `{${many(9_999, (i) => `"k${i}":"${"\\u00e9".repeat(270)}"`)}}`,
  ),
  posting(
    "10,000 keys of numbers",
    JSON_TYPE,
    () => `{${many(9_999, (i) => `"k${i}":[${"1.0, ".repeat(320)}1]`)}}`,
  ),
  posting("a key of 16 MiB of escapes", JSON_TYPE, () => `{"${filled("\\u0001", LARGEST)}":1}`),
  posting(
    "1,000 operations of 16 KiB",
    JSON_TYPE,
    () => `[${many(1000, (i) => `{"op":"put","key":"k${i}","value":"${"x".repeat(16_000)}"}`)}]`,
  ),
  posting("8 million operations", JSON_TYPE, () => `[${filled("0,", LARGEST)}0]`),
  posting(
    "operations with a million members",
    JSON_TYPE,
    () => `[{${filled('"op":"get",', LARGEST)}"key":"a"}]`,
  ),
  posting(
    "an operation of 5 MiB of brackets",
    JSON_TYPE,
    () =>
      `[{${
        many(5, (i) => `"a${i}":[${filled(`${"[".repeat(99)}${"]".repeat(99)},`, MIB - 300)}1]`)
      }}]`,
  ),
  posting("a form of 2 million fields", FORM, () => many(2_000_000, (i) => `${i}=`, "&")),
  posting("a form of one field of escapes", FORM, () => `a=${filled("%41", LARGEST)}`),
  posting(
    "a form of 9,999 fields of escapes",
    FORM,
    () => many(9_999, (i) => `k${i}=${"%C3%A9".repeat(260)}`, "&"),
  ),
  posting("a form of 200,000 parts", PARTS, () => `${many(200_000, part, "")}--x--\r\n`),
  posting("a form of 9,999 parts", PARTS, () => `${many(9_999, part, "")}--x--\r\n`),
  posting(
    "a form of 999 parts with 2 KiB of headers",
    PARTS,
    () =>
      `${
        many(999, (i) => part(i).replace(/(?=\r\n\r\n)/, `\r\nX: ${"x".repeat(1950)}`), "")
      }--x--\r\n`,
  ),
  posting(
    "a part with a header of 16 MiB",
    PARTS,
    () =>
      `--x\r\nContent-Disposition: form-data; name="${
        filled("a;=", LARGEST)
      }"\r\n\r\n1\r\n--x--\r\n`,
  ),
  posting("7 million lines", LINES, () => `${filled("{}\n", LARGEST)}`),
  posting("16 million empty lines", LINES, () => filled("\n", LARGEST)),
  posting("a million entries", LINES, () => filled('{"a":1}\n', 8 * MIB)),
  posting("a line of 170,000 members", LINES, () => `{${many(170_000, (i) => `"${i}":1`)}}`),
  posting(
    "a line of 2 MiB of blanks, 8 times",
    LINES,
    () => filled(`${" ".repeat(2 * MIB - 2)}\n`, LARGEST),
  ),
  putting("numbers with a point", () => `[${filled("1.0,", LARGEST)}1]`),
  putting("numbers of a million digits", () => `[${many(15, () => "9".repeat(1e6))}]`),
  putting("16 MiB of escapes", () => `"${filled("\\u00e9", LARGEST)}"`),
  putting("strings of one escape", () => `["${filled('\\u00e9","', LARGEST)}"]`),
  putting("8 million brackets", () => `${"[".repeat(8e6)}${"]".repeat(8e6)}`),
  putting("8 million braces", () => filled('{"":', LARGEST)),
  putting("16 MiB of white space", () => filled(" ", LARGEST)),
  putting("a value spread over 16 MiB", () => `[${filled("1        ,       ", LARGEST)}1]`),
  putting("16 MiB that are not JSON", () => filled("x", LARGEST)),
  getting("If-Match of 50,000 tags", { "If-Match": filled('"a",', 200_000) }),
  getting("If-None-Match of commas", { "If-None-Match": filled(", ", 200_000) }),
  getting("If-Match of quotes", { "If-Match": filled('"', 200_000) }),
  getting("a long Accept", { Accept: filled("a/b;q=0.1,", 200_000) }, "/"),
  getting("a long Authorization", { Authorization: `Bearer ${filled(" ", 100_000)}=` }),
  getting("a long Cookie", { Cookie: filled("a=b; ", 200_000) }),
  getting("a long query", {}, `/?prefix=${filled("%41", 60_000)}`),
  getting("a query of 20,000 parameters", {}, `/?${many(20_000, (i) => `${i}`, "&")}`),
  getting("a long path", {}, `/${filled("%C3%A9", 60_000)}`),
];
