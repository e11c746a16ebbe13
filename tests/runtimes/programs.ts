/** Stands in for `tests/helpers/programs.ts`, which is for Deno: registers tests, and runs them. */

type Run = () => Promise<void>;
const tests: { name: string; run: Run }[] = [];

export function testWith(_programs: string[], name: string, run: Run): void {
  tests.push({ name, run });
}

/** Runs the tests one after the other, prints those that fail, and ends the process. */
export async function runTests(): Promise<never> {
  let failed = 0;
  process.on("unhandledRejection", (error) => {
    failed++;
    console.error("unhandled rejection:", error);
  });
  for (const { name, run } of tests) {
    try {
      await run();
    } catch (error) {
      failed++;
      console.error(`${name} ... FAILED\n`, error);
    }
  }
  console.log(`${tests.length} tests, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}
