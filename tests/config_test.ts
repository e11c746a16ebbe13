import { assert, assertEquals, assertMatch, assertNotMatch, assertThrows } from "@std/assert";
import { join } from "node:path";
import { ConfigError, ConfigFile, readConfig } from "../server/config.ts";
import { PROJECT, runToEnd } from "./helpers/programs.ts";

/** Reads a configuration file with this text. */
async function readText(text: string, environment: Record<string, string> = {}) {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, text);
    return readConfig({ APP_CONFIG: path, ...environment });
  } finally {
    await Deno.remove(path);
  }
}

/** The problems of a wrong configuration, without the file's name. */
async function problems(text: string, environment: Record<string, string> = {}) {
  try {
    await readText(text, environment);
  } catch (error) {
    assert(error instanceof ConfigError);
    return error.message.split("\n").map((line) => line.replace(/^\/[^:]*: /, ""));
  }
  return [];
}

Deno.test("readConfig() returns the default of each key", async () => {
  assertEquals(await readText("{}"), {
    USE_SESSION_STORE: false,
    KV_URL: "http://localhost:5100",
    KV_TOKEN: [],
    KV_READ_TOKEN: [],
    DBM: "kv.db",
    SECRET_KEY_FALLBACKS: [],
    SESSION_COOKIE_NAME: "session",
    SESSION_COOKIE_PATH: "/",
    SESSION_COOKIE_SECURE: "auto",
    SESSION_COOKIE_SAMESITE: "Lax",
    SESSION_COOKIE_PARTITIONED: false,
    SESSION_COOKIE_DIGEST: "sha256",
    SESSION_COOKIE_ENCRYPT: false,
    PERMANENT_SESSION_LIFETIME: 2678400,
    HASH_SESSION_IDS: false,
    TRUST_PROXY: false,
    HOST: "127.0.0.1",
    LOG: "events",
  });
});

Deno.test("readConfig() lets the environment override the file, as text or as JSON", async () => {
  const file = '{"USE_SESSION_STORE": false, "SECRET_KEY": "the key of the file"}';
  const config = await readText(file, {
    USE_SESSION_STORE: "true",
    SECRET_KEY: "12345678901234567890",
    SECRET_KEY_FALLBACKS: '["an older secret key"]',
    SESSION_COOKIE_SECURE: "false",
    PERMANENT_SESSION_LIFETIME: "60",
    KV_TOKEN: "",
    PORT: "8080",
  });
  assertEquals(config.USE_SESSION_STORE, true);
  assertEquals(config.SECRET_KEY, "12345678901234567890");
  assertEquals(config.SECRET_KEY_FALLBACKS, ["an older secret key"]);
  assertEquals(config.SESSION_COOKIE_SECURE, false);
  assertEquals(config.PERMANENT_SESSION_LIFETIME, 60);
  assertEquals(config.KV_TOKEN, []);
  assertEquals(config.PORT, 8080);
});

Deno.test("readConfig() reports every problem: the key, its value, what is expected", async () => {
  const file = {
    KV_URI: "x",
    toString: "x",
    USE_SESSION_STORE: "yes",
    KV_URL: "ftp://x",
    SESSION_COOKIE_SAMESITE: "lax",
    PERMANENT_SESSION_LIFETIME: -1,
    SECRET_KEY_FALLBACKS: "x",
    SECRET_KEY: 1,
    KV_TOKEN: [],
    DBM: 5,
    PORT: 5000,
  };
  assertEquals(await problems(JSON.stringify(file), { HOST: "", PORT: "http" }), [
    "KV_URI is unknown: did you mean KV_URL?",
    "toString is unknown: expected one of the keys in docs/CONFIGURATION.md",
    "PORT is set: expected it in the environment only",
    'USE_SESSION_STORE is "yes": expected true or false',
    `KV_URL is "ftp://x": ${wantedUrl()}`,
    "KV_TOKEN is a list of 0: expected a token, or a list of tokens",
    "DBM is 5: expected a store's URL",
    "SECRET_KEY is not a string: expected at least 16 characters",
    "SECRET_KEY_FALLBACKS is a string of 1 characters: expected a list of keys",
    'SESSION_COOKIE_SAMESITE is "lax": expected Strict, Lax or None',
    "PERMANENT_SESSION_LIFETIME is -1: expected whole seconds, from 1 to 34560000",
    'environment: PORT is "http": expected a port, from 0 to 65535',
  ]);
});

Deno.test("readConfig() refuses the quotes and line ends that an env file leaves", async () => {
  const environment = {
    USE_SESSION_STORE: "true\r",
    KV_URL: "'http://localhost:5100'",
    KV_TOKEN: `"${"t".repeat(16)}"`,
    DBM: '"kv.db"',
    SECRET_KEY: `${"s".repeat(16)}\r`,
    SECRET_KEY_FALLBACKS: `'["${"s".repeat(16)}"]'`,
    SESSION_COOKIE_NAME: "a\x1b",
    HOST: " localhost",
    PORT: '"5000"',
  };
  const expected = "expected no quotes, spaces or control characters around it";
  assertEquals(await problems("{}", environment), [
    `environment: USE_SESSION_STORE is "true\\r": ${expected}`,
    `environment: KV_URL is "'http://localhost:5100'": ${expected}`,
    `environment: KV_TOKEN is a string of 18 characters: ${expected}`,
    `environment: DBM is "\\"kv.db\\"": ${expected}`,
    `environment: SECRET_KEY is a string of 17 characters: ${expected}`,
    `environment: SECRET_KEY_FALLBACKS is a string of 22 characters: ${expected}`,
    `environment: SESSION_COOKIE_NAME is "a\\u001b": ${expected}`,
    `environment: HOST is " localhost": ${expected}`,
    `environment: PORT is "\\"5000\\"": ${expected}`,
  ]);
  const path = await problems("{}", { APP_CONFIG: "counter.cfg.json\r" });
  assertEquals(path, [`environment: APP_CONFIG is "counter.cfg.json\\r": ${expected}`]);
});

Deno.test("readConfig() turns one token and a list of tokens into a list", async () => {
  const [one, other] = ["the-first-token-of-two", "the-second-token-of-two"];
  const reading = [`${one}-to-read`, other];
  const file = JSON.stringify({ KV_TOKEN: one, KV_READ_TOKEN: reading });
  const config = await readText(file, { KV_TOKEN: "" });
  assertEquals([config.KV_TOKEN, config.KV_READ_TOKEN], [[one], reading]);
});

Deno.test("readConfig() splits a variable at commas into a list, unless it is JSON", async () => {
  const [one, other] = ["the-first-token-of-two", "the-second-token-of-two"];
  const config = await readText("{}", {
    KV_TOKEN: `${one},${other}`,
    KV_READ_TOKEN: `${one}-to-read, ${other}-to-read`,
    SECRET_KEY: "a secret key, with a comma",
    SECRET_KEY_FALLBACKS: '["an older key, with a comma"]',
    KV_URL: "redis+cluster://a:1,b:2",
  });
  assertEquals(config.KV_TOKEN, [one, other]);
  assertEquals(config.KV_READ_TOKEN, [`${one}-to-read`, `${other}-to-read`]);
  assertEquals(config.SECRET_KEY, "a secret key, with a comma");
  assertEquals(config.SECRET_KEY_FALLBACKS, ["an older key, with a comma"]);
  assertEquals(config.KV_URL, "redis+cluster://a:1,b:2");
  const single = await readText("{}", { SECRET_KEY_FALLBACKS: "an older secret key" });
  assertEquals(single.SECRET_KEY_FALLBACKS, ["an older secret key"]);
  assertEquals(await problems("{}", { SECRET_KEY_FALLBACKS: "short" }), [
    "environment: SECRET_KEY_FALLBACKS is a list of 1: expected at least 16 characters",
  ]);
  assertEquals(await problems("{}", { KV_TOKEN: `${one},`, PORT: "1,2" }), [
    "environment: KV_TOKEN is a string of 23 characters: " +
    "expected at least 16 letters, digits, or any of - . _ ~ + /",
    'environment: PORT is "1,2": expected a port, from 0 to 65535',
  ]);
});

Deno.test("readConfig() takes any name or address for HOST, and says what is none", async () => {
  for (const HOST of ["::1", "[::1]", "0.0.0.0", "kv_1.example", "localhost"]) {
    assertEquals((await readText("{}", { HOST })).HOST, HOST.replace(/[[\]]/g, ""));
  }
  for (
    const HOST of ["*", ".", "fe80::1%lo", "127.0.0.1:80", "http://localhost", "local host", "ü.de"]
  ) {
    assertEquals(await problems("{}", { HOST }), [
      `environment: HOST is "${HOST}": expected a name or an address, no port`,
    ]);
  }
});

Deno.test("readConfig() refuses what stands in DEPLOY.md in place of a token or a key", async () => {
  const page = await Deno.readTextFile(join(PROJECT, "docs/DEPLOY.md"));
  const [, block = ""] = /^```json\n([^]*?)^```$/m.exec(page) ?? [];
  const placeholders = Object.entries(JSON.parse(block))
    .filter(([, value]) => /^<.*>$/.test(String(value)));
  assertEquals(placeholders.map(([key]) => key), ["KV_TOKEN", "KV_READ_TOKEN", "SECRET_KEY"]);
  for (const [key, value] of placeholders) {
    const [line = ""] = await problems(JSON.stringify({ [key]: value }), { [key]: "" });
    assertMatch(line, new RegExp(`^${key} is a string of \\d+ characters: expected`));
  }
});

Deno.test("readConfig() rejects a key that needs another one, and names it", async () => {
  const file = { KV_READ_TOKEN: "a-token-that-only-reads" };
  assertEquals(await problems(JSON.stringify(file), { KV_TOKEN: "" }), [
    "KV_READ_TOKEN is set: expected KV_TOKEN to be set as well",
  ]);
  const same = { ...file, KV_TOKEN: ["a-token-that-also-writes", file.KV_READ_TOKEN] };
  assertEquals(await problems(JSON.stringify(same)), [
    "KV_READ_TOKEN has a token of KV_TOKEN, which can write: expected another",
  ]);
  assertEquals(await problems(JSON.stringify({ ...same, SECRET_KEY: "short" })), [
    "SECRET_KEY is a string of 5 characters: expected at least 16 characters",
    "KV_READ_TOKEN has a token of KV_TOKEN, which can write: expected another",
  ]);
  const valid = { ...file, KV_TOKEN: "a-token-that-also-writes" };
  assertEquals(await problems(JSON.stringify(valid)), []);
});

function wantedUrl(): string {
  return ConfigFile.shape.KV_URL.safeParse("ftp://x").error?.issues[0]?.message ?? "";
}

Deno.test("readConfig() never prints a secret", async () => {
  const environment = { SECRET_KEY: "hunter2", KV_TOKEN: "pass word pass word" };
  const lines = await problems('{"SECRET_KEY_FALLBACKS": ["hunter3"]}', environment);
  assertEquals(lines.length, 3);
  assertNotMatch(lines.join(), /hunter|pass word/);
});

Deno.test("readConfig() never prints the password in a store's URL", async () => {
  const file = { KV_URL: "redis+cluster://ann:hunter2@x/7", DBM: "redis://:hun@t/er2@x" };
  const lines = await problems(JSON.stringify(file), { KV_TOKEN: "" });
  assertMatch(
    lines[0] ?? "",
    /^KV_URL is "redis\+cluster:\/\/ann:\*{3}@x\/7": expected no database/,
  );
  assertMatch(lines[1] ?? "", /^DBM is "redis:\/\/:\*{3}@x": expected %2F/);
  const [line] = await problems('{"KV_URL": ["redis://ann:hunter2@x"]}');
  assertMatch(line ?? "", /^KV_URL is a list of 1: /);
});

Deno.test("readConfig() reads a file of 1 MiB at most, and no pipe, device or directory", async () => {
  const directory = await Deno.makeTempDir();
  const pipe = join(directory, "pipe");
  await new Deno.Command("mkfifo", { args: [pipe] }).output();
  for (const path of [pipe, directory, "/dev/zero"]) {
    assertThrows(() => readConfig({ APP_CONFIG: path }), ConfigError, "expected a regular file");
  }
  await Deno.remove(directory, { recursive: true });
  assertMatch((await problems(`{}${" ".repeat(2 ** 20)}`))[0] ?? "", /expected 1048576 bytes/);
});

Deno.test("readConfig() describes a value that is nested deeply, long or not a number", async () => {
  const deep = "[".repeat(50_000) + "]".repeat(50_000);
  assertMatch((await problems(`{"DBM": ${deep}}`))[0] ?? "", /^DBM is a list of 1: /);
  assertMatch((await problems('{"KV_URL": {"a": 1}}'))[0] ?? "", /^KV_URL is an object: /);
  const file = { KV_URL: "ftp://" + "x".repeat(10_000) };
  assert((await problems(JSON.stringify(file))).join().length < 500);
  assertMatch(
    (await problems('{"PERMANENT_SESSION_LIFETIME": 1e400}'))[0] ?? "",
    /LIFETIME is Infinity: /,
  );
});

Deno.test("readConfig() says which file cannot be read, and why", async () => {
  assertMatch(
    (await problems("{"))[0] ?? "",
    /^Cannot read ".*": expected JSON: Expected property name/,
  );
  assertMatch((await problems("[]"))[0] ?? "", /^Cannot read ".*": expected a JSON object/);
  assertMatch((await problems("5"))[0] ?? "", /expected a JSON object/);
  assertMatch(
    String(assertThrows(() => readConfig({ APP_CONFIG: "nowhere.json" }))),
    /^ConfigError: Cannot read "nowhere.json": No such file/,
  );
  const latin1 = await Deno.makeTempFile();
  await Deno.writeFile(latin1, Uint8Array.from('{"SECRET_KEY":"é"}', (it) => it.charCodeAt(0)));
  assertMatch(
    String(assertThrows(() => readConfig({ APP_CONFIG: latin1 }))),
    /^ConfigError: Cannot read ".*": expected UTF-8$/,
  );
  await Deno.remove(latin1);
  assertEquals(await problems('\ufeff{"DBM":"a.db"}'), []);
});

Deno.test("counter.cfg.json is valid, and its schema is what deno task schema writes", async () => {
  readConfig({ APP_CONFIG: join(PROJECT, "counter.cfg.json") });
  const schema = await Deno.readTextFile(join(PROJECT, "counter.cfg.schema.json"));
  const { stdout } = await runToEnd(Deno.execPath(), ["run", "server/config.ts"]);
  assertEquals(JSON.parse(schema), JSON.parse(stdout));
});
