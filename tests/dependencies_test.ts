/** docs/DEPENDENCIES.md: what is installed, and may change only with that page. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import project from "../deno.json" with { type: "json" };
import { REGISTRY } from "./helpers/package.ts";
import { PROJECT, runToEnd, temporaryDirectory, testWith } from "./helpers/programs.ts";

/** The rows of a table, as their cells. */
function rowsOf(markdown: string): string[][] {
  return markdown.split("\n").filter((line) => line.startsWith("| "))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
}

testWith(
  REGISTRY,
  "DEPENDENCIES.md says what each package of the library reaches, its size and its licence",
  async () => {
    const { code, stdout, stderr } = await runToEnd(Deno.execPath(), ["task", "packages"]);
    assertEquals(code, 0, stderr);
    const installed = new Map(rowsOf(stdout).map(([name = "", ...cells]) => [name, cells]));
    assert(installed.size > 30, stdout);
    const page = await Deno.readTextFile(join(PROJECT, "docs/DEPENDENCIES.md"));
    const [, , ...rows] = rowsOf(page).filter((cells) => cells.length === 6);
    const named = rows.map(([link = "", , reaches, kib, licence]) => {
      const name = /^\[(.+?)\]/.exec(link)?.[1] ?? "";
      const [, use, ...cells] = installed.get(name) ?? [];
      assertEquals([use, ...cells], ["library", licence, kib, reaches], name);
      return name;
    });
    const imported = Object.values(project.imports)
      .map((it) => /^npm:\/?((?:@[^/]+\/)?[^@/]+)/.exec(it)?.[1] ?? it);
    assertEquals(named.toSorted(), [...new Set(imported)].sort());
  },
);

Deno.test("deno task packages fails on a licence that is not allowed, and names its package", async () => {
  await using copy = await temporaryDirectory();
  const cache = join(copy.path, "npm/registry/odd/1.0.0");
  await Deno.mkdir(cache, { recursive: true });
  await Deno.writeTextFile(join(cache, "package.json"), '{ "license": "SSPL-1.0" }');
  const lock = {
    specifiers: { "npm:odd@1.0.0": "1.0.0" },
    npm: { "odd@1.0.0": {} },
    workspace: { dependencies: ["npm:odd@1.0.0"] },
  };
  await Deno.writeTextFile(join(copy.path, "deno.lock"), JSON.stringify(lock));
  const script = join(PROJECT, "npm/packages.ts");
  const args = ["run", "--no-lock", "--allow-read", "--allow-run", script];
  const env = { DENO_DIR: copy.path, NO_COLOR: "1" };
  const { code, stderr } = await runToEnd(Deno.execPath(), args, { cwd: copy.path, env });
  assertEquals(code, 1, stderr);
  assertMatch(stderr, /^odd@1\.0\.0 has the licence "SSPL-1\.0": expected MIT, /m);
});

Deno.test("a dependency that differs from the lock fails each command, and changes nothing", async () => {
  await using copy = await temporaryDirectory();
  const change = (text: string) => text.replace("lru-cache@11.5.3", "lru-cache@11.5.2");
  for (const file of ["deno.json", "deno.lock", "package.json"]) {
    const text = await Deno.readTextFile(join(PROJECT, file));
    await Deno.writeTextFile(join(copy.path, file), file === "deno.json" ? change(text) : text);
  }
  await Deno.writeTextFile(join(copy.path, "main.ts"), 'import "lru-cache";\n');
  const before = await Deno.readTextFile(join(copy.path, "deno.lock"));
  for (const command of ["run", "check", "test", "cache"]) {
    const { code, stderr } = await runToEnd(Deno.execPath(), [command, "main.ts"], {
      cwd: copy.path,
      env: { NO_COLOR: "1" },
    });
    assertEquals(code !== 0, true, command);
    assertMatch(stderr, /The lockfile is out of date/, command);
  }
  assertEquals(await Deno.readTextFile(join(copy.path, "deno.lock")), before);
});
