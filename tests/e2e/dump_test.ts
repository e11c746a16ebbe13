/** dump.ts as a program. */
import { assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../../kv.ts";
import { json } from "../../stores/json/text.ts";
import { memoryStore } from "../../stores/memory.ts";
import {
  freePort,
  Program,
  PROJECT,
  runToEnd,
  startScript,
  startServer,
  temporaryDirectory,
  testWith,
} from "../helpers/programs.ts";
import { cli, REDIS, startRedis } from "../helpers/redis_servers.ts";
import { scoped } from "../helpers/scoped.ts";
import { serve } from "../helpers/http.ts";

const OPTIONS = ["run", "--quiet", "--allow-net", "--allow-read", "--allow-write", "--allow-env"];

Deno.test("dump.ts restores what it has printed", async () => {
  await using from = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await using to = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const values = { twitter: "@csuf", "a\n\x1b": ["\u202e", 1], list: [1, null] };
  await set(from.url, values);
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "backup.ndjson");
  const first = await dump(from.url);
  await Deno.writeTextFile(file, first.stdout);
  assertEquals(await dump("--restore", file, to.url), {
    code: 0,
    stdout: "",
    stderr: "Restored 3 entries\n",
  });
  assertEquals(await dump(to.url), first);
  assertEquals((await dump("--prefix", "tw", to.url)).stdout, '{"twitter": "@csuf"}\n');
  assertEquals(JSON.parse((await dump("--format", "json", to.url)).stdout), values);
});

Deno.test("dump.ts keeps lifetimes in a backup, and in a copy", async () => {
  await using from = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await using to = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const entry = { method: "PUT", body: "1", headers: { "Content-Type": "application/json" } };
  const put = await fetch(`${from.url}/short?ttl=3600`, entry);
  await put.body?.cancel();
  await set(from.url, { long: 2 });
  const expires = Date.parse(put.headers.get("Expires") ?? "");
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "kv.backup");
  const backup = await dump("--format", "backup", from.url);
  const lines = /^{"key": "long", "value": 2, "expires": null}\n{"key": "short", .* (\d+)}\n$/;
  assertMatch(backup.stdout, lines);
  assertEquals(backup.stdout, await (await fetch(`${from.url}/?backup`)).text());
  const gone = '{"key": "gone", "value": 1, "expires": 1700000000000}\n{"plain": 3}\n';
  await Deno.writeTextFile(file, backup.stdout + gone);
  const restored = await dump("--restore", file, "--ttl", "60", to.url);
  assertEquals(restored.stderr, "Restored 3 entries, left out 1 that had expired\n");
  assertEquals((await dump(to.url)).stdout, '{"long": 2}\n{"plain": 3}\n{"short": 1}\n');

  const database = join(directory.path, "copy.db");
  const copied = await dump("--to", database, from.url);
  assertEquals(copied, { code: 0, stdout: "", stderr: "Copied 2 entries\n" });
  for (const url of [to.url, database]) {
    const text = (await dump("--format", "backup", "--prefix", "short", url)).stdout;
    const { expires: kept } = JSON.parse(text);
    // The header has whole seconds.
    assertEquals(kept >= expires && kept < expires + 60_000, true, `${kept} for ${expires}`);
  }
  assertFailed(
    await dump("--to", database, from.url),
    1,
    /^Cannot copy: the target has "long" already, and has to be empty\n$/,
  );
});

Deno.test("dump.ts --to names a key that is too long for the target's prefix", async () => {
  await using directory = await temporaryDirectory();
  const [from, to] = ["from.db", "to.db"].map((name) => join(directory.path, name));
  const lines = join(directory.path, "lines");
  const long = "L".repeat(1020);
  await Deno.writeTextFile(lines, `{"a": 1}\n{"${long}": 2}\n{"z": 3}\n`);
  assertEquals((await dump("--restore", lines, `${from}`)).code, 0);
  const sentence = new RegExp(
    `^Cannot copy "${long}": .* it is over 1024 bytes \\(copied before it: 2\\)\n$`,
  );
  assertFailed(await dump("--to", `${to}?prefix=counter:`, `${from}`), 1, sentence);
});

Deno.test("dump.ts --to leaves out what has expired by its own clock, and says so", async () => {
  await using memory = scoped(memoryStore({ now: () => Date.now() - 3_600_000 }));
  await memory.set("kept", json(1));
  await memory.set("gone", json(2), { ttl: 60 });
  await using service = serve(kv(memory).fetch);
  await using directory = await temporaryDirectory();
  const to = join(directory.path, "to.db");
  const copied = await dump("--to", to, service.url);
  const stderr = "Copied 1 entry, left out 1 that had expired\n";
  assertEquals(copied, { code: 0, stdout: "", stderr });
});

Deno.test("dump.ts --to rejects a part of its source, and says how to copy under a prefix", async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "kv.db");
  await using part = await startServer("kv.ts", { env: { DBM: `${file}?prefix=x%3A` } });
  const backup = join(directory.path, "kv.backup");
  await Deno.writeTextFile(backup, '{"key": "a", "value": 1, "expires": null}\n');
  assertEquals((await dump("--restore", backup, file)).code, 0);
  const targets = [`${file}?prefix=x:`, `sqlite:${directory.path}/./kv.db?prefix=x%3A`, part.url];
  for (const target of targets) {
    const sentence =
      /^Cannot copy a store into itself: .* restore a backup: dump\.ts --format backup URL > FILE, /;
    assertFailed(await dump("--to", target, file), 1, sentence);
  }
  assertEquals((await dump("--format", "backup", file)).stdout, await Deno.readTextFile(backup));
  assertEquals((await dump("--restore", backup, targets[0] ?? "")).code, 0);
  assertEquals((await dump(file)).stdout, '{"a": 1}\n{"x:a": 1}\n');
});

Deno.test("deno task dump copies between services, each with a token of its own", async () => {
  const [KV_TOKEN, KV_TO_TOKEN] = ["the-token-of-the-source", "the-token-of-the-target"];
  await using from = await startServer("kv.ts", { env: { DBM: ":memory:", KV_TOKEN } });
  await using to = await startServer("kv.ts", { env: { DBM: ":memory:", KV_TOKEN: KV_TO_TOKEN } });
  const copy = async (env: Record<string, string>) => {
    const args = ["task", "--quiet", "dump", "--to", to.url, from.url];
    return await runToEnd(Deno.execPath(), args, { cwd: PROJECT, env });
  };
  assertFailed(await copy({}), 1, /^http:\S+ requires a token: set KV_TO_TOKEN\n$/);
  assertFailed(await copy({ KV_TOKEN }), 1, /requires another token: set KV_TO_TOKEN\n$/);
  assertFailed(await copy({ KV_TO_TOKEN }), 1, /requires a token: set KV_TOKEN\n$/);
  assertEquals((await copy({ KV_TOKEN, KV_TO_TOKEN })).stderr, "Copied 0 entries\n");
  const list = { KV_TOKEN: `${KV_TOKEN}, another`, KV_TO_TOKEN: `["${KV_TO_TOKEN}"]` };
  assertEquals((await copy(list)).stderr, "Copied 0 entries\n");
  assertFailed(await copy({ KV_TOKEN: "a b" }), 2, /^Cannot send the token of KV_TOKEN: expected/);
});

Deno.test("dump.ts reads a token for a service only, and an empty one as none", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const envs = [[kv.url, { KV_TOKEN: "" }], [":memory:", { KV_TOKEN: "a b" }]] as const;
  for (const [url, env] of envs) {
    const printed = await runToEnd(Deno.execPath(), [...OPTIONS, "dump.ts", url], { env });
    assertEquals(printed, { code: 0, stdout: "", stderr: "The store is empty\n" });
  }
});

Deno.test("dump.ts says that there is nothing to print", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  assertEquals(await dump(kv.url), { code: 0, stdout: "", stderr: "The store is empty\n" });
  const { code, stderr } = await dump("--prefix", "x", kv.url);
  assertEquals({ code, stderr }, { code: 0, stderr: 'No key begins with "x"\n' });
});

Deno.test("dump.ts --watch prints changes as they happen", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await set(kv.url, { before: 1 });
  const args = [...OPTIONS, "dump.ts", "--watch", kv.url];
  await using watching = new Program(Deno.execPath(), args);
  await watching.printed(/^\{"before": 1\}$/m);
  await set(kv.url, { after: 1 });
  await watching.printed(/^\{"after": 1\}$/m);
  await (await fetch(`${kv.url}/before`, { method: "DELETE" })).text();
  await watching.printed(/^\{"before": null\}$/m);
});

testWith(["script"], "dump.ts uses colors at a terminal, unless NO_COLOR is set", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await set(kv.url, { foo: "\x9b" });
  const command = `"${Deno.execPath()}" ${OPTIONS.join(" ")} dump.ts ${kv.url}`;
  for (const [NO_COLOR, wanted] of [["", '{\x1b[36m"foo"\x1b[39m: '], ["1", '{"foo": ']] as const) {
    // script gives the command a terminal.
    const args = ["-qfec", command, "/dev/null"];
    const { stdout } = await runToEnd("script", args, { env: { NO_COLOR } });
    assertEquals(stdout, `${wanted}"\\u009b"}\r\n`);
  }
});

testWith(["script"], "dump.ts prints a table at a terminal that has no width", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await set(kv.url, { foo: "bar" });
  const command = `"${Deno.execPath()}" ${OPTIONS.join(" ")} dump.ts --format table ${kv.url}`;
  const { stdout } = await runToEnd("script", ["-qfec", command, "/dev/null"]);
  assertMatch(stdout, /^foo {35} +never {2}"bar"\r$/m);
});

testWith(["script"], "dump.ts shows its progress in a long dump, copy and restore", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const values = Object.fromEntries(Array.from({ length: 250 }, (_, i) => [`k${i}`, i]));
  await set(kv.url, values);
  await using slow = serve(async ({ method, url, headers, body }) => {
    await new Promise((resolve) => setTimeout(resolve, 600));
    const { pathname, search } = new URL(url);
    return await fetch(kv.url + pathname + search, { method, headers, body });
  });
  const url = slow.url;
  const command = `"${Deno.execPath()}" ${OPTIONS.join(" ")} dump.ts ${url} > /dev/null`;
  const { code, stdout } = await runToEnd("script", ["-qfec", command, "/dev/null"]);
  assertEquals(code, 0);
  assertMatch(stdout, /^\rentries: \d+\r/);
  assertEquals(stdout.split("\r").at(-1), "\x1b[K");

  await using directory = await temporaryDirectory();
  const file = join(directory.path, "lines");
  await Deno.writeTextFile(file, Array.from({ length: 2000 }, (_, i) => `{"${i}":1}\n`).join(""));
  for (
    const [options, last] of [
      [`--to ${join(directory.path, "copy.db")}`, "Copied 250 entries\r\n"],
      [`--restore ${file}`, "Restored 2000 entries\r\n"],
    ] as const
  ) {
    const writing = command.replace("dump.ts", `dump.ts ${options}`).replace(/ >.*/, "");
    const { stdout } = await runToEnd("script", ["-qfec", writing, "/dev/null"]);
    const [progress, end] = stdout.split("\x1b[K");
    assertMatch(progress ?? "", /^(\rentries: [\d,]+)+\r$/);
    assertEquals(end, last);
  }
});

Deno.test("dump.ts explains itself, and rejects wrong arguments with exit code 2", async () => {
  const help = await dump("--help");
  assertEquals([help.code, help.stderr], [0, ""]);
  assertMatch(help.stdout, /^Usage: dump\.ts \[options\] URL\n/);
  const wrong: [string[], RegExp][] = [
    [[], /^Expected the URL of a store/],
    [[":memory:", "redis://ann:secret@h"], /^Expected one URL, not also "redis:\/\/ann:\*\*\*@h"/],
    [["--colour", ":memory:"], /^Unknown option "--colour"/],
    [
      ["--format", "xml", ":memory:"],
      /^--format is "xml": expected lines or backup or table or json/,
    ],
    [["--watch", "--format", "json", "http://x"], /^--watch has no end/],
    [["--watch", "kv.db"], /^--watch needs a service or Redis/],
    [["--watch", "--format", "backup", "http://x"], /^--watch has no end/],
    [[":memory:", "--restore"], /^--restore needs a file/],
    [["--restore", "x", "--prefix", "a", ":memory:"], /^--restore takes no --prefix/],
    [["--restore", "x", "--watch", ":memory:"], /^--restore takes no --watch/],
    [["--to", "x.db", "--format", "table", ":memory:"], /^--to takes no --format/],
    [["--to", "x.db", "--restore", "y", ":memory:"], /^--restore takes no --to/],
    [["--to", "x.db", "--watch", "kv.db"], /^--watch needs a service or Redis/],
    [[":memory:", "--to"], /^--to needs the URL/],
    [
      ["--to", "http://a:secret@x", "http://a:secret@x"],
      /^Cannot copy "http:\/\/a:\*\*\*@x" to itself/,
    ],
    [["--format", "redis://ann:secret@h", "x.db"], /^--format is "redis:\/\/ann:\*\*\*@h"/],
    [["--from=redis://ann:secret@h", "x.db"], /^Unknown option "--from=redis:\/\/ann:\*\*\*@h"/],
    [["--watch=redis://ann:secret@h"], /^Cannot read "--watch=redis:\/\/ann:\*\*\*@h"/],
    [
      ["--restore", "x", "--ttl", "redis://ann:secret@h", "x.db"],
      /^--ttl is "redis:\/\/ann:\*{3}@h"/,
    ],
    [["--ttl", "60", ":memory:"], /^A dump takes no --ttl/],
    [["--restore", "x", "--ttl", "1h", ":memory:"], /^--ttl is "1h": expected a whole number/],
    [["--watch=no", "http://x"], /^Cannot read "--watch=no": --watch takes no value/],
    [["--watch=", "http://x"], /^Cannot read "--watch=": --watch takes no value/],
    [["--prefix", "a", "--prefix=b", ":memory:"], /^--prefix is repeated: expected it once/],
    [[":memory:", "--prefix"], /^--prefix needs a value/],
    [["--prefix", "--watch", ":memory:"], /^--prefix needs a value/],
  ];
  for (const [args, message] of wrong) {
    const { code, stdout, stderr } = await dump(...args);
    assertMatch(stderr, message);
    assertMatch(stderr, /^[^\n]+; dump\.ts --help explains\n$/);
    assertEquals([code, stdout], [2, ""]);
  }
});

Deno.test("dump.ts names the limit of a ttl", async () => {
  for (const ttl of ["0", "99999999999"]) {
    const sentence = new RegExp(`"${ttl}" seconds: expected a whole number from 1 to \\d+\n$`);
    assertFailed(await dump("--restore", "x", "--ttl", ttl, ":memory:"), 2, sentence);
  }
});

Deno.test("dump.ts says which file it cannot restore", async () => {
  const files: [string, RegExp][] = [
    ["nothing.ndjson", /^Cannot read "nothing\.ndjson": No such file or directory[^:]*\n$/],
    ["docs", /^Cannot read "docs": Is a directory\n$/],
    ["redis://ann:secret@h", /^Cannot read "redis:\/\/ann:\*\*\*@h": No such file[^:]*\n$/],
    ["/proc/self/mem", /^Cannot read "\/proc\/self\/mem": .*\n$/],
  ];
  for (const [file, sentence] of files) {
    assertFailed(await dump("--restore", file, ":memory:"), 1, sentence);
  }
});

Deno.test("dump.ts restores what another program prints", async () => {
  await using restoring = startScript("dump.ts", ["--restore", "-", ":memory:"], {
    stdin: "piped",
  });
  await restoring.type('{"a": 1}\n{"b": 2}');
  assertEquals([await restoring.exited, restoring.output], [0, "Restored 2 entries\n"]);
});

testWith(["deno"], "dump.ts prints a line for each entry", async () => {
  await using kv = await startServer("kv.ts");
  await set(kv.url, { twitter: "CSUF", github: "csuf", cpsc449: [1, 2] });
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
  ["script", "deno"],
  "dump.ts asks for permission at a terminal",
  async () => {
    await using kv = await startServer("kv.ts");
    await set(kv.url, { twitter: "CSUF" });
    const command = `deno run dump.ts ${kv.url}`;
    // script gives the command a terminal.
    await using terminal = new Program("script", ["-qfec", command, "/dev/null"], {
      stdin: "piped",
      env: { NO_COLOR: "1" },
    });
    await terminal.printed(/net access to "localhost:\d+"[^]*\[y\/n/);
    await delay(1000); // Deno denies what an answer too quick for a person asks
    await terminal.type("y\n");
    await terminal.printed(/\{"twitter": "CSUF"\}/);
    assertEquals(await terminal.exited, 0);
  },
);

Deno.test("dump.ts without a terminal says which permission it needs", async () => {
  for (const host of ["localhost", "127.0.0.1"]) {
    const url = `http://${host}:${freePort()}`;
    const refused = await runToEnd(Deno.execPath(), ["run", "dump.ts", url]);
    assertFailed(
      refused,
      1,
      /(cannot be reached: not permitted|^Requires net access).*--allow-net/,
    );
  }
});

Deno.test("dump.ts says in one sentence why it cannot read a store", async () => {
  assertFailed(await dump("ftp://x"), 2, /^Cannot open the store "ftp:\/\/x": expected /);
  assertFailed(await dump("ftp://\x1b[2J"), 2, /^Cannot open the store "ftp:\/\/\\u001b\[2J": /);
  assertFailed(await dump("nothing.db"), 1, /^Cannot open the store "nothing.db": /);
  const port = freePort();
  assertFailed(
    await dump(`http://localhost:${port}`),
    1,
    new RegExp(`^http://localhost:${port} cannot be reached: .*refused.*\n$`),
  );
});

Deno.test("dump.ts says in one sentence that the disk is full", async () => {
  await using kv = await startServer("kv.ts");
  await set(kv.url, { a: 1 });
  const command = `"${Deno.execPath()}" run --quiet --allow-net dump.ts ${kv.url} > /dev/full`;
  assertFailed(await runToEnd("sh", ["-c", command]), 1, /^No space left on device/);
});

Deno.test("dump.ts ends without an error when its reader has had enough, as head does", async () => {
  await using kv = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await set(kv.url, Object.fromEntries(Array.from({ length: 50 }, (_, i) => [i, "x".repeat(1e5)])));
  const command = `"${Deno.execPath()}" ${OPTIONS.join(" ")} dump.ts ${kv.url}`;
  const piped = await runToEnd("sh", ["-c", `{ ${command}; echo "$?" >&2; } | head -c 10`]);
  assertEquals(piped, { code: 0, stdout: '{"0": "xxx', stderr: "0\n" });
});

Deno.test("dump.ts says that a URL is not a key-value service", async () => {
  const pages: [Response, RegExp][] = [
    [new Response("<h1>It works!</h1>"), /is not a key-value service: it answered no JSON\n$/],
    [Response.json({ some: "API" }), /is not a key-value service: it answered other JSON\n$/],
    [
      new Response("None", { status: 404 }),
      /is not a key-value service: it answered status 404\n$/,
    ],
    [Response.redirect("http://localhost/"), /it answered status 302\n$/],
  ];
  let page = new Response();
  await using server = serve(() => page);
  for (const [response, sentence] of pages) {
    page = response;
    assertFailed(await dump(`http://localhost:${server.addr.port}`), 1, sentence);
  }
});

Deno.test("dump.ts says that a service times out or closes the connection", async () => {
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

Deno.test("dump.ts keeps what it printed before the service failed", async () => {
  await using kv = await startServer("kv.ts");
  const values = Array.from({ length: 150 }, (_, i) => [`key${i}`, i]);
  await set(kv.url, Object.fromEntries(values));
  let posts = 0;
  await using between = serve(async ({ method, url, headers, body }) => {
    const { pathname, search } = new URL(url);
    if (method === "POST" && ++posts === 4) return new Response("", { status: 502 });
    return await fetch(kv.url + pathname + search, { method, headers, body });
  });
  const { code, stdout, stderr } = await dump(between.url);
  assertMatch(stderr, /^http:\S+ answered 502: a proxy got no answer from it\n$/);
  assertEquals(code, 1);
  assertEquals(stdout.trimEnd().split("\n").length, 1 + 2 + 4);
});

testWith(REDIS, "dump.ts names a key of Redis that another program wrote", async () => {
  await using redis = await startRedis();
  const url = `redis://127.0.0.1:${redis.port}`;
  await cli(redis.port, "SET", "text", "hello");
  await cli(redis.port, "RPUSH", "list", "1");
  for (const key of ["text", "list"]) {
    const problem = new RegExp(`^Cannot read "${key}": another program wrote it; give .*\n$`);
    assertFailed(await dump("--prefix", key, url), 1, problem);
  }
});

/** Sets all of these keys. */
async function set(url: string, values: Record<string, unknown>): Promise<void> {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(values) });
  assertEquals(response.status, 200, await response.text());
}

async function dump(...args: string[]) {
  return await runToEnd(Deno.execPath(), [...OPTIONS, "dump.ts", ...args]);
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
