/** The line under each table: when it was measured, on what, and with which versions. */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { isInstalled } from "../tests/helpers/programs.ts";
import { PEERS } from "./peers.ts";

/** The programs, how each is asked for its version (webdis cannot be), and the parts that use it. */
const PROGRAMS = [
  { name: "node", ask: ["node", "--version"], parts: ["page"] },
  {
    name: "wrk",
    ask: ["wrk", "--version"],
    parts: ["page", "kv", "profile", "growth", "disk", "overload"],
  },
  {
    name: "redis-server",
    ask: ["redis-server", "--version"],
    parts: ["page", "kv", "growth", "contention", "soak"],
  },
  { name: "etcd", ask: ["etcd", "--version"], parts: ["kv"] },
  { name: "webdis", ask: ["dpkg-query", "-W", "-f=${Version}", "webdis"], parts: ["kv"] },
];

/** Date, machine and versions, as one sentence. */
export async function versions(part: string): Promise<string> {
  const used = [`deno ${Deno.version.deno}`];
  for (const { name, ask, parts } of PROGRAMS) {
    if (parts.includes(part)) used.push(`${name} ${await version(ask)}`);
  }
  if (part === "page") {
    const { dependencies } = JSON.parse(await Deno.readTextFile(join(PEERS, "package.json")));
    used.push(...Object.entries(dependencies).map(([name, version]) => `${name} ${version}`));
  }
  const date = new Date().toISOString().slice(0, 10);
  return `Measured on ${date} with ${availableParallelism()} cores: ${used.join(", ")}.`;
}

async function version([command = "", ...args]: string[]): Promise<string> {
  if (!isInstalled(command)) return "(missing)";
  const { stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  return /\d+(\.\d+)+/.exec(text)?.[0] ?? "(unknown)";
}
