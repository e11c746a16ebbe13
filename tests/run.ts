/**
 * Runs the tests and the examples in documentation; arguments go to `deno test`.
 *
 *     deno task test                                           # checks, then everything
 *     deno task test tests/sessions_test.ts --filter rotate    # checks, then a part
 *
 * A test that needs a missing program is ignored, and the last lines say what to install. With
 * `CI=true` such a test fails, and so does coverage below the thresholds in deno.json.
 */
import { dirname } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { packageOf } from "./helpers/programs.ts";

const tests = new Deno.Command(Deno.execPath(), {
  args: ["test", "--doc", "-A", "--clean", "--coverage", "--coverage-raw-data-only", ...Deno.args],
  env: {
    // Without an installed Deno, "deno" is what npx downloaded.
    PATH: `${Deno.env.get("PATH")}:${dirname(Deno.execPath())}`,
    ...(Deno.stdout.isTerminal() && !Deno.noColor ? { FORCE_COLOR: "1" } : {}),
  },
  stdout: "piped",
}).spawn();

const [shown, read] = tests.stdout.tee();
const showing = shown.pipeTo(Deno.stdout.writable, { preventClose: true });
const output = stripVTControlCharacters(await new Response(read).text());
await showing;

// The thresholds are for the product.
const others = "--exclude=/(bench|examples|npm|tests)/";
const atLeast = Deno.env.get("CI") === "true" ? [] : ["--threshold=0"];
const covered = await new Deno.Command(Deno.execPath(), {
  args: ["coverage", others, ...atLeast],
}).spawn().status;

const ignored = [...output.matchAll(/\(needs ([^)]+)\) \.\.\. ignored/g)];
const missing = new Set(ignored.flatMap(([, programs = ""]) => programs.split(", ")));
if (missing.size > 0) {
  const packages = [...missing].map(packageOf).filter((name) => name !== undefined);
  console.log(`\n${ignored.length} tests were left out. They need: ${[...missing].join(", ")}`);
  if (packages.length > 0) {
    const install = `apt-get install -y ${[...new Set(packages)].join(" ")}`;
    console.log(`To install that, as root: apt-get update && ${install}`);
  }
}
const [, passed, failed] = /(\d+) passed.* (\d+) failed/.exec(output) ?? [];
if (passed !== undefined) console.log(`\n${passed} passed, ${failed} failed`);
Deno.exit((await tests.status).code || covered.code);
