/** The package as its users get it. */
import { join } from "node:path";
import { isInstalled, PROJECT, runToEnd } from "./programs.ts";

/** What a test that installs packages needs, for `testWith`: npm, and its registry. */
export const REGISTRY: string[] = await (async () => {
  if (!isInstalled("npm")) return ["npm"];
  const { code } = await runToEnd("npm", ["ping", "--fetch-retries=0"]);
  return code === 0 ? ["npm"] : ["npm", "the npm registry"];
})();

/** The package that has a runtime's program for this machine: npm's own ones need install scripts. */
const ARCH = Deno.build.arch === "aarch64" ? "arm64" : "x64";
export const NODE = `node-${Deno.build.os}-${ARCH}`;
export const BUN = `@oven/bun-${Deno.build.os}-${ARCH.replace("arm64", "aarch64")}`;
export const WORKERD = `@cloudflare/workerd-${Deno.build.os}-${ARCH.replace("x64", "64")}`;
export const INSTALL = [
  "install",
  "--ignore-scripts",
  "--prefer-offline",
  "--no-audit",
  "--no-fund",
];

/** Makes the npm package in a directory, and returns its path. Two tests must not do so at once. */
export async function packNpm(directory: string): Promise<string> {
  const tarball = join(directory, "npm.tgz");
  await succeed(Deno.execPath(), ["task", "npm"], PROJECT);
  await Deno.rename(join(PROJECT, "build/npm.tgz"), tarball);
  return tarball;
}

/** The first program of docs/SESSIONS.md, which prints `Count: 1`. */
export async function firstProgram(): Promise<string> {
  const page = await Deno.readTextFile(join(PROJECT, "docs/SESSIONS.md"));
  const program = /```ts\n([^`]*new Hono[^]*?)\n```/.exec(page)?.[1];
  if (program === undefined) throw new Error("docs/SESSIONS.md has no program");
  return program;
}

/** A program that uses each of the package's exports and prints {@linkcode EVERY_OUTPUT}. */
export const EVERY_EXPORT = `
import { KeyValueSessionStore, sessions } from "@counter/sessions";
import { kv } from "@counter/sessions/kv";
import { openStore } from "@counter/sessions/stores";
import { httpStore } from "@counter/sessions/stores/http";
import { memoryStore } from "@counter/sessions/stores/memory";
import { Hono } from "hono";
import { z } from "zod";

const kvStore = await openStore("kv.db");
const store = new KeyValueSessionStore(kvStore);
const schema = z.object({ count: z.number().int().default(0) });
const app = new Hono().use(sessions({ store, schema })).get("/", async (c) => {
  const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
  return c.text("Count: " + count);
});
console.log(await (await app.request("/")).text());
await kvStore.close();

const memory = memoryStore();
const service = kv(memory);
const page = await service.request("/", { headers: { Accept: "text/html" } });
// Hono 4.10 has no route for a path with a newline, which is a key like others.
console.log((await service.request("/a%0Ab")).status);
console.log(page.status, /<h1>.*?<\\/h1>/.exec(await page.text())?.[0]);
const remote = httpStore("http://localhost", {
  fetch: async (url, init) => await service.request(String(url), init),
});
console.log(await remote.get("nothing"));
await remote.close();
await memory.close();
`;

/** What {@linkcode EVERY_EXPORT} prints. */
export const EVERY_OUTPUT = "Count: 1\n200\n200 <h1>Key-value store</h1>\nnull\n";

/** Runs a program of the test, which has to succeed, and returns what it printed. */
export async function succeed(command: string, args: string[], cwd: string): Promise<string> {
  const env = { NO_COLOR: "1" };
  const { code, stdout, stderr } = await runToEnd(command, args, { cwd, env });
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${code}\n${stdout}${stderr}`);
  return stdout;
}
