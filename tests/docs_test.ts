/** What the documents say that a test shows: the tests exist, by these names. */
import { assert } from "@std/assert";
import { join } from "node:path";
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
