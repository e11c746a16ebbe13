/** `std.d.ts` declares what the standard library exports: the package that carries it has no types. */
import { assert } from "@std/assert";
import { join } from "node:path";
import { PROJECT } from "./helpers/programs.ts";

Deno.test("std.d.ts declares only names that the standard library exports", async () => {
  const source = await Deno.readTextFile(join(PROJECT, "std.d.ts"));
  const modules = source.split(/^declare module /m).slice(1);
  assert(modules.length > 0);
  for (const text of modules) {
    const specifier = /^"(.*)"/.exec(text)?.[1] ?? "";
    const exported = await import(specifier);
    const names = [...text.matchAll(/^ {2}export (?:class|const|function) (\w+)/gm)];
    for (const [, name = ""] of names) assert(name in exported, `${specifier} has no ${name}`);
  }
});
