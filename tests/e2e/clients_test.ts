/** The key-value service and the counter as HTTPie and Python's requests see them. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { runToEnd, startServer, testWith } from "../helpers/programs.ts";

const PYTHON = "/usr/bin/python3";
const REQUESTS = "/usr/lib/python3/dist-packages/requests/__init__.py";
const UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

// ---- HTTPie --------------------------------------------------------------------------------

testWith(["http"], "HTTPie sets, gets, lists and removes", async () => {
  await using kv = await startServer("kv.ts");
  const address = kv.url.replace("http://", "");
  const cases: [args: string[], answer: unknown][] = [
    [[address, "foo=bar"], { foo: "bar" }],
    [[`${address}/foo`], { foo: "bar" }],
    [[`${address}/missing`], { missing: null }],
    [["-f", address, "form=a text", "n=2"], { form: "a text", n: "2" }],
    [[address], { keys: ["foo", "form", "n"] }],
    [[`${address}?prefix=f`], { keys: ["foo", "form"] }],
    [["DELETE", `${address}/foo`], { foo: "bar" }],
    [["DELETE", `${address}/foo`], { foo: null }],
  ];
  for (const [args, answer] of cases) {
    const { status, headers, body } = await http(...args);
    assertEquals(status, 200, args.join(" "));
    assertEquals(headers.get("Content-Type"), "application/json");
    assertEquals(JSON.parse(body), answer);
  }
});

testWith(
  ["http"],
  "HTTPie counts with an id in its cookie, and starts again after a reset",
  async () => {
    await using kv = await startServer("kv.ts");
    const config = { USE_SESSION_STORE: true, KV_URL: kv.url };
    await using counter = await startServer("counter.ts", { config });
    const first = await http(counter.url);
    assertEquals(first.status, 200);
    assertMatch(first.body, /<h1>Count: 1<\/h1>/);
    const cookie = first.headers.get("Set-Cookie") ?? "";
    const id = new RegExp(`^session=(${UUID4}); HttpOnly`).exec(cookie)?.[1];
    assert(id, cookie);

    const second = await http(counter.url, `Cookie:session=${id}`);
    assertMatch(second.body, /<h1>Count: 2<\/h1>/);
    assertEquals(second.headers.get("Set-Cookie"), cookie);
    const stored = await http(`${kv.url}/${id}`);
    assertEquals(JSON.parse(stored.body), { [id]: { count: 2 } });

    const reset = await http("POST", `${counter.url}/reset`, `Cookie:session=${id}`);
    assertEquals(reset.status, 303);
    assertEquals(reset.headers.get("Location"), "./");
    assertMatch(
      reset.headers.get("Set-Cookie") ?? "",
      /^session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT;/,
    );
    const third = await http(counter.url, `Cookie:session=${id}`);
    assertMatch(third.body, /<h1>Count: 1<\/h1>/);
    assertNotEquals(third.headers.get("Set-Cookie"), cookie);
  },
);

// ---- Python's requests ---------------------------------------------------------------------

testWith([PYTHON, REQUESTS], "requests sets, gets, lists and removes", async () => {
  await using kv = await startServer("kv.ts");
  const script = new URL("requests_client.py", import.meta.url).pathname;
  const { code, stdout, stderr } = await runToEnd(PYTHON, [script, kv.url]);
  assertEquals(code, 0, stderr);
  assertEquals(stdout.trimEnd().split("\n"), [
    '200 {"foo": "bar", "count": 1, "list": [null, "é"]}',
    '200 {"form": "a text", "n": "1"}',
    '200 {"foo": "bar"}',
    '200 {"n": "1"}',
    '200 {"keys": ["count", "foo", "form", "list", "n"]}',
    '200 {"keys": ["foo", "form"]}',
    '200 {"foo": "bar"}',
    '200 {"foo": null}',
    '200 {"foo": null}',
  ]);
});

// ---- Programs ------------------------------------------------------------------------------

/** Runs HTTPie, and gives the answer that it shows. */
async function http(...args: string[]) {
  const { code, stdout, stderr } = await runToEnd(
    "http",
    ["--ignore-stdin", "--print=hb", ...args],
    { env: { HTTPIE_CONFIG_DIR: "/nonexistent" } },
  );
  assertEquals(code, 0, stderr);
  const [, status, headerLines = "", body = ""] =
    /^HTTP\/1\.1 (\d+) .*\r\n([^]*?)\r\n\r\n([^]*)$/.exec(stdout) ?? [];
  const headers = headerLines.split("\r\n").map((line) => line.split(": ", 2) as [string, string]);
  return { status: Number(status), headers: new Headers(headers), body };
}
