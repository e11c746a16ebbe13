/** The conformance suites on Node and Bun, over the npm package as it is installed there. */
import { assertMatch } from "@std/assert";
import { dirname, join, relative } from "node:path";
import project from "../../deno.json" with { type: "json" };
import tools from "../../package.json" with { type: "json" };
import { BUN, INSTALL, NODE, packNpm, REGISTRY, succeed } from "../helpers/package.ts";
import { PROJECT, runToEnd, temporaryDirectory, testWith } from "../helpers/programs.ts";
import { REDIS, startRedis } from "../helpers/redis_servers.ts";

/** The files that the suite needs, beside the package's. */
const SUITE = [
  "tests/runtimes/suite.ts",
  "tests/runtimes/serve.ts",
  "tests/runtimes/programs.ts",
  "tests/conformance/sessions.ts",
  "tests/conformance/store.ts",
  "tests/conformance/store_model.ts",
  "tests/helpers/captured_errors.ts",
  "tests/helpers/clock.ts",
  "tests/helpers/session_app.ts",
];

testWith(
  [...REGISTRY, ...REDIS],
  "the npm package passes the conformance suites on Node and Bun",
  async () => {
    await using directory = await temporaryDirectory();
    const app = directory.path;
    await Deno.writeTextFile(join(app, "package.json"), '{ "type": "module" }');
    const tarball = await packNpm(app);
    const { "@hono/node-server": adapter, "fast-check": fc } = tools.devDependencies;
    const oldest = project.imports.hono.replace("^", "");
    const others = [
      `@hono/node-server@${adapter}`,
      `fast-check@${fc}`,
      "hono",
      `hono-old@${oldest}`,
    ];
    await succeed("npm", [...INSTALL, tarball, ...others, `${NODE}@24`, `${BUN}@1`], app);
    await copySuite(app);
    await using redis = await startRedis();
    const runtimes = [
      [`${NODE}/bin/node`, "--experimental-transform-types", "--no-warnings"],
      [`${BUN}/bin/bun`],
    ];
    // At once, since the suites mostly wait for time to pass.
    await Promise.all(runtimes.map(async ([program = "", ...flags], database) => {
      const command = join(app, "node_modules", program);
      const args = [...flags, "tests/runtimes/suite.ts"];
      const env = {
        REDIS_URL: `redis://127.0.0.1:${redis.port}/${database}`,
        OLD_HONO: "hono-old",
      };
      const { stdout, stderr } = await runToEnd(command, args, { cwd: app, env });
      assertMatch(stdout, /^\d{3} tests, 0 failed$/m, `${program}: ${stdout}${stderr}`);
    }));
  },
);

/** Copies the suite; what it imports of the project becomes the installed package's. */
async function copySuite(app: string): Promise<void> {
  for (const file of SUITE) {
    const source = await Deno.readTextFile(join(PROJECT, file));
    for (const [, path = ""] of source.matchAll(/from "(\.\.\/\.\.\/[^"]+)"/g)) {
      const target = join(app, dirname(file), path);
      const module = join(app, "node_modules/@counter/sessions", relative(app, target));
      await write(target, `export * from ${JSON.stringify(module.replace(/ts$/, "js"))};\n`);
    }
    await write(join(app, file), source.replaceAll('"@std/assert"', '"deno-std/assert/mod.js"'));
  }
  await write(join(app, "tests/helpers/programs.ts"), 'export * from "../runtimes/programs.ts";\n');
}

async function write(path: string, text: string): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeTextFile(path, text);
}
