/** The npm package that `deno task npm` makes, installed as its users install it. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { basename, join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { kv } from "../../kv.ts";
import { memoryStore } from "../../stores/memory.ts";
import type { Store } from "../../stores/store.ts";
import { CuttingProxy } from "../helpers/cutting_proxy.ts";
import {
  BUN,
  EVERY_EXPORT,
  EVERY_OUTPUT,
  firstProgram,
  INSTALL,
  NODE,
  packNpm,
  REGISTRY,
  succeed,
  WORKERD,
} from "../helpers/package.ts";
import {
  eventually,
  freePort,
  isInstalled,
  NO_HOST,
  Program,
  runToEnd,
  testWith,
} from "../helpers/programs.ts";
import { REDIS, startRedis } from "../helpers/redis_servers.ts";

/** A worker: sessions in the cookie under /cookie, and behind the key-value service of a URL. */
const worker = (service: string) => `
import { CookieSessionStore, KeyValueSessionStore, sessions } from "@counter/sessions";
import { httpStore } from "@counter/sessions/stores/http";
import { Hono } from "hono";
import { z } from "zod";

const schema = z.object({ count: z.number().int().default(0) });
const counter = (store) =>
  new Hono().use(sessions({ store, schema })).get("/", async (c) => {
    const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
    return c.text("Count: " + count);
  });
const secretKey = "a secret key of 16 characters or more";
export default new Hono()
  .route("/cookie", counter(new CookieSessionStore(secretKey)))
  .route("/store", counter(new KeyValueSessionStore(httpStore("${service}"))));
`;

/** The configuration of workerd, which runs Cloudflare's workers. */
const workerd = (port: number) => `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      modules = [(name = "worker.js", esModule = embed "worker.js")],
      compatibilityDate = "2026-01-01",
      globalOutbound = "network",
    )),
    (name = "network", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "worker")],
);
`;

/** A program that Node requires, and that a bundler makes into one file. */
const SERVICE = `
const { kv } = require("@counter/sessions/kv");
const { memoryStore } = require("@counter/sessions/stores/memory");

const memory = memoryStore();
kv(memory).request("/a").then(async (response) => {
  console.log(await response.text());
  await memory.close();
});
`;

/** Writes to the Redis whose URL is its argument, watches, reads and lists. */
const OVER_REDIS = `
import { openStore } from "@counter/sessions/stores";

const store = await openStore(process.argv[2]);
const { changes } = await store.watch("");
await store.set("a", "1");
for await (const { key, entry } of changes) {
  console.log(key, entry.value, (await store.list("")).keys.length);
  break;
}
await store.close();
`;

/** Uses a service as its first argument names it, and writes to services that cannot be reached. */
const OVER_HTTP = `
import { openStore } from "@counter/sessions/stores";

const [url, ...others] = process.argv.slice(2);
const store = await openStore(url);
const { changes } = await store.watch("");
await store.setAll(new Map([["a", "1"]]));
for await (const { key, entry } of changes) {
  console.log(key, (await store.get(key)).revision === entry.revision);
  break;
}
await store.close();
for (const other of others) {
  const broken = await openStore(other);
  await broken.set("b", "2").catch(({ outcome, message }) => console.log(outcome, message));
  await broken.close();
}
`;

/** A mistake that only an app with the package's types reports. */
const MISTAKE = `
import { type Session } from "@counter/sessions";
export const user = (session: Session<{ name: string }>): Promise<number> => session.read();
`;

/** Two sessions, of which TypeScript 5.8 took the second's name for any. */
const TWO_SESSIONS = `
import { CookieSessionStore, sessions } from "@counter/sessions";
import { Hono } from "hono";
import { z } from "zod";

const store = new CookieSessionStore("a secret key of 16 characters or more");
const [auth, prefs] = [z.object({ user: z.string() }), z.object({ theme: z.string() })];
export const app = new Hono()
  .use(sessions({ store, schema: auth }))
  .use(sessions({ store, schema: prefs, name: "prefs" }))
  .get("/", async (c) => c.text((await c.var.prefs.read()).theme))
  // @ts-expect-error: no session has this name
  .get("/mistake", (c) => c.text(c.var.perfs));
`;

/** Stores whose engines the runtime has, and one that it lacks. */
const WITHOUT_ENGINE = `
import { openStore } from "@counter/sessions/stores";

for (const url of process.argv.slice(2)) {
  try {
    await using store = Object.assign(await openStore(url), {
      [Symbol.asyncDispose]() { return this.close(); },
    });
    console.log(url, await store.get("a"));
  } catch (error) {
    console.log(url, error.message);
  }
}
`;

testWith(REGISTRY, "the npm package runs on Node, Bun, Deno and in a worker", async (t) => {
  const directory = await Deno.makeTempDir();
  const [tools, app, bunApp] = ["tools", "app", "bun_app"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  const tool = (path: string) => join(tools, "node_modules", path);
  const node = tool(`${NODE}/bin/node`);
  const oldest = tool("oldest-node/bin/node");
  const bun = tool(`${BUN}/bin/bun`);

  await t.step("it is made by one task, and installed without install scripts", async () => {
    const tarball = await packNpm(directory);
    for (const path of [tools, app, bunApp]) {
      await Deno.mkdir(path);
      await Deno.writeTextFile(join(path, "package.json"), `{ "type": "module" }`);
      await Deno.writeTextFile(join(path, "first.ts"), await firstProgram());
      await Deno.writeTextFile(join(path, "every.ts"), EVERY_EXPORT);
      // Bun serves what its main program exports as default.
      await Deno.writeTextFile(join(path, "main.ts"), `import "./first.ts"; import "./every.ts";`);
    }
    const compilers = ["typescript@7", "older-typescript@npm:typescript@5.8"];
    const others = [...compilers, "esbuild@0.28", "@types/node@24", WORKERD];
    const nodes = [`${NODE}@24`, `oldest-node@npm:${NODE}@22.16.0`];
    await succeed("npm", [...INSTALL, ...nodes, `${BUN}@1`, ...others], tools);
    await succeed("npm", [...INSTALL, tarball, "hono", "zod"], app);
    await succeed(bun, ["add", tarball, "hono", "zod"], bunApp);
  });

  await t.step("tar reads it to its end without a warning", async () => {
    const { code, stderr } = await runToEnd("tar", ["--list", "--file", "npm.tgz"], {
      cwd: directory,
    });
    assertEquals({ code, stderr }, { code: 0, stderr: "" });
  });

  await t.step("it has types, source maps, and ranges of its dependencies", async () => {
    const root = join(app, "node_modules/@counter/sessions");
    const manifest = JSON.parse(await Deno.readTextFile(join(root, "package.json")));
    const { exports, dependencies, peerDependencies } = manifest;
    assertEquals(Object.keys(exports), Object.keys(project.exports));
    const server = Array.from(Deno.readDirSync(join(root, "server")), ({ name }) => name);
    assertEquals(server.sort(), ["guards.js", "layout.js", "log.js", "metrics.js"], "no program");
    for (const { types, default: module = "" } of Object.values<Record<string, string>>(exports)) {
      assert((await Deno.stat(join(root, types ?? ""))).isFile);
      const source = await Deno.readTextFile(join(root, module));
      const [, map = ""] = /\n\/\/# sourceMappingURL=data:[\w/]+;base64,(.*)/.exec(source) ?? [];
      assertEquals(JSON.parse(atob(map)).sources, [basename(module).replace(/js$/, "ts")]);
    }
    assertEquals(peerDependencies, { hono: project.imports.hono.replace("npm:hono@", "") });
    for (const range of Object.values<string>(dependencies)) assertMatch(range, /^\^\d/);
    assert(!("puppeteer-core" in dependencies));
    const { engines, sideEffects, publishConfig } = manifest;
    assertEquals({ engines, sideEffects, publishConfig }, {
      engines: { node: ">=22.16" },
      sideEffects: false,
      publishConfig: { access: "public" },
    });
  });

  await t.step("an app on Node type-checks, and its mistakes are reported", async () => {
    await Deno.writeTextFile(join(app, "mistake.ts"), MISTAKE);
    const flags = "--noEmit --strict --target esnext --module nodenext --types node".split(" ");
    const args = [...flags, "--allowImportingTsExtensions", "--typeRoots", tool("@types")];
    await succeed(tool(".bin/tsc"), [...args, "main.ts"], app);
    // Without the types of browsers, and with every declaration checked.
    const noBrowser = ["--target", "es2024", "--lib", "es2024", "--skipLibCheck", "false"];
    await succeed(tool(".bin/tsc"), [...args, ...noBrowser, "every.ts"], app);
    await Deno.writeTextFile(join(app, "two.ts"), TWO_SESSIONS);
    const older = [tool("older-typescript/bin/tsc"), ...args, "--noUncheckedIndexedAccess"];
    await succeed(node, [...older, "--skipLibCheck", "two.ts"], app);
    const { stdout } = await runToEnd(tool(".bin/tsc"), [...args, "mistake.ts"], { cwd: app });
    assertMatch(stdout, /^mistake\.ts\(3,.*'Promise<Readonly<\{ name: string; \}>>'/);
  });

  const runs: [string, string, string[], string][] = [
    ["Node 24", node, ["main.ts"], app],
    ["Node 22.16", oldest, ["--experimental-strip-types", "--no-warnings", "main.ts"], app],
    ["Bun", bun, ["main.ts"], bunApp],
    ["Deno", Deno.execPath(), ["run", "-A", "--node-modules-dir=manual", "main.ts"], app],
  ];
  for (const [runtime, command, args, cwd] of runs) {
    await t.step(
      `the documentation's first app runs on ${runtime}, and so does SQLite`,
      async () => {
        assertEquals(await succeed(command, args, cwd), `Count: 1\n${EVERY_OUTPUT}`);
        await Deno.remove(join(cwd, "kv.db"));
      },
    );
  }

  await t.step({
    name: "Redis opens on each",
    ignore: !REDIS.every(isInstalled),
    fn: async () => {
      await using server = await startRedis();
      const url = `redis://127.0.0.1:${server.port}`;
      for (const [, command, args, cwd] of runs) {
        await Deno.writeTextFile(join(cwd, "redis.js"), OVER_REDIS);
        const output = await succeed(command, [...args.slice(0, -1), "redis.js", url], cwd);
        assertEquals(output, "a 1 1\n");
      }
    },
  });

  await t.step("a service works on each without a proxy, and fails in the same words", async () => {
    const memory = memoryStore();
    let writes = 0;
    const counting = {
      ...memory,
      set: (...args: Parameters<Store["set"]>) => (writes++, memory.set(...args)),
    };
    const listening = { hostname: "127.0.0.1", port: 0, onListen() {} };
    const service = Deno.serve(listening, kv(counting).fetch);
    const proxy = Deno.serve(listening, () => new Response(String(writes = NaN)));
    await using cutting = await CuttingProxy.start(service.addr.port);
    const url = `http://localhost:${service.addr.port}`;
    const [secure, refused] = [
      `https://127.0.0.1:${service.addr.port}`,
      `http://127.0.0.1:${freePort()}`,
    ];
    const expected = [
      "a true",
      `unknown ${cutting.url} cut the connection`,
      `unchanged ${secure} cannot be reached: it answers without TLS: expected http instead of https`,
      `unchanged ${refused} cannot be reached: connection refused`,
      `unchanged http://${NO_HOST} cannot be reached: no such host (directly: the proxy ` +
      `127.0.0.1:${proxy.addr.port} of HTTPS_PROXY is not used)`,
    ];
    const address = `http://127.0.0.1:${proxy.addr.port}`;
    const env = { HTTP_PROXY: address, HTTPS_PROXY: address, NODE_USE_ENV_PROXY: "1" };
    for (const [runtime, command, args, cwd] of runs) {
      await Deno.writeTextFile(join(cwd, "http.js"), OVER_HTTP);
      writes = 0;
      cutting.cut("before the answer");
      const urls = [url, cutting.url, secure, refused, `http://${NO_HOST}`];
      const { stdout, stderr } = await runToEnd(
        command,
        [...args.slice(0, -1), "http.js", ...urls],
        { cwd, env },
      );
      assertEquals(stdout.trimEnd().split("\n"), expected, `${runtime}: ${stderr}`);
      assertEquals(writes, 1, runtime);
    }
    await Promise.all([service.shutdown(), proxy.shutdown()]);
    await memory.close();
  });

  await t.step("a program requires it, and is itself what a bundle of both runs", async () => {
    await Deno.writeTextFile(join(app, "service.cjs"), SERVICE);
    const flags = ["--bundle", "--platform=node", "--outfile=bundle.cjs"];
    await succeed(tool(".bin/esbuild"), ["service.cjs", ...flags], app);
    for (const file of ["service.cjs", "bundle.cjs"]) {
      assertEquals(await succeed(node, [file], app), '{"a":null}\n');
    }
  });

  await t.step("only the engine that a URL asks for is loaded", async () => {
    await Deno.writeTextFile(join(app, "without.js"), WITHOUT_ENGINE);
    const noSqlite = ["--no-experimental-sqlite", "without.js"];
    assertEquals(
      await succeed(node, [...noSqlite, ":memory:", "redis://localhost:1", "kv.db"], app),
      ":memory: null\n" +
        'redis://localhost:1 Cannot use Redis at "localhost:1": connect ECONNREFUSED 127.0.0.1:1\n' +
        "kv.db No such built-in module: node:sqlite\n",
    );
    await Deno.remove(join(app, "node_modules/ioredis"), { recursive: true });
    const output = await succeed(
      node,
      ["without.js", ":memory:", "kv.db", "redis://localhost"],
      app,
    );
    assertMatch(output, /^:memory: null\nkv\.db null\nredis:.* Cannot find package 'ioredis'.*\n$/);
  });

  await t.step(
    "a worker has neither files nor sockets, and each request is on its own",
    async () => {
      const memory = memoryStore();
      const listening = { hostname: "127.0.0.1", port: 0, onListen() {} };
      await using service = Deno.serve(listening, kv(memory).fetch);
      await Deno.writeTextFile(
        join(app, "worker.ts"),
        worker(`http://127.0.0.1:${service.addr.port}`),
      );
      const flags = ["--bundle", "--format=esm", "--platform=neutral", "--main-fields=module,main"];
      const output = [
        "--outfile=worker.js",
        "--metafile=worker.json",
        "--conditions=worker,browser",
      ];
      await succeed(tool(".bin/esbuild"), ["worker.ts", ...flags, ...output], app);
      const { outputs } = JSON.parse(await Deno.readTextFile(join(app, "worker.json")));
      assertEquals(outputs["worker.js"].imports, []);
      const port = freePort();
      await Deno.writeTextFile(join(app, "worker.capnp"), workerd(port));
      await using running = new Program(tool(`${WORKERD}/bin/workerd`), ["serve", "worker.capnp"], {
        cwd: app,
      });
      const visit = async (path: string, Cookie = "") => {
        const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { Cookie } });
        const text = await response.text();
        assertEquals(response.status, 200, text + running.output);
        return { text, cookie: response.headers.get("Set-Cookie")?.split(";")[0] ?? Cookie };
      };
      const isUp = () => visit("/cookie").then(() => true, () => false);
      await eventually("the worker", isUp, 10).catch(() => visit("/cookie"));
      for (const path of ["/cookie", "/store"]) {
        const { text, cookie } = await visit(path);
        assertEquals(text, "Count: 1");
        assertEquals((await visit(path, cookie)).text, "Count: 2");
        if (path === "/cookie") continue;
        const many = await Promise.all(Array.from({ length: 8 }, () => visit(path, cookie)));
        const expected = Array.from({ length: 8 }, (_, i) => `Count: ${i + 3}`);
        assertEquals(many.map((it) => it.text).sort(), expected.sort());
        assertEquals((await visit(path)).text, "Count: 1");
      }
      await memory.close();
    },
  );

  await Deno.remove(directory, { recursive: true });
});
