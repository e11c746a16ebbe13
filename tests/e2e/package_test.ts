/** The package as another Deno project uses it, and as `deno publish` would upload it. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import tools from "../../package.json" with { type: "json" };
import { EVERY_EXPORT, EVERY_OUTPUT, firstProgram, REGISTRY, succeed } from "../helpers/package.ts";
import { PROJECT, runToEnd, temporaryDirectory, testWith } from "../helpers/programs.ts";

/** Links the package in an app of its own, and runs the documentation's program and every export. */
async function testLinked(imports: { hono: string; zod: string }): Promise<void> {
  await using directory = await temporaryDirectory();
  const cwd = directory.path;
  await Deno.writeTextFile(join(cwd, "deno.json"), JSON.stringify({ imports }));
  await Deno.writeTextFile(join(cwd, "first.ts"), await firstProgram());
  await Deno.writeTextFile(join(cwd, "main.ts"), `import "./first.ts";\n${EVERY_EXPORT}`);
  await succeed(Deno.execPath(), ["link", PROJECT], cwd);
  const output = await succeed(Deno.execPath(), ["run", "--check", "-A", "main.ts"], cwd);
  assertEquals(output, `Count: 1\n${EVERY_OUTPUT}`);
  const { npm } = JSON.parse(await Deno.readTextFile(join(cwd, "deno.lock")));
  const installed = Object.keys(npm).map((name) => name.replace(/(?<!^)@.*/, ""));
  assert(installed.includes("ioredis"));
  const ofTests = Object.keys(tools.devDependencies).filter((name) => installed.includes(name));
  assertEquals(ofTests, [], "what only tests need is not installed");
}

const { hono, zod } = project.imports;

testWith(
  REGISTRY,
  "an app links the package with the newest Hono and zod of its ranges",
  async () => {
    await testLinked({ hono, zod });
  },
);

testWith(
  REGISTRY,
  "an app links the package with the oldest Hono and zod of its ranges",
  async () => {
    await testLinked({ hono: hono.replace("^", ""), zod: zod.replace("^", "") });
  },
);

Deno.test("deno publish uploads the library only", async () => {
  const args = ["publish", "--dry-run", "--allow-dirty", "--no-check"];
  const { code, stderr } = await runToEnd(Deno.execPath(), args, { env: { NO_COLOR: "1" } });
  assertEquals(code, 0, stderr);
  const files = [...stderr.matchAll(/file:\/\/(\S+) \(/g)].map(([, path = ""]) =>
    path.slice(PROJECT.length + 1)
  );
  assert(files.includes("sessions.ts"), stderr);
  const library = /^(sessions|kv|stores|server)(\.ts|\/)|^(std\.d\.ts|deno\.json|[A-Z]+(\.md)?)$/;
  assertEquals(files.filter((path) => !library.test(path)), []);
});

/** The entry points' files. */
const ENTRIES = Object.values(project.exports);

Deno.test("every export is documented: deno doc --lint", async () => {
  const env = { NO_COLOR: "1" };
  const { stderr } = await runToEnd(Deno.execPath(), ["doc", "--lint", ...ENTRIES], { env });
  const errors = stderr.split(/^error(?=\[)/m).slice(1).map((text) => text.trim());
  // A type of another package counts as private, since this one does not export it.
  const ours = errors.filter((text) =>
    !/references private type '(\w+)'/.test(text) || !isForeign(text)
  );
  assertEquals(ours, []);
});

/** Whether a problem is with a type that its file imports from another package. */
function isForeign(problem: string): boolean {
  const [, name] = /references private type '([\w.]+)'/.exec(problem) ?? [];
  const [, path = ""] = /--> (\S+?):\d/.exec(problem) ?? [];
  const source = Deno.readTextFileSync(path);
  return new RegExp(`import [^;]*\\b${name}\\b[^;]* from "(?!\\.)`).test(source);
}

/** Errors of `stores/` and `sessions/` that never leave them. */
const INTERNAL = ["UnexpectedAnswer", "BadLine", "RestoreStopped"];

Deno.test("every error that the package throws is exported", async () => {
  const modules = await Promise.all(ENTRIES.map((path) => import(join(PROJECT, path))));
  const exported = new Set(modules.flatMap((module) => Object.keys(module)));
  const errors: string[] = [];
  for (const directory of ["sessions", "stores", "stores/redis"]) {
    for await (const { name, isFile } of Deno.readDir(join(PROJECT, directory))) {
      if (!isFile) continue;
      const source = await Deno.readTextFile(join(PROJECT, directory, name));
      const classes = source.matchAll(
        /class (\w+) extends (?:\w*(?:Error|Exception)|InvalidArgument|StoreUnavailable)\b/g,
      );
      errors.push(...Array.from(classes, ([, name = ""]) => name));
    }
  }
  assert(errors.includes("SessionUnavailable") && errors.includes("StoreFull"), `${errors}`);
  assertEquals(errors.filter((name) => !exported.has(name)), INTERNAL);
});
