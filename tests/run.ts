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

/** The tests in browsers, which share them. */
const TOGETHER = "tests/e2e/together.ts";
const imports = (await Deno.readTextFile(TOGETHER)).matchAll(/"\.\/(\w+_test\.ts)"/g);
const together = Array.from(imports, ([, file]) => `tests/e2e/${file}`);
/** Where most tests wait: for programs, for time to pass. */
const WAITING = [
  "tests/bench_test.ts",
  "tests/kv_hostile_load_test.ts",
  ...["deploy", "lifecycle", "npm", "package", "runtimes"].map((it) => `tests/e2e/${it}_test.ts`),
];
/** The other tests of programs. */
const programs = Array.from(Deno.readDirSync("tests/e2e"), ({ name }) => `tests/e2e/${name}`)
  .filter((it) => it.endsWith("_test.ts") && ![...WAITING, ...together].includes(it)).sort();
/** As many of Redis' tests as make the lanes equally long. */
const redis = ["redis", "redis_failover", "redis_settings"].map((it) => `tests/${it}_test.ts`);

interface Lane {
  /** What is tested, and how. */
  args: string[];
  /** Where the coverage goes. What other programs execute is not counted. */
  coverage?: string;
}

/** What runs at the same time, each about as long: two cores are then mostly busy. */
const lanes: Lane[] = Deno.args.length > 0
  ? [{ args: ["--doc", ...Deno.args], coverage: "coverage/some" }]
  : [
    {
      args: ["--doc", `--ignore=tests/e2e,${[...WAITING, ...redis].join()}`],
      coverage: "coverage/most",
    },
    { args: [TOGETHER, ...WAITING] },
    { args: [...redis, ...programs], coverage: "coverage/redis" },
  ];

interface Result {
  code: number;
  output: string;
}

/** What no test asks a proxy for: its own machine, and a name that browsers take for it. */
const DIRECT = "localhost,127.0.0.0/8,127.0.0.1,127.0.0.2,::1,rebound.example";
const noProxy = [Deno.env.get("NO_PROXY") || Deno.env.get("no_proxy"), DIRECT].filter(Boolean)
  .join();

/** Runs tests, and prints what they print once the lane before has ended. */
async function test({ args, coverage }: Lane, before?: Promise<Result>): Promise<Result> {
  const counting = ["--clean", `--coverage=${coverage}`, "--coverage-raw-data-only"];
  const process = new Deno.Command(Deno.execPath(), {
    // The task has checked the types.
    args: ["test", "-A", "--no-check", ...coverage ? counting : [], ...args],
    env: {
      // Without an installed Deno, "deno" is what npx downloaded.
      PATH: `${Deno.env.get("PATH")}:${dirname(Deno.execPath())}`,
      NO_PROXY: noProxy,
      no_proxy: noProxy,
      ...(Deno.stdout.isTerminal() && !Deno.noColor ? { FORCE_COLOR: "1" } : {}),
    },
    stdout: "piped",
  }).spawn();
  const [shown, read] = process.stdout.tee();
  const output = new Response(read).text();
  await before;
  await shown.pipeTo(Deno.stdout.writable, { preventClose: true });
  return { code: (await process.status).code, output: stripVTControlCharacters(await output) };
}

const running: Promise<Result>[] = [];
for (const lane of lanes) running.push(test(lane, running.at(-1)));
const results = await Promise.all(running);
const output = results.map((it) => it.output).join("");

// The thresholds are for the product.
const excluded = "--exclude=/(bench|examples|npm|tests)/";
const atLeast = Deno.env.get("CI") === "true" ? [] : ["--threshold=0"];
const covered = await new Deno.Command(Deno.execPath(), {
  args: ["coverage", excluded, ...atLeast, ...lanes.flatMap(({ coverage }) => coverage ?? [])],
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
const counts = results.map((it) => /^\w+ \| (\d+) passed.* (\d+) failed/m.exec(it.output) ?? []);
const [passed, failed] = [1, 2].map((group) =>
  counts.reduce((sum, count) => sum + Number(count[group] ?? 0), 0)
);
console.log(`\n${passed} passed, ${failed} failed`);
for (const [, names = ""] of output.matchAll(/^ FAILURES \n\n((?:.+\n)+)/gm)) {
  console.log(names.trimEnd());
}
Deno.exit(results.find(({ code }) => code !== 0)?.code ?? covered.code);
