/** The documents: the tests they name exist, and their programs print what the comments say. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { dirname, join } from "node:path";
import project from "../deno.json" with { type: "json" };
import tools from "../package.json" with { type: "json" };
import { ConfigFile } from "../server/config.ts";
import { PROJECT } from "./helpers/programs.ts";

for (const document of ["SECURITY.md", "RELIABILITY.md"]) {
  Deno.test(`docs/${document} names tests that exist, or begins their names`, async () => {
    const sources = new Map<string, string>();
    for (const directory of ["tests", "tests/conformance", "tests/e2e", "tests/helpers"]) {
      for await (const { name, isFile } of Deno.readDir(join(PROJECT, directory))) {
        const path = `${directory}/${name}`;
        if (isFile) sources.set(path, await Deno.readTextFile(join(PROJECT, path)));
      }
    }
    const text = await Deno.readTextFile(join(PROJECT, "docs", document));
    // "Shown by" is the last column of a table; elsewhere backquotes hold other things.
    const shownBy = text.split("\n").map((line) => /\|([^|]*)\|$/.exec(line)?.[1] ?? "");
    const names = shownBy.flatMap((cell) =>
      [...cell.matchAll(/`([^`]+)`/g)].map(([, it = ""]) => it)
    );
    assert(names.length > 10, `${names}`);
    for (const name of names) {
      const begins = [...sources.values()].some((source) =>
        [`"${name}`, `\`${name}`].some((start) => source.includes(start))
      );
      assert(sources.has(name) || begins, `There is no test "${name}"`);
    }
  });
}

const pages = ["README.md", "docs/SESSIONS.md"];
for await (const { name } of Deno.readDir(join(PROJECT, "docs/sessions"))) {
  pages.push(`docs/sessions/${name}`);
}
for (const page of pages.sort()) {
  Deno.test(`${page} has programs that print what their comments say`, async () => {
    const text = await Deno.readTextFile(join(PROJECT, page));
    const programs = [...text.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code = ""]) => code);
    for (const code of programs) {
      const comments = code.matchAll(/^console\.log\(.*\); \/\/ (.*)$/gm);
      assertEquals(await run(code), [...comments].map(([, comment]) => comment), code);
    }
  });
}

Deno.test("the documents link only to files and headings that exist", async () => {
  const files = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
  for (const directory of ["docs", "docs/sessions"]) {
    for await (const { name } of Deno.readDir(join(PROJECT, directory))) {
      if (name.endsWith(".md")) files.push(`${directory}/${name}`);
    }
  }
  for (const file of files) {
    const text = await Deno.readTextFile(join(PROJECT, file));
    for (const [, link = ""] of text.matchAll(/\]\((?!https?:)([^)\s]*)\)/g)) {
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? join(PROJECT, file) : join(PROJECT, dirname(file), path);
      if (anchor === undefined) {
        await Deno.stat(target);
        continue;
      }
      const headings = slugs(await Deno.readTextFile(target));
      assertMatch(headings, new RegExp(`^${anchor}$`, "m"), link);
    }
  }
});

Deno.test("docs/CONFIGURATION.md names every key, and DEPENDENCIES.md every dependency", async () => {
  const read = (name: string) => Deno.readTextFile(join(PROJECT, name));
  const text = await read("docs/CONFIGURATION.md") + await read("docs/DEPENDENCIES.md");
  const keys = Object.keys(ConfigFile.shape).filter((key) => key !== "$schema");
  const packages = Object.values(project.imports).map((specifier) =>
    /^npm:\/?((?:@[^/]+\/)?[^@/]+)/.exec(specifier)?.[1] ?? specifier
  ).concat(Object.keys(tools.devDependencies));
  const std = Object.keys(project.imports).filter((name) => name.startsWith("@std/"));
  const missing = [...keys, ...packages, ...std].filter((name) => !text.includes(name));
  assertEquals(missing, []);
});

/** Runs a program, and gives the lines that it prints. */
async function run(code: string): Promise<string[]> {
  const printed: string[] = [];
  const { log } = console;
  console.log = (...values: unknown[]) => void printed.push(values.map(String).join(" "));
  try {
    await import(`data:application/typescript;base64,${encodeBase64(code)}`);
  } finally {
    console.log = log;
  }
  return printed;
}

function encodeBase64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

/** The anchors of a page's headings, one a line, as GitHub makes them. */
function slugs(text: string): string {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => heading);
  return headings.map((heading) =>
    heading.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
  ).join("\n");
}
