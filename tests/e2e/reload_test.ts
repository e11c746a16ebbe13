/** SIGHUP: tokens, keys and passwords are read again while requests are answered. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../../kv.ts";
import { memoryStore } from "../../stores/memory.ts";
import { cookieOf, get, serve } from "../helpers/http.ts";
import {
  childrenOf,
  eventually,
  freePort,
  Program,
  PROJECT,
  startScript,
  temporaryDirectory,
  testWith,
} from "../helpers/programs.ts";
import { cli, REDIS, startRedis } from "../helpers/redis_servers.ts";
import { scoped } from "../helpers/scoped.ts";

const [OLD, NEW] = ["an-old-token-0123456789", "a-new-token-0123456789"];

/** Starts servers in a directory of their own. `reload` changes their file and sends SIGHUP. */
async function start(script: string, config: object, env: Record<string, string> = {}) {
  const directory = await temporaryDirectory();
  const file = join(directory.path, "counter.cfg.json");
  await Deno.writeTextFile(file, JSON.stringify(config));
  const options = { cwd: directory.path, env: { PORT: "0", ...env } };
  const program = script === "start.ts"
    ? new Program(Deno.execPath(), ["run", "-A", join(PROJECT, script)], options)
    : startScript(script, [], options);
  const name = script === "start.ts" ? "counter" : script.replace(".ts", "");
  const [, port] = await program.printed(new RegExp(`^${name}: http://\\S+:(\\d+) \\(`, "m"));
  return {
    program,
    url: `http://localhost:${port}`,
    async reload(config: object | string, printed: RegExp) {
      await Deno.writeTextFile(file, typeof config === "string" ? config : JSON.stringify(config));
      program.output = "";
      program.signal("SIGHUP");
      await program.printed(printed);
    },
    async [Symbol.asyncDispose]() {
      assertEquals(await program.stop(), 0, program.output);
      await directory[Symbol.asyncDispose]();
    },
  };
}

/** The steps of docs/DEPLOY.md that change a key, with these values for `<old>` and `<new>`. */
async function steps(key: string, old: string, fresh: string): Promise<object[]> {
  const page = await Deno.readTextFile(join(PROJECT, "docs/DEPLOY.md"));
  const lines = page.match(new RegExp(`^{ "${key}": .*<new>.* }$`, "gm")) ?? [];
  assert(lines.length > 0, key);
  return lines.map((it) => JSON.parse(it.replaceAll("<old>", old).replaceAll("<new>", fresh)));
}

/** What authorizes a request. */
const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });

async function statusOf(
  url: string,
  headers: HeadersInit,
  init: RequestInit = {},
): Promise<number> {
  const response = await fetch(url, { ...init, headers });
  await response.body?.cancel();
  return response.status;
}

/** Sends a request again and again, until it is stopped or fails; returns the statuses. */
function keepAsking(ask: () => Promise<number>) {
  let stopped = false;
  const statuses: number[] = [];
  const asking = Promise.allSettled(Array.from({ length: 4 }, async () => {
    while (!stopped) statuses.push(await ask());
  }));
  return async () => {
    stopped = true;
    const failed = (await asking).filter(({ status }) => status === "rejected");
    assertEquals(failed, []);
    assert(statuses.length > 0);
    return [...new Set(statuses)];
  };
}

Deno.test("dump.ts --watch goes on when a service reads its tokens again", async () => {
  await using kv = await start("kv.ts", { DBM: ":memory:", KV_TOKEN: OLD });
  const args = ["run", "-A", join(PROJECT, "dump.ts"), "--watch", kv.url];
  await using watching = new Program(Deno.execPath(), args, { env: { KV_TOKEN: OLD } });
  await watching.printed(/^The store is empty$/m);
  await kv.reload({ DBM: ":memory:", KV_TOKEN: [OLD, NEW] }, /read again: KV_TOKEN changed\n/);
  await watching.printed(/cut the connection: trying to follow the changes again$/m);
  const write = { method: "PUT", body: "1" };
  const headers = { ...bearer(NEW), "Content-Type": "application/json" };
  assertEquals(await statusOf(`${kv.url}/a`, headers, write), 201);
  await watching.printed(/^Following the changes again$/m);
  await watching.printed(/^\{"a": 1\}$/m);
});

Deno.test("on SIGHUP, kv.ts takes another token and keeps its entries; no request is lost", async () => {
  await using kv = await start("kv.ts", { DBM: ":memory:", KV_TOKEN: OLD });
  const body = new URLSearchParams({ foo: "bar" });
  assertEquals(await statusOf(kv.url, bearer(OLD), { method: "POST", body }), 200);
  const headers = { ...bearer(OLD), Accept: "text/event-stream" };
  const stream = await fetch(kv.url, { headers });

  const withOld = keepAsking(() => statusOf(`${kv.url}/foo`, bearer(OLD)));
  await kv.reload({ DBM: ":memory:", KV_TOKEN: [NEW, OLD] }, /read again: KV_TOKEN changed\n/);
  assertMatch(await stream.text(), /^event: ready\n/, "the stream ends, and may be resumed");
  const withNew = keepAsking(() => statusOf(`${kv.url}/foo`, bearer(NEW)));
  assertEquals(await withOld(), [200]);
  await kv.reload({ DBM: ":memory:", KV_TOKEN: NEW }, /read again: KV_TOKEN changed\n/);
  assertEquals(await statusOf(`${kv.url}/foo`, bearer(OLD)), 401);
  assertEquals(await withNew(), [200]);
});

Deno.test("DEPLOY.md rotates KV_TOKEN while pages are loaded, and none fails", async () => {
  const config = { USE_SESSION_STORE: true, DBM: ":memory:" };
  const ports = { PORT: `${freePort()}`, KV_PORT: `${freePort()}` };
  await using both = await start("start.ts", { ...config, KV_TOKEN: OLD }, ports);
  await both.program.printed(/^kv: http/m);
  const Cookie = await cookieOf(both.url);
  // Of one session they would wait for each other, perhaps longer than a step takes.
  const asked = keepAsking(() => statusOf(both.url, {}));
  for (const step of await steps("KV_TOKEN", OLD, NEW)) {
    await both.reload({ ...config, ...step }, /(read again: KV_TOKEN changed\n[^]*){2}/);
    assertMatch(await get(both.url, { Cookie }), /Count: \d/);
  }
  assertEquals(await asked(), [200], both.program.output);
  const service = `http://localhost:${ports.KV_PORT}`;
  assertEquals(await statusOf(service, bearer(OLD)), 401);
  assertEquals(await statusOf(service, bearer(NEW)), 200);
});

Deno.test("DEPLOY.md rotates SECRET_KEY while pages are loaded, and keeps sessions", async () => {
  const [old, fresh] = ["the secret key of before", "the secret key from now on"];
  await using counter = await start("counter.ts", { SECRET_KEY: old });
  const Cookie = await cookieOf(counter.url);
  const asked = keepAsking(() => statusOf(counter.url, { Cookie }));
  let [cookie, count] = [Cookie, 1];
  for (const step of await steps("SECRET_KEY", old, fresh)) {
    await counter.reload(step, /read again: .*SECRET_KEY.* changed\n/);
    const response = await fetch(counter.url, { headers: { Cookie: cookie } });
    assertMatch(await response.text(), new RegExp(`Count: ${++count}<`));
    cookie = response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
  }
  assertEquals(await asked(), [200]);
  assertMatch(await get(counter.url, { Cookie }), /Count: 1</, "the old key is not valid any more");
});

const rotatePassword = (script: string) =>
  testWith(REDIS, `DEPLOY.md rotates the password of Redis, which ${script} reads`, async () => {
    await using redis = await startRedis();
    await cli(redis.port, "CONFIG", "SET", "requirepass", "before");
    const [before, after] = ["before", "after"].map(async (password) => {
      const [step] = await steps("KV_URL", "", password);
      return JSON.stringify({ USE_SESSION_STORE: true, ...step })
        .replace("localhost:6379", `127.0.0.1:${redis.port}`);
    });
    const ports = { PORT: `${freePort()}`, KV_PORT: `${freePort()}` };
    await using counter = await start(script, JSON.parse(await before ?? ""), ports);
    const Cookie = await cookieOf(counter.url);
    const asked = keepAsking(() => statusOf(counter.url, { Cookie }));
    const clients = async () => {
      const list = await cli(redis.port, "-a", "after", "CLIENT", "LIST");
      return [...list.matchAll(/^id=(\d+) .*cmd=(?!client)/gm)].map(([, id]) => id);
    };
    await cli(redis.port, "-a", "before", "ACL", "SETUSER", "default", ">after");
    const old = await clients();
    assert(old.length > 0);
    await counter.reload(await after ?? "", /read again: KV_URL changed\n/);
    await eventually("an end of the connections with the old password", async () => {
      return !(await clients()).some((id) => old.includes(id));
    });
    await cli(redis.port, "-a", "after", "ACL", "SETUSER", "default", "<before");
    assertMatch(await get(counter.url, { Cookie }), /Count: \d/);
    assertEquals(await asked(), [200], "no page fails");
  });
rotatePassword("counter.ts");
rotatePassword("start.ts");

testWith(["pgrep"], "a SIGHUP before the servers listen ends none of them", async () => {
  await using directory = await temporaryDirectory();
  const env = { DBM: ":memory:", PORT: `${freePort()}`, KV_PORT: `${freePort()}` };
  const args = ["run", "-A", join(PROJECT, "start.ts")];
  await using both = new Program(Deno.execPath(), args, { cwd: directory.path, env });
  await eventually("both servers", async () => (await childrenOf(both.pid)).length === 2);
  both.signal("SIGHUP");
  await both.printed(/(read again: no key changed\n[^]*){2}/);
  both.output = "";
  both.signal("SIGTERM");
  // Nor does one while they stop.
  for (let i = 0; i < 8; i++) {
    both.signal("SIGHUP");
    await delay(10);
  }
  assertEquals(await both.exited, 0, both.output);
  assertNotMatch(both.output, /Error/);
});

Deno.test("on SIGHUP, a wrong or forbidden change is told, and the server goes on", async () => {
  await using kv = await start("kv.ts", { DBM: ":memory:", KV_TOKEN: OLD });
  await kv.reload(
    "{",
    /Cannot read "counter.cfg.json": .*\n.*previous configuration stays in use\n/,
  );
  await kv.reload(
    { KV_TOKEN: "short" },
    /KV_TOKEN is a string of 5 .*\n.*previous configuration stays in use\n/,
  );
  // Also the second time, and not as a count of seconds later, when it may no longer be so.
  await kv.reload({ KV_TOKEN: "short" }, /^kv: the previous configuration stays in use$/m);
  const other = { DBM: "other.db", KV_TOKEN: OLD };
  await kv.reload(other, /DBM has changed: restart to apply that\n.*: no key changed\n/);
  assertEquals(await statusOf(kv.url, bearer(OLD)), 200);
});

Deno.test("on SIGHUP, a key or token that is gone is told", async () => {
  await using counter = await start("counter.ts", { SECRET_KEY: "a secret key for the tests" });
  await counter.reload({}, /^counter: SECRET_KEY is not set; using a random key\./m);
  await using kv = await start("kv.ts", { DBM: ":memory:", KV_TOKEN: OLD });
  await kv.reload({ DBM: ":memory:" }, /^kv: KV_TOKEN is not set any more$/m);
});

Deno.test("on SIGHUP, counter.ts takes another token for a service, whose URL needs no slashes", async () => {
  await using memory = scoped(memoryStore());
  await using service = Deno.serve({ port: 0, onListen() {} }, kv(memory, { tokens: [NEW] }).fetch);
  const config = { USE_SESSION_STORE: true, KV_URL: `http:localhost:${service.addr.port}` };
  await using counter = await start("counter.ts", { ...config, KV_TOKEN: OLD });
  assertEquals(await statusOf(`${counter.url}/health`, {}), 503);
  await counter.reload({ ...config, KV_TOKEN: NEW }, /configuration read again: KV_TOKEN changed/);
  assertEquals(await statusOf(`${counter.url}/health`, {}), 200);
});

Deno.test("a store that is unavailable at the start is told, with the reason", async () => {
  const KV_URL = "redis://:secret@localhost:1";
  await using counter = await start("counter.ts", { USE_SESSION_STORE: true, KV_URL });
  await counter.program.printed(
    /^counter: redis:\/\/:\*{3}@localhost:1 is unavailable: .*ECONNREFUSED/m,
  );
});

Deno.test("a store that is available a second after the start is not told", async () => {
  await using memory = scoped(memoryStore());
  const again = Promise.withResolvers<void>();
  let begun: number | undefined;
  await using service = serve((request) => {
    if (begun !== undefined) again.resolve();
    begun ??= performance.now();
    return performance.now() - begun < 1000
      ? new Response(null, { status: 503 })
      : kv(memory).fetch(request);
  });
  const KV_URL = service.url;
  const counter = await start("counter.ts", { USE_SESSION_STORE: true, KV_URL });
  await again.promise;
  await counter[Symbol.asyncDispose]();
  assertNotMatch(counter.program.output, /is unavailable/);
});

testWith(REDIS, "a wrong password of Redis is told at the start", async () => {
  await using redis = await startRedis();
  await cli(redis.port, "CONFIG", "SET", "requirepass", "right");
  const DBM = `redis://:wrong@127.0.0.1:${redis.port}`;
  await using kv = await start("kv.ts", { DBM });
  await kv.program.printed(/^kv: redis:\/\/:\*{3}@127\.0\.0\.1:\d+ is unavailable: .*WRONGPASS/m);
});
