/** The package as its users get it. */
import { join } from "node:path";
import { isInstalled, PROJECT, runToEnd } from "./programs.ts";

/** What a test that installs packages needs, for `testWith`: npm, and its registry. */
export const REGISTRY: string[] = await (async () => {
  if (!isInstalled("npm")) return ["npm"];
  const { code } = await runToEnd("npm", ["ping", "--fetch-retries=0"]);
  return code === 0 ? ["npm"] : ["npm", "the npm registry"];
})();

/** The first program of docs/SESSIONS.md, which prints `Count: 1`. */
export async function firstProgram(): Promise<string> {
  const page = await Deno.readTextFile(join(PROJECT, "docs/SESSIONS.md"));
  const program = /```ts\n([^`]*new Hono[^]*?)\n```/.exec(page)?.[1];
  if (program === undefined) throw new Error("docs/SESSIONS.md has no program");
  return program;
}

/** Runs a program of the test, which has to succeed, and returns what it printed. */
export async function succeed(command: string, args: string[], cwd: string): Promise<string> {
  const env = { NO_COLOR: "1" };
  const { code, stdout, stderr } = await runToEnd(command, args, { cwd, env });
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${code}\n${stdout}${stderr}`);
  return stdout;
}
