/** The key-value service and the counter as HTTPie, Python's requests and curl see them. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { runToEnd, startServer, testWith } from "../helpers/programs.ts";
import { UUID4 } from "../helpers/http.ts";

const PYTHON = "/usr/bin/python3";
const REQUESTS = "/usr/lib/python3/dist-packages/requests/__init__.py";

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
    [["PATCH", `${address}/foo?ttl=60`], { foo: "bar" }],
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
    '400 "Cannot read the JSON: it ends too early"',
    '200 {"foo": "bar"}',
    '200 {"foo": null}',
    '200 {"foo": null}',
  ]);
});

// ---- curl ----------------------------------------------------------------------------------

const JSON_BODY = ["-H", "Content-Type: application/json", "-d"];
const LINES = ["-H", "Content-Type: application/x-ndjson", "--data-binary"];

/** Every row of the service's table, in an order in which each finds what it needs. */
const ROWS: [args: string[], status: number, answer: RegExp][] = [
  [["/", ...JSON_BODY, '{"foo": "bar", "n": 1.10}'], 200, /^\{"foo":"bar","n":1\.10\}$/],
  [["/?ttl=60", "-d", "form=a+text"], 200, /^\{"form":"a text"\}$/],
  [["/", "-F", "part=a text"], 200, /^\{"part":"a text"\}$/],
  [["/", ...JSON_BODY, '[{"op": "get", "key": "n"}]'], 200, /^\[\{"status":200,"value":1\.10,/],
  [["/", ...LINES, '{"line": [1]}\n{"foo": "bar"}\n'], 200, /^\{"restored":2\}$/],
  [["/foo"], 200, /^\{"foo":"bar"\}$/],
  [["/missing"], 200, /^\{"missing":null\}$/],
  [["/foo", "--head"], 200, /^HTTP\S+ 200[^]*\netag: "[^"]+"/i],
  [["/foo", "--head"], 200, /^content-length: 13\r$/mi],
  [["/?backup", "--head"], 200, /^(?![^]*content-length)HTTP/i],
  [["/", "--head", "-H", "Accept: text/event-stream"], 200, /^(?![^]*content-length)HTTP/i],
  [["/foo", "--head", "-H", "If-None-Match: *"], 304, /^(?![^]*content-length)HTTP/i],
  [["/foo", "-H", "Accept: text/plain"], 200, /^bar$/],
  [["/missing", "-H", "Accept: text/plain"], 404, /There is no entry/],
  [["/new?ttl=60", "-X", "PUT", ...JSON_BODY, "true"], 201, /^\{"new":true\}$/],
  [["/new", "-X", "PUT", ...JSON_BODY, "false"], 200, /^\{"new":false\}$/],
  [["/new", "-X", "PUT", "-H", "Content-Type: application/json"], 400, /it ends too early/],
  [["/new?ttl=60", "-X", "PATCH"], 200, /^\{"new":false\}$/],
  [["/new?ttl=60", "-X", "PATCH", "-d", "1"], 415, /expected \?ttl and no body/],
  [["/missing?ttl=60", "-X", "PATCH"], 404, /There is no entry/],
  [["/new", "-X", "DELETE", "-H", 'If-Match: "x"'], 412, /"current":\{"new":false\}/],
  [["/new", "-X", "DELETE"], 200, /^\{"new":false\}$/],
  [["/?prefix=f"], 200, /^\{"keys":\["foo","form"\]\}$/],
  [["/?limit=1"], 200, /^\{"keys":\["foo"\],"next":"foo"\}$/],
  [["/?prefix=fo", "-H", "Accept: application/x-ndjson"], 200, /^\{"foo": "bar"\}\n\{"form": /],
  [["/", "-H", "Accept: text/html"], 200, /<h1>Key-value store<\/h1>/],
  [["/", "-H", "Accept: text/event-stream", "-m", "1"], 200, /^event: ready\n/],
  [["/?health"], 200, /^\{"status":"ok"\}$/],
  [["/?metrics"], 200, /^kv_requests_total\{method="PATCH",status="200"\} 1$/m],
  [["/?openapi"], 200, /^\{"openapi":"3\.1/],
  [["/?prefix=f", "-X", "DELETE"], 200, /^\{"deleted":2\}$/],
  [["/?prefix=&all", "-X", "DELETE"], 200, /^\{"deleted":3\}$/],
  [["/", "-X", "PATCH"], 405, /expected GET, HEAD, POST, DELETE/],
];

for (const version of ["--http1.1", "--http2-prior-knowledge"]) {
  testWith(
    ["curl"],
    `curl ${version} gets the answer of each row of the service's table`,
    async () => {
      await using kv = await startServer("kv.ts");
      for (const [[path, ...args], status, answer] of ROWS) {
        const { stdout } = await runToEnd("curl", [
          ...["--silent", "--no-buffer", version, "--write-out", "\n%{http_code}"],
          ...args,
          kv.url + path,
        ]);
        const [, body = "", code] = /^([^]*)\n(\d+)$/.exec(stdout) ?? [];
        assertEquals(Number(code), status, `${path} ${args.join(" ")}: ${body}`);
        assertMatch(body, answer);
      }
    },
  );
}

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
