/** How the servers start and stop: by their tasks and the Procfile, with right and wrong settings. */
import { assert, assertEquals, assertMatch, assertNotMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import {
  freePort,
  Program,
  PROJECT,
  runToEnd,
  type Server,
  startServer,
  testWith,
} from "../helpers/programs.ts";

const UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
const SECRET_KEY = "a secret key for the tests";
const KV_TOKEN = "a-token-for-the-tests";

// ---- Both at once --------------------------------------------------------------------------

Deno.test("deno task start runs both servers, and tells their lines apart", async () => {
  await using directory = await temporaryDirectory();
  const env = { DBM: join(directory.path, "kv.db"), SECRET_KEY, PORT: "0", NO_COLOR: "1" };
  await using both = new Program(Deno.execPath(), ["task", "start"], { env });
  const [, counterUrl = ""] = await both.printed(/^ *\[counter\] counter: (http:\S+)$/m);
  const [, kvUrl = ""] = await both.printed(/^ *\[kv\] kv: (http:\S+)$/m);
  assertMatch(await page(counterUrl), /Count: 1/);
  assertEquals(await page(kvUrl), '{"keys":[]}');
  assertEquals(await both.stop("SIGTERM"), 0, both.output);
  assertMatch(both.output, /counter: stopping\n/);
  assertMatch(both.output, /kv: stopping\n/);
  for (const url of [counterUrl, kvUrl]) await assertRejects(() => fetch(url));
});

testWith(
  ["foreman", "npx"],
  "foreman start runs both servers 100 ports apart, and stops them on SIGTERM",
  async () => {
    await using directory = await temporaryDirectory();
    const base = freePortPair();
    const env = { DBM: join(directory.path, "kv.db"), SECRET_KEY };
    await using foreman = new Program("foreman", ["start", "-t", "60", "-p", String(base)], {
      env,
    });
    const counterUrl = `http://127.0.0.1:${base}`;
    const kvUrl = `http://127.0.0.1:${base + 100}`;
    await foreman.printed(new RegExp(`^[\\d:]+ counter.1 +\\| counter: ${counterUrl}$`, "m"));
    await foreman.printed(new RegExp(`^[\\d:]+ kv.1 +\\| kv: ${kvUrl}$`, "m"));
    assertMatch(await page(counterUrl), /Count: 1/);
    assertEquals(await page(kvUrl), '{"keys":[]}');
    assertEquals(await foreman.stop("SIGTERM"), 0, foreman.output);
    assertMatch(foreman.output, /counter.1 +\| exited with code 0\n/);
    assertMatch(foreman.output, /kv.1 +\| exited with code 0\n/);
    for (const url of [counterUrl, kvUrl]) await assertRejects(() => fetch(url));
  },
);

// ---- Configuration -------------------------------------------------------------------------

Deno.test("counter.ts and kv.ts start without a configuration file", async () => {
  await using directory = await temporaryDirectory();
  const env = { APP_CONFIG: "", SECRET_KEY: "", DBM: join(directory.path, "kv.db") };
  await using counter = await startServer("counter.ts", { env });
  await using kv = await startServer("kv.ts", { env });
  assertMatch(await page(counter.url), /Count: 1.*Kept in a signed cookie/);
  assertEquals(await page(kv.url), '{"keys":[]}');
  assertMatch(counter.program.output, /^counter: SECRET_KEY is not set, so a random one was made/);
});

Deno.test("counter.ts and kv.ts tell every problem of the configuration in a line", async () => {
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

Deno.test("counter.ts says which file is not JSON, and prints nothing of its secrets", async () => {
  for (const text of [`{"SECRET_KEY": 's3cret'}`, `{"SECRET_KEY": s3cret`, "s3cret"]) {
    const { code, stderr } = await startWrong("counter.ts", text);
    assertMatch(stderr, /^counter: Cannot read "counter\.cfg\.json": expected JSON: [^\n]+\n$/);
    assertNotMatch(stderr, /s3c/);
    assertEquals(code, 1);
  }
});

Deno.test("counter.ts says that the file which APP_CONFIG names is not there", async () => {
  const { code, stderr } = await startWrong("counter.ts", "{}", { APP_CONFIG: "other.json" });
  assertMatch(stderr, /^counter: Cannot read "other\.json": [^\n]+\n$/);
  assertEquals(code, 1);
});

Deno.test("counter.ts obeys an environment variable over its file", async () => {
  const config = { USE_SESSION_STORE: true, SECRET_KEY, SESSION_COOKIE_NAME: "one" };
  const env = { USE_SESSION_STORE: "false", SESSION_COOKIE_NAME: "two" };
  await using counter = await startServer("counter.ts", { config, env });
  assertMatch(await cookieOf(counter), /^two=/);
  assertMatch(await page(counter.url), /Kept in a signed cookie/);
});

Deno.test("counter.ts and kv.ts say that their port is taken", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  for (const script of ["counter.ts", "kv.ts"]) {
    const env = { PORT: String(port), SECRET_KEY };
    const { code, stderr } = await startWrong(script, "{}", env);
    assertMatch(stderr, new RegExp(`^\\w+: Port ${port} of 127.0.0.1 is taken: [^\n]+\n$`));
    assertEquals(code, 1);
  }
});

// ---- Secrets and tokens --------------------------------------------------------------------

Deno.test("counter.ts keeps a cookie valid over a restart if SECRET_KEY is set", async () => {
  for (const [secretKey, countAfter] of [[SECRET_KEY, 2], ["", 1]] as const) {
    const env = { SECRET_KEY: secretKey };
    let cookie: string;
    {
      await using counter = await startServer("counter.ts", { env });
      cookie = await cookieOf(counter);
    }
    await using counter = await startServer("counter.ts", { env });
    const html = await page(counter.url, { Cookie: cookie });
    assertMatch(html, new RegExp(`Count: ${countAfter}<`));
    assertEquals(counter.program.output.includes("SECRET_KEY is not set"), secretKey === "");
  }
});

Deno.test("kv.ts refuses to let other machines in without a token", async () => {
  const { code, stderr } = await startWrong("kv.ts", "{}", { HOST: "0.0.0.0", PORT: "0" });
  assertMatch(stderr, /^kv: HOST is "0\.0\.0\.0", [^\n]+ KV_TOKEN [^\n]+\n$/);
  assertEquals(code, 1);
});

Deno.test("kv.ts refuses a token that reads where none is asked for", async () => {
  const KV_READ_TOKEN = "a-token-that-reads";
  const { code, stderr } = await startWrong("kv.ts", "{}", { KV_READ_TOKEN, PORT: "0" });
  assertEquals(stderr, "kv: KV_READ_TOKEN is set: expected KV_TOKEN to be set as well\n");
  assertEquals(code, 1);
});

Deno.test("kv.ts with a token serves its bearers alone, counter.ts among them", async () => {
  await using kv = await startServer("kv.ts", { env: { HOST: "0.0.0.0", KV_TOKEN } });
  const refused = await fetch(kv.url);
  assertEquals(refused.status, 401);
  assertMatch(refused.headers.get("WWW-Authenticate") ?? "", /^Bearer/);
  await refused.body?.cancel();
  assertEquals(await page(kv.url, { Authorization: `Bearer ${KV_TOKEN}` }), '{"keys":[]}');

  // As a list, too, of which clients send the first.
  for (const token of [KV_TOKEN, JSON.stringify([KV_TOKEN, `${KV_TOKEN}-of-later`])]) {
    const env = { KV_TOKEN: token };
    const { stderr, code } = await runToEnd(
      Deno.execPath(),
      ["run", "--allow-net", "--allow-env", "dump.ts", kv.url],
      { env },
    );
    assertEquals({ stderr, code }, { stderr: "", code: 0 });
  }

  const config = { USE_SESSION_STORE: true, KV_URL: kv.url, KV_TOKEN };
  await using counter = await startServer("counter.ts", { config });
  assertMatch(await page(counter.url), /Count: 1/);

  const wrong = { ...config, KV_TOKEN: `${KV_TOKEN}-of-another-service` };
  await using stranger = await startServer("counter.ts", { config: wrong });
  const answer = await fetch(stranger.url);
  assertEquals(answer.status, 503);
  assertNotMatch(await answer.text(), new RegExp(KV_TOKEN));
  await stranger.program.printed(/^counter: http:\S+ wants another token: set KV_TOKEN$/m);
  assert(!stranger.program.output.includes(KV_TOKEN));
});

// ---- Stopping ------------------------------------------------------------------------------

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`kv.ts answers on ${signal} what was begun, and has it on disk`, async () => {
    await using directory = await temporaryDirectory();
    const env = { DBM: join(directory.path, "kv.db") };
    const answered: string[] = [];
    {
      await using kv = await startServer("kv.ts", { env });
      const enough = Promise.withResolvers<void>();
      const writers = Array.from(
        { length: 16 },
        (_, writer) =>
          putUntilRefused(kv.url, `writer${writer}`, (key) => {
            if (answered.push(key) === 200) enough.resolve();
          }),
      );
      await Promise.race([enough.promise, Promise.all(writers)]);
      kv.program.signal(signal);
      await Promise.all(writers);
      assertEquals(await kv.program.exited, 0, kv.program.output);
    }
    await using kv = await startServer("kv.ts", { env });
    assertEquals(JSON.parse(await page(kv.url)).keys, answered.sort());
  });

  Deno.test(`counter.ts answers on ${signal} the page that waits for the store`, async () => {
    const arrived = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    await using kv = await startServer("kv.ts");
    await using slowStore = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      async ({ method, headers, body }) => {
        arrived.resolve();
        await released.promise;
        return await fetch(kv.url, { method, headers, body });
      },
    );
    const KV_URL = `http://127.0.0.1:${slowStore.addr.port}`;
    const config = { USE_SESSION_STORE: true, KV_URL };
    await using counter = await startServer("counter.ts", { config });
    const waiting = page(counter.url);
    await arrived.promise;
    counter.program.signal(signal);
    await counter.program.printed(/^counter: stopping$/m);
    released.resolve();
    assertMatch(await waiting, /Count: 1/);
    assertEquals(await counter.program.exited, 0);
    assertMatch(await page(kv.url), new RegExp(`^{"keys":\\["${UUID4}"\\]}$`));
  });
}

Deno.test("kv.ts stops once a long dump is read, or else after ten seconds", async () => {
  await using kv = await startServer("kv.ts");
  const value = "x".repeat(100_000);
  for (const half of [0, 1]) {
    const values = Array.from({ length: 100 }, (_, i) => [`${half}-${i}`, value]);
    const body = JSON.stringify(Object.fromEntries(values));
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(kv.url, { method: "POST", body, headers });
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
  const headers = { Accept: "application/x-ndjson" };
  const [read, leftAlone] = await Promise.all([1, 2].map(() => fetch(kv.url, { headers })));
  kv.program.signal("SIGTERM");
  await kv.program.printed(/^kv: stopping$/m);
  assertEquals((await read?.text())?.split("\n").length, 201);
  assertEquals(await kv.program.exited, 0, kv.program.output);
  await assertRejects(async () => await leftAlone?.text(), "what is cut looks like nothing whole");
});

Deno.test("kv.ts ends at once on a second signal", async () => {
  await using kv = await startServer("kv.ts");
  using _request = await beginPut(kv.url);
  kv.program.signal("SIGTERM");
  await kv.program.printed(/^kv: stopping$/m);
  kv.program.signal("SIGTERM");
  assertEquals(await kv.program.exited, 130);
});

/** Writes key after key, until the server takes no more connections. */
async function putUntilRefused(url: string, writer: string, onAnswer: (key: string) => void) {
  const headers = { "Content-Type": "application/json" };
  for (let i = 0;; i++) {
    const key = `${writer}-${i}`;
    let response: Response;
    try {
      response = await fetch(`${url}/${key}`, { method: "PUT", headers, body: String(i) });
    } catch (error) {
      // Any other error would be a request that was begun and not answered.
      assertMatch(`${(error as Error).message} ${(error as Error).cause}`, /\(Connect\)/);
      return;
    }
    assertEquals(response.status, 201, await response.text());
    onAnswer(key);
  }
}

/** Begins a request, and waits until the server wants its body. */
async function beginPut(url: string): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const request = "PUT /key HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
    "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n";
  await connection.write(new TextEncoder().encode(request));
  const buffer = new Uint8Array(1024);
  const size = await connection.read(buffer);
  assertMatch(new TextDecoder().decode(buffer.subarray(0, size ?? 0)), /^HTTP\/1\.1 100 /);
  return connection;
}

// ---- Programs and requests -----------------------------------------------------------------

/** Starts a server that cannot start, beside this counter.cfg.json. */
async function startWrong(script: string, configText: string, env: Record<string, string> = {}) {
  await using directory = await temporaryDirectory();
  await Deno.writeTextFile(join(directory.path, "counter.cfg.json"), configText);
  const run = ["run", "--allow-net", "--allow-read", "--allow-write", "--allow-env"];
  const options = { cwd: directory.path, env };
  return await runToEnd(Deno.execPath(), [...run, join(PROJECT, script)], options);
}

async function page(url: string, headers: Record<string, string> = {}): Promise<string> {
  const response = await fetch(url, { headers });
  const text = await response.text();
  assertEquals(response.status, 200, text);
  return text;
}

/** The cookie of a first visit. */
async function cookieOf(counter: Server): Promise<string> {
  const response = await fetch(counter.url);
  await response.body?.cancel();
  return response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
}

async function temporaryDirectory() {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A port that is free, and so is the one 100 above it. */
function freePortPair(): number {
  for (;;) {
    const port = freePort();
    if (port + 100 > 65535) continue;
    try {
      Deno.listen({ hostname: "127.0.0.1", port: port + 100 }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
