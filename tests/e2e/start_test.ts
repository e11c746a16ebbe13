/** How a server starts, with right and wrong settings. */
import { assert, assertEquals, assertMatch, assertNotEquals, assertNotMatch } from "@std/assert";
import { join } from "node:path";
import { cookieOf, get } from "../helpers/http.ts";
import {
  freePort,
  PROJECT,
  runToEnd,
  startServer,
  temporaryDirectory,
  testIPv6,
} from "../helpers/programs.ts";

const SECRET_KEY = "a secret key for the tests";
const KV_TOKEN = "a-token-for-the-tests";

// ---- Configuration -------------------------------------------------------------------------

Deno.test("counter.ts and kv.ts start without a configuration file", async () => {
  await using directory = await temporaryDirectory();
  const env = { APP_CONFIG: "", SECRET_KEY: "", DBM: join(directory.path, "kv.db") };
  await using counter = await startServer("counter.ts", { env });
  await using kv = await startServer("kv.ts", { env });
  assertMatch(await get(counter.url), /Count: 1.*Kept in a signed cookie/);
  assertEquals(await get(kv.url), '{"keys":[]}');
  await counter.program.printed(
    /^counter: http.*\ncounter: SECRET_KEY is not set; using a random key\..* To make a key: deno eval /,
  );
});

Deno.test("counter.ts and kv.ts print one line for each problem of the configuration", async () => {
  const config = {
    USE_SESSION_STORE: "yes",
    KV_URL: "ftp://x",
    SECRET_KEY: "too short",
    KV_TOKEN: "no token at all",
    SESSION_COOKIE_SAMESITE: "lax",
    COLOUR: "red",
  };
  for (const script of ["counter.ts", "kv.ts"]) {
    const { code, stdout, stderr } = await startWrong(script, JSON.stringify(config));
    const name = script.replace(".ts", "");
    assertEquals(stderr.trimEnd().split("\n").map((line) => line.split(" is ")[0]), [
      `${name}: counter.cfg.json: COLOUR`,
      `${name}: counter.cfg.json: USE_SESSION_STORE`,
      `${name}: counter.cfg.json: KV_URL`,
      `${name}: counter.cfg.json: KV_TOKEN`,
      `${name}: counter.cfg.json: SECRET_KEY`,
      `${name}: counter.cfg.json: SESSION_COOKIE_SAMESITE`,
    ]);
    assertNotMatch(stderr, /too short|no token at all/);
    assertEquals(code, 1);
    assertEquals(stdout, "");
  }
});

Deno.test("counter.ts says which rule its cookie breaks", async () => {
  for (
    const [key, value, rule] of [
      ["SESSION_COOKIE_PARTITIONED", true, "Partitioned"],
      ["SESSION_COOKIE_SAMESITE", "None", "SameSite=None"],
    ] as const
  ) {
    const { code, stdout, stderr } = await startWrong(
      "counter.ts",
      JSON.stringify({ [key]: value }),
    );
    assertMatch(
      stderr,
      new RegExp(`counter: Cannot use the cookie "session": ${rule} asks for Secure`),
    );
    assertEquals([code, stdout], [1, ""]);
  }
});

Deno.test("counter.ts says which file is not JSON, and prints none of its secrets", async () => {
  for (const text of [`{"SECRET_KEY": 's3cret'}`, `{"SECRET_KEY": s3cret`, "s3cret"]) {
    const { code, stderr } = await startWrong("counter.ts", text);
    assertMatch(stderr, /^counter: Cannot read "counter\.cfg\.json": expected JSON: [^\n]+\n$/);
    assertNotMatch(stderr, /s3c/);
    assertEquals(code, 1);
  }
});

Deno.test("counter.ts says that the file named by APP_CONFIG is missing", async () => {
  const { code, stderr } = await startWrong("counter.ts", "{}", { APP_CONFIG: "other.json" });
  assertMatch(stderr, /^counter: Cannot read "other\.json": [^\n]+\n$/);
  assertEquals(code, 1);
});

Deno.test("counter.ts says in one sentence which cookie no browser would take", async () => {
  const wrong: [Record<string, string>, RegExp][] = [
    [{ SESSION_COOKIE_DOMAIN: "localhost:5000" }, /its domain is "localhost:5000": expected/],
    [{ SESSION_COOKIE_NAME: "__Host-id" }, /its prefix asks for Secure to be true/],
  ];
  for (const [settings, problem] of wrong) {
    const env = { SECRET_KEY, PORT: "0", ...settings };
    const { code, stderr } = await startWrong("counter.ts", "{}", env);
    assertMatch(stderr, /^counter: Cannot use the cookie "[^\n]+\n$/);
    assertMatch(stderr, problem);
    assertEquals(code, 1);
  }
});

Deno.test("an environment variable overrides counter.ts's file", async () => {
  const config = { USE_SESSION_STORE: true, SECRET_KEY, SESSION_COOKIE_NAME: "one" };
  const env = { USE_SESSION_STORE: "false", SESSION_COOKIE_NAME: "two" };
  await using counter = await startServer("counter.ts", { config, env });
  assertMatch(await cookieOf(counter.url), /^two=/);
  assertMatch(await get(counter.url), /Kept in a signed cookie/);
});

testIPv6("kv.ts listens on an IPv6 address, with and without brackets", async () => {
  for (const HOST of ["::1", "[::1]"]) {
    await using kv = await startServer("kv.ts", { env: { HOST, DBM: ":memory:" } });
    const [, url = ""] = await kv.program.printed(/^kv: (http:\/\/\[::1\]:\d+) /);
    assertEquals(await get(url), '{"keys":[]}');
  }
});

Deno.test("counter.ts and kv.ts say which command avoids a port that is taken", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  for (const script of ["counter.ts", "kv.ts"]) {
    const env = { PORT: String(port), SECRET_KEY };
    const { code, stderr } = await startWrong(script, "{}", env);
    const task = script.replace(".ts", "");
    const hint = new RegExp(
      `^\\w+: Port ${port} of 127.0.0.1 is taken: .* PORT=(\\d+) deno task ${task}\n$`,
    );
    assertMatch(stderr, hint);
    assertNotEquals(hint.exec(stderr)?.[1], `${port}`);
    assertEquals(code, 1);
  }
});

Deno.test("a first start downloads no package that only tests need", async () => {
  await using directory = await temporaryDirectory();
  const args = ["cache", ...["start.ts", "counter.ts", "kv.ts"].map((it) => join(PROJECT, it))];
  const options = { cwd: PROJECT, env: { DENO_DIR: directory.path } };
  const { code, stderr } = await runToEnd(Deno.execPath(), args, options);
  assertEquals(code, 0, stderr);
  const registries = await Array.fromAsync(Deno.readDir(join(directory.path, "npm")));
  const packages = await Array.fromAsync(
    Deno.readDir(join(directory.path, "npm", registries[0]?.name ?? "")),
    ({ name }) => name,
  );
  assert(packages.includes("hono"));
  for (const name of ["puppeteer-core", "fast-check"]) assert(!packages.includes(name));
});

// ---- Secrets and tokens --------------------------------------------------------------------

Deno.test("counter.ts accepts cookies after a restart if SECRET_KEY is set", async () => {
  for (const [secretKey, countAfter] of [[SECRET_KEY, 2], ["", 1]] as const) {
    const env = { SECRET_KEY: secretKey };
    let cookie: string;
    {
      await using counter = await startServer("counter.ts", { env });
      cookie = await cookieOf(counter.url);
    }
    await using counter = await startServer("counter.ts", { env });
    const html = await get(counter.url, { Cookie: cookie });
    assertMatch(html, new RegExp(`Count: ${countAfter}<`));
    assertEquals(counter.program.output.includes("SECRET_KEY is not set"), secretKey === "");
  }
});

Deno.test("kv.ts does not listen for other machines without a token", async () => {
  const { code, stderr } = await startWrong("kv.ts", "{}", { HOST: "0.0.0.0", PORT: "0" });
  assertMatch(stderr, /^kv: HOST is "0\.0\.0\.0", [^\n]+ KV_TOKEN [^\n]+\n$/);
  assertEquals(code, 1);
});

Deno.test("kv.ts warns that it is open to all behind a proxy without a token", async () => {
  for (const [token, isOpen] of [["", true], [KV_TOKEN, false]] as const) {
    const env = { DBM: ":memory:", TRUST_PROXY: "true", KV_TOKEN: token };
    await using kv = await startServer("kv.ts", { env });
    await kv.program.stop();
    assertEquals(/^kv: KV_TOKEN is not set: .* proxy/m.test(kv.program.output), isOpen);
  }
});

Deno.test("kv.ts does not serve itself", async () => {
  const port = freePort();
  const DBM = `http://localhost:${port}?prefix=a`;
  const { code, stderr } = await startWrong("kv.ts", "{}", { DBM, PORT: `${port}` });
  assertEquals(stderr, `kv: DBM is "${DBM}", this service itself: expected another store\n`);
  assertEquals(code, 1);
});

Deno.test("kv.ts rejects a read token without a token", async () => {
  const KV_READ_TOKEN = "a-token-that-reads";
  const { code, stderr } = await startWrong("kv.ts", "{}", { KV_READ_TOKEN, PORT: "0" });
  assertEquals(stderr, "kv: KV_READ_TOKEN is set: expected KV_TOKEN to be set as well\n");
  assertEquals(code, 1);
});

Deno.test("kv.ts with a token serves only clients that send it, such as counter.ts", async () => {
  await using kv = await startServer("kv.ts", { env: { HOST: "0.0.0.0", KV_TOKEN } });
  const refused = await fetch(kv.url);
  assertEquals(refused.status, 401);
  assertMatch(refused.headers.get("WWW-Authenticate") ?? "", /^Bearer/);
  await refused.body?.cancel();
  assertEquals(await get(kv.url, { Authorization: `Bearer ${KV_TOKEN}` }), '{"keys":[]}');

  // Of a list, clients send the first.
  for (const token of [KV_TOKEN, JSON.stringify([KV_TOKEN, `${KV_TOKEN}-of-later`])]) {
    const env = { KV_TOKEN: token };
    const { stderr, code } = await runToEnd(
      Deno.execPath(),
      ["run", "--allow-net", "--allow-env", "dump.ts", kv.url],
      { env },
    );
    assertEquals({ stderr, code }, { stderr: "The store is empty\n", code: 0 });
  }

  const config = { USE_SESSION_STORE: true, KV_URL: kv.url, KV_TOKEN };
  await using counter = await startServer("counter.ts", { config });
  assertMatch(await get(counter.url), /Count: 1/);

  const wrong = { ...config, KV_TOKEN: `${KV_TOKEN}-of-another-service` };
  await using stranger = await startServer("counter.ts", { config: wrong });
  const answer = await fetch(stranger.url);
  assertEquals(answer.status, 503);
  assertNotMatch(await answer.text(), new RegExp(KV_TOKEN));
  await stranger.program.printed(/^counter: http:\S+ requires another token: set KV_TOKEN$/m);
  assert(!stranger.program.output.includes(KV_TOKEN));
});

// ---- Programs and requests -----------------------------------------------------------------

/** Starts a server that cannot start, beside this counter.cfg.json. */
async function startWrong(script: string, configText: string, env: Record<string, string> = {}) {
  await using directory = await temporaryDirectory();
  await Deno.writeTextFile(join(directory.path, "counter.cfg.json"), configText);
  const run = ["run", "--allow-net", "--allow-read", "--allow-write", "--allow-env"];
  const options = { cwd: directory.path, env };
  return await runToEnd(Deno.execPath(), [...run, join(PROJECT, script)], options);
}
