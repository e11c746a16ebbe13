/** What the servers print. */
import { assert, assertEquals, assertMatch, assertNotMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { printable, Repeats } from "../server/log.ts";
import { PROJECT, runToEnd, startServer, testWith } from "./helpers/programs.ts";

Deno.test("printable() escapes what controls a terminal or reorders text", () => {
  assertEquals(
    printable("a\n\x1b[2J\x7f\x9b\u2028\u202e\u2066"),
    "a\\u000a\\u001b[2J\\u007f\\u009b\\u2028\\u202e\\u2066",
  );
  const shown = "é 漢 👨‍👩‍👧 شما";
  assertEquals(printable(shown), shown);
});

Deno.test("a log line holds one message, whatever text it quotes", async () => {
  const log = await messages(`console.error("a\\x1b[2J", "b\\rc\\u202e\\nkv: forged")`);
  assertEquals(log, "kv: a\\u001b[2J b\\u000dc\\u202e\n    kv: forged\n");
});

Deno.test("Repeats prints an error when it begins, each interval with a count, and when it stops", async () => {
  const lines: string[] = [];
  const repeats = new Repeats(40);
  const add = (text: string) => repeats.add(text, (line) => lines.push(line));
  add("no disk");
  for (let i = 0; i < 1999; i++) add("no store");
  assertEquals(lines, ["no disk", "no store"]);
  while (lines.length < 3) await delay(5);
  assertEquals(lines[2], "1,998 more in 0.04 s: no store");
  while (lines.length < 4) await delay(5);
  assertEquals(lines[3], "none for 0.04 s, 1,999 in all: no store");
  add("no store");
  assertEquals(lines[4], "no store", "it is over");
  await delay(100);
  assertEquals(lines.length, 5, "a single one has no end");
});

testWith(["sh"], "a log without room costs no request, and not the program", async () => {
  const main = `await run("kv", async () => { console.log(1); console.error(2); Deno.exit(7) })`;
  const code = `import { run } from "./server/program.ts"; ${main}`;
  const command = 'exec "$0" eval "$1" >/dev/full 2>&1';
  const result = await runToEnd("sh", ["-c", command, Deno.execPath(), code], { cwd: PROJECT });
  assertEquals(result.code, 7);
});

Deno.test("counter.ts over a store that is down prints one line for all of its pages", async () => {
  const KV_URL = "redis://127.0.0.1:1";
  await using counter = await startServer("counter.ts", {
    env: { USE_SESSION_STORE: "true", KV_URL },
  });
  const pages = Array.from({ length: 50 }, async () => {
    const response = await fetch(counter.url);
    await response.body?.cancel();
    return response.status;
  });
  assertEquals(new Set(await Promise.all(pages)), new Set([503]));
  await counter.program.stop();
  assertEquals(counter.program.output.match(/^counter: Cannot use Redis.*$/gm)?.length, 1);
  assertNotMatch(counter.program.output, /(more in|none for) (?!5 s)/);
});

Deno.test("an error that nobody caught is logged as any other, and ends the program", async () => {
  const error = `new Error("x\\x1b")`;
  const forever = "await new Promise(() => {})";
  const programs = [
    `throw ${error}`,
    `Promise.reject(${error}); ${forever}`,
    `setTimeout(() => { throw ${error} }); ${forever}`,
  ];
  for (const main of programs) {
    assertMatch(await messages(main, 1), /^kv: Error: x\\u001b\n( {8}at .*\n)+$/);
  }
});

Deno.test("LOG=requests prints a line with the time for each request, without keys and queries", async () => {
  await using kv = await startServer("kv.ts", { env: { LOG: "requests", DBM: ":memory:" } });
  await (await fetch(`${kv.url}/?prefix=secret`)).text();
  await (await fetch(`${kv.url}/secret`, { method: "DELETE" })).text();
  await kv.program.stop();
  const lines = kv.program.output.trimEnd().split("\n").map((line) => {
    const [, time = "", rest] = /^kv: (\S+Z) (.*)$/.exec(line) ?? [];
    assert(Math.abs(Date.parse(time) - Date.now()) < 60_000, line);
    return rest?.replace(/\d+ ms$/, "n ms");
  });
  assertEquals(lines, [
    `${kv.url} (store :memory:, entries: 0)`,
    "GET / 200 n ms",
    "DELETE /… 200 n ms",
    "stopping",
  ]);
});

Deno.test("LOG=json escapes what JSON leaves as it is and a terminal obeys", async () => {
  const text = "a\x9b2J\u202e";
  const output = await messages(`console.error(${JSON.stringify(text)})`, 0, { LOG: "json" });
  assertMatch(output, /^\{[\x20-\x7e]+\}\n$/);
  assertEquals(JSON.parse(output).message, text);
});

Deno.test("LOG=requests logs a request whose Host is malformed, and answers it", async () => {
  await using kv = await startServer("kv.ts", { env: { LOG: "requests", DBM: ":memory:" } });
  const connection = await Deno.connect({ port: Number(new URL(kv.url).port) });
  await connection.write(
    new TextEncoder().encode("GET / HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n"),
  );
  const answer = await new Response(connection.readable).text();
  assertMatch(answer, /^HTTP\/1\.1 403 /);
  await kv.program.printed(/^kv: \S+ GET \/ 403 \d+ ms$/m);
});

Deno.test("LOG=json prints every line as JSON", async () => {
  await using counter = await startServer("counter.ts", { env: { LOG: "json" } });
  await (await fetch(`${counter.url}/`)).text();
  await counter.program.stop();
  const lines = counter.program.output.trimEnd().split("\n").map((line) => JSON.parse(line));
  for (const { time, program } of lines) {
    assertEquals(new Date(time).toISOString(), time);
    assertEquals(program, "counter");
  }
  assertEquals(lines[0].message, `${counter.url} (sessions in a signed cookie)`);
  assertMatch(lines[1].message, /^SECRET_KEY is not set; .* To make a key: deno eval /);
  assertEquals(lines[1].level, "warn");
  const { method, path, status, ms, level } = lines[2];
  assertEquals([method, path, status, typeof ms, level], ["GET", "/", 200, "number", "info"]);
  assertEquals(lines[3].message, "stopping");
});

Deno.test("LOG=json prints why a response ended in its middle as JSON, too", async () => {
  await using below = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await using kv = await startServer("kv.ts", { env: { LOG: "json", DBM: below.url } });
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify("x".repeat(900_000));
  for (let i = 0; i < 40; i++) {
    const put = await fetch(`${below.url}/${i}`, { method: "PUT", headers, body });
    await put.body?.cancel();
  }
  const dump = await fetch(kv.url, { headers: { Accept: "application/x-ndjson" } });
  const reader = dump.body?.getReader();
  await reader?.read();
  below.program.signal("SIGKILL");
  await below.program.exited;
  await assertRejects(async () => {
    while (!(await reader?.read())?.done);
  });
  await kv.program.stop();
  const lines = kv.program.output.trimEnd().split("\n").map((line) => JSON.parse(line));
  const errors = lines.filter(({ level }) => level === "error");
  assertMatch(errors.map(({ message }) => message).join(), /^http:\S+ (cannot|cut) [^\n]*$/);
});

/** What a program with this code prints. */
async function messages(main: string, wantedCode = 0, env = {}): Promise<string> {
  const code =
    `import { run } from "./server/program.ts"; await run("kv", async () => { ${main} })`;
  const result = await runToEnd(Deno.execPath(), ["eval", code], { cwd: PROJECT, env });
  assertEquals(result.code, wantedCode, result.stderr);
  return result.stderr;
}
