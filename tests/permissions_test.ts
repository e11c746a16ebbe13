/** Which rights a server has: what its configuration calls for, and no others. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import project from "../deno.json" with { type: "json" };
import { SETTINGS } from "../server/config.ts";
import { permissionsOf } from "../server/permissions.ts";
import { get, post } from "./helpers/http.ts";
import {
  childrenOf,
  freePort,
  Program,
  PROJECT,
  runToEnd,
  temporaryDirectory,
  testWith,
} from "./helpers/programs.ts";
import { REDIS, startRedis } from "./helpers/redis_servers.ts";

/** Tries what a server has no need of, and prints what it could do. */
const PROBE = `
const [own, other] = Deno.args;
const attempts = {
  "read the system": () => Deno.readTextFile("/etc/passwd"),
  "read beside the store": () => Deno.readDir(".")[Symbol.asyncIterator]().next(),
  "write anywhere": () => Deno.writeTextFile("/tmp/" + crypto.randomUUID(), ""),
  "write its configuration": () => Deno.writeTextFile("counter.cfg.json", "{}"),
  "listen on another port": () => Deno.listen({ hostname: "127.0.0.1", port: Number(other) }),
  "connect to another port": () => Deno.connect({ hostname: "127.0.0.1", port: Number(other) }),
  "fetch another host": () => fetch("http://example.com"),
  "read a variable": () => {
    if (Deno.env.get("HOME") === undefined) throw new Deno.errors.NotCapable();
  },
  "start a program": () => new Deno.Command(Deno.execPath()).output(),
  "load a library": () => Deno.dlopen("libc.so.6", {}),
  "ask for the machine": () => Deno.osRelease(),
  "import from the network": () => import("https://example.com/" + "x.ts"),
};
for (const [name, attempt] of Object.entries(attempts)) {
  try {
    await attempt();
    console.log(name);
  } catch (error) {
    const isRefused = error instanceof Deno.errors.NotCapable || /Requires .* access/.test(error);
    if (!isRefused) console.log(name, error);
  }
}
console.log(Deno.env.get("KV_URL") ?? "no variable");
`;

for (const task of ["start", "kv", "counter"]) {
  testWith(
    ["pgrep"],
    `deno task ${task} gives its servers no right that they do not need`,
    async () => {
      await using directory = await temporaryDirectory();
      const [PORT, KV_PORT] = [freePort(), freePort()].map(String) as [string, string];
      const config = join(directory.path, "counter.cfg.json");
      await Deno.writeTextFile(config, JSON.stringify({ DBM: "kv.db" }));
      const probe = join(directory.path, "probe.ts");
      await Deno.writeTextFile(probe, PROBE);
      await using program = new Program(Deno.execPath(), [
        ...["run", "--allow-env", "--allow-read", "--allow-run", join(PROJECT, "start.ts"), task],
      ], { cwd: directory.path, env: { PORT, KV_PORT, USE_SESSION_STORE: "true" } });
      if (task !== "kv") await program.printed(/^counter: http/m);
      if (task !== "counter") await program.printed(/^kv: http/m);

      const pids = await childrenOf(program.pid);
      assertEquals(pids.length, task === "start" ? 2 : 1);
      for (const pid of pids) {
        const [command = "", ...args] = (await Deno.readTextFile(`/proc/${pid}/cmdline`)).split(
          "\0",
        );
        const flags = args.filter((arg) => arg.startsWith("--") && arg !== "--child");
        const { stdout, stderr } = await runToEnd(command, [
          ...["run", "--no-check", ...flags, probe, PORT, `${freePort()}`],
        ], { cwd: directory.path, env: { KV_URL: "may be read" } });
        assertEquals(stdout, "may be read\n", stderr);
      }
      assertEquals(await program.stop(), 0, program.output);
    },
  );
}

testWith(
  REDIS,
  "a server reaches its store by each kind of address with the rights it has",
  async () => {
    await using directory = await temporaryDirectory();
    const socket = join(directory.path, "redis.sock");
    await using redis = await startRedis({ settings: [`unixsocket ${socket}`] });
    await using below = new Program(Deno.execPath(), ["task", "kv"], {
      env: { DBM: ":memory:", PORT: `${freePort()}`, KV_TOKEN: "" },
    });
    const [, service = ""] = await below.printed(/kv: (\S+) /);
    const stores = [
      join(directory.path, "a, b.db"),
      `sqlite:${join(directory.path, "c.db")}?prefix=p`,
      `redis://localhost:${redis.port}`,
      `redis://127.0.0.1:${redis.port}/1?prefix=p`,
      `redis+unix://${socket}`,
      service,
      `${service}/?prefix=p`,
    ];
    for (const DBM of stores) {
      const env = { DBM, PORT: `${freePort()}` };
      await using kv = new Program(Deno.execPath(), ["task", "kv"], { env });
      const [, url = ""] = await kv.printed(/kv: (\S+) /);
      await post(url, '{"foo":"bar"}');
      assertEquals(await get(`${url}/foo`), '{"foo":"bar"}', DBM);
      assertEquals(await kv.stop(), 0, kv.output);
    }
  },
);

Deno.test("deno task kv opens a file that a link leads to", async () => {
  await using directory = await temporaryDirectory();
  await Deno.mkdir(join(directory.path, "real"));
  const link = join(directory.path, "link");
  await Deno.symlink(join(directory.path, "real"), link);
  const missing = join(directory.path, "missing.db");
  await Deno.symlink(join("real", "other.db"), missing);
  const files = [[join(link, "kv.db"), 0], [join(link, "kv.db"), 1], [missing, 0]] as const;
  for (const [DBM, count] of files) {
    const env = { DBM, PORT: `${freePort()}` };
    await using kv = new Program(Deno.execPath(), ["task", "kv"], { env });
    const [, url = "", entries] = await kv.printed(/kv: (\S+) .*entries: (\d)/);
    assertEquals(entries, `${count}`);
    await post(url, '{"foo":"bar"}');
    assertEquals(await kv.stop(), 0, kv.output);
  }
});

Deno.test("deno task kv says where Deno opens no file", async () => {
  const env = { DBM: "/proc/kv.db", PORT: `${freePort()}` };
  const { code, stderr } = await runToEnd(Deno.execPath(), ["task", "--quiet", "kv"], { env });
  assertEquals([code, stderr], [
    1,
    'start: Cannot use "/proc/kv.db" as a store: Deno opens no file of /dev, /proc or /sys without ' +
    "all rights\n",
  ]);
});

Deno.test("permissionsOf() names hosts, files and variables", () => {
  const rightsFor = (store?: string, port = 5100) => {
    const flags = permissionsOf({ hostname: "127.0.0.1", port, config: "c.json", store });
    const [noPrompt, net, read, ...others] = flags;
    assertEquals(noPrompt, "--no-prompt");
    assertEquals(others.slice(-2), [`--allow-env=${SETTINGS.join()}`, "--ignore-env"]);
    return [net, read, ...others.slice(0, -2)];
  };
  const readConfig = "--allow-read=c.json";
  const own = "--allow-net=127.0.0.1:5100";
  assertEquals(rightsFor(), [own, readConfig]);
  const socket = rightsFor("redis+unix:///a%23b.sock");
  assertEquals(socket, ["--allow-net", `${readConfig},/a#b.sock`, "--allow-write=/a#b.sock"]);
  assertEquals(rightsFor(":memory:?prefix=a"), [own, readConfig]);
  assertEquals(rightsFor(undefined, 0), ["--allow-net=127.0.0.1", readConfig]);
  assertEquals(rightsFor("https://kv.example"), [`${own},kv.example:443`, readConfig]);
  const local = `${own},localhost:81,127.0.0.1:81,[::1]:81`;
  for (const url of ["http://localhost:81", "redis://localhost:81"]) {
    assertEquals(rightsFor(url), [local, readConfig]);
  }
  assertEquals(rightsFor("redis://a:b@[::1]/2"), [`${own},[::1]:6379`, readConfig]);
  assertEquals(rightsFor("redis+cluster://a:1,b:2"), ["--allow-net", readConfig]);
  const files = "kv.db,kv.db-wal,kv.db-shm,kv.db-journal";
  assertEquals(rightsFor("kv.db?prefix=p"), [
    own,
    `${readConfig},${files}`,
    `--allow-write=${files}`,
  ]);
  assertEquals(rightsFor("a,b.db"), [own, "--allow-read", "--allow-write"]);
});

Deno.test("no task but those for development has every right", () => {
  const commands = Object.entries(project.tasks);
  const all = commands.filter(([, { command }]) => /-A\b|--allow-all/.test(command));
  assertEquals(all.map(([name]) => name).sort(), ["bench", "prove"]);
  for (const [name, { command }] of commands) {
    const flags = command.match(/--allow-\S+/g) ?? [];
    if (!/start\.ts/.test(command)) continue;
    assertEquals(flags, ["--allow-env", "--allow-read", "--allow-run"], name);
  }
  assertMatch(project.tasks.dump.command, /--allow-env=KV_TOKEN,KV_TO_TOKEN --ignore-env/);
  assert(!/--allow-run|--allow-sys|--allow-ffi/.test(project.tasks.dump.command));
});
