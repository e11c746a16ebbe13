/**
 * The key-value service and the counter as their command-line clients see them: HTTPie, `dump.ts`
 * and Python's requests. The points in the names are those of the mission.
 */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { freePort, Program, runToEnd, startServer, testWith } from "../helpers/programs.ts";

const PYTHON = "/usr/bin/python3";
const REQUESTS = "/usr/lib/python3/dist-packages/requests/__init__.py";
const UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

// ---- HTTPie --------------------------------------------------------------------------------

testWith(["http"], "HTTPie gets from kv.ts what the original answers (point 4)", async () => {
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

testWith(["http"], "HTTPie gets from counter.ts what the original answers", async () => {
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
});

// ---- dump.ts -------------------------------------------------------------------------------

testWith(["http", "deno"], "dump.ts prints a line for each entry (point 5)", async () => {
  await using kv = await startServer("kv.ts");
  for (const entry of ["twitter=CSUF", "github=csuf", "cpsc449:=[1,2]"]) {
    assertEquals((await http(kv.url, entry)).status, 200);
  }
  const ways = [
    ["deno", "run", "--allow-net", "dump.ts", kv.url],
    ["./dump.ts", kv.url],
    ["deno", "task", "dump", kv.url],
  ] as const;
  for (const [command, ...args] of ways) {
    const { code, stdout } = await runToEnd(command, args);
    assertEquals(code, 0);
    assertEquals(stdout, '{"cpsc449": [1,2]}\n{"github": "csuf"}\n{"twitter": "CSUF"}\n');
  }
});

testWith(
  ["script", "deno", "http"],
  "dump.ts asks at a terminal for the network, and goes on",
  async () => {
    await using kv = await startServer("kv.ts");
    assertEquals((await http(kv.url, "twitter=CSUF")).status, 200);
    const command = `deno run dump.ts ${kv.url}`;
    // script gives the command a terminal.
    await using terminal = new Program("script", ["-qfec", command, "/dev/null"], {
      stdin: "piped",
    });
    await terminal.printed(/net access to "localhost:\d+"[^]*\[y\/n/);
    await delay(1000); // Deno denies what an answer too quick for a person asks
    await terminal.type("y\n");
    await terminal.printed(/\{"twitter": "CSUF"\}/);
    assertEquals(await terminal.exited, 0);
  },
);

Deno.test("dump.ts says without a terminal that it may not use the network", async () => {
  const url = `http://localhost:${freePort()}`;
  const refused = await runToEnd(Deno.execPath(), ["run", "dump.ts", url]);
  assertFailed(refused, 1, /^Requires net access to "localhost:\d+", .*--allow-net/);
});

Deno.test("dump.ts says how it is called, with exit code 2", async () => {
  assertFailed(await dump(), 2, /^Usage: dump\.ts URL/);
  assertFailed(await dump(":memory:", ":memory:"), 2, /^Usage: dump\.ts URL/);
});

Deno.test("dump.ts says in a sentence why it cannot read a store", async () => {
  assertFailed(await dump("ftp://x"), 2, /^Cannot open the store "ftp:\/\/x": expected /);
  assertFailed(await dump("nothing.db"), 1, /^Cannot open the store "nothing.db": /);
  const port = freePort();
  assertFailed(
    await dump(`http://localhost:${port}`),
    1,
    new RegExp(`^http://localhost:${port} cannot be reached: .*refused.*\n$`),
  );
});

Deno.test("dump.ts says in a sentence that there is no room for what it prints", async () => {
  await using kv = await startServer("kv.ts");
  await (await fetch(kv.url, {
    method: "POST",
    body: "a=1",
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  })).text();
  const command = `"${Deno.execPath()}" run --quiet --allow-net dump.ts ${kv.url} > /dev/full`;
  assertFailed(await runToEnd("sh", ["-c", command]), 1, /^No space left on device/);
});

Deno.test("dump.ts says that an address is no key-value service", async () => {
  const pages: [Response, RegExp][] = [
    [new Response("<h1>It works!</h1>"), /is no key-value service: it answered no JSON\n$/],
    [Response.json({ some: "API" }), /is no key-value service: it answered other JSON\n$/],
    [new Response("None", { status: 404 }), /is no key-value service: it answered status 404\n$/],
    [Response.redirect("http://localhost/"), /it answered status 302\n$/],
  ];
  let page = new Response();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => page,
  );
  for (const [response, sentence] of pages) {
    page = response;
    assertFailed(await dump(`http://localhost:${server.addr.port}`), 1, sentence);
  }
});

Deno.test("dump.ts says that a service does not answer, or cut the connection", async () => {
  const begun =
    'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"ke';
  for (
    const [answer, sentence] of [
      [null, /^http:\S+ did not answer in time\n$/],
      ["", /^http:\S+ cut the connection\n$/],
      [begun, /^http:\S+ cut the connection\n$/],
    ] as const
  ) {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const failed = dump(`http://127.0.0.1:${listener.addr.port}`);
    using connection = await listener.accept();
    await connection.read(new Uint8Array(4096));
    if (answer !== null) {
      await connection.write(new TextEncoder().encode(answer));
      await connection.closeWrite();
    }
    assertFailed(await failed, 1, sentence);
  }
});

Deno.test("dump.ts keeps what it has printed before the service failed", async () => {
  await using kv = await startServer("kv.ts");
  const entries = Array.from({ length: 150 }, (_, i) => [`key${i}`, i]);
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(Object.fromEntries(entries));
  await fetch(kv.url, { method: "POST", headers, body }).then((response) => response.text());
  let posts = 0;
  await using between = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async ({ method, url, headers, body }) => {
      const { pathname, search } = new URL(url);
      if (method === "POST" && ++posts === 2) return new Response("", { status: 502 });
      return await fetch(kv.url + pathname + search, { method, headers, body });
    },
  );
  const { code, stdout, stderr } = await dump(`http://127.0.0.1:${between.addr.port}`);
  assertMatch(stderr, /^http:\S+ is no key-value service: it answered status 502\n$/);
  assertEquals(code, 1);
  assertEquals(stdout.trimEnd().split("\n").length, 100);
});

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

async function dump(...args: string[]) {
  const options = ["run", "--allow-net", "--allow-read", "--allow-env", "dump.ts"];
  return await runToEnd(Deno.execPath(), [...options, ...args]);
}

function assertFailed(
  { code, stdout, stderr }: Awaited<ReturnType<typeof runToEnd>>,
  wantedCode: number,
  sentence: RegExp,
): void {
  assertMatch(stderr, sentence);
  assertMatch(stderr, /^[^\n]+\n$/, "more than one line");
  assertEquals(code, wantedCode);
  assertEquals(stdout, "");
}
