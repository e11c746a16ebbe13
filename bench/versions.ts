/** The line under each table: when it was measured, on what, and with which versions. */
import { join } from "node:path";
import { availableParallelism } from "node:os";
import { isInstalled } from "../tests/helpers/programs.ts";
import { PEERS } from "./load.ts";

/** How the programs of the machine are asked for their version; webdis cannot be. */
const PROGRAMS: [string, string[], RegExp][] = [
  ["node", ["--version"], /v([\d.]+)/],
  ["wrk", ["--version"], /([\d.]+)/],
  ["redis-server", ["--version"], /v=([\d.]+)/],
  ["etcd", ["--version"], /Version: ([\d.]+)/],
  ["dpkg-query", ["-W", "-f=webdis ${Version}", "webdis"], /webdis ([\d.]+)/],
];

/** Date, machine and versions, as one sentence. */
export async function versions(): Promise<string> {
  const { dependencies } = JSON.parse(await Deno.readTextFile(join(PEERS, "package.json")));
  const found = await Promise.all(PROGRAMS.map(version));
  const peers = Object.entries(dependencies).map(([name, version]) => `${name} ${version}`);
  const all = [`deno ${Deno.version.deno}`, ...found.filter((it) => it !== null), ...peers];
  const date = new Date().toISOString().slice(0, 10);
  return `Measured on ${date} with ${availableParallelism()} cores: ${all.join(", ")}.`;
}

async function version([command, args, pattern]: typeof PROGRAMS[number]): Promise<string | null> {
  if (!isInstalled(command)) return null;
  const { stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  const found = pattern.exec(text)?.[1];
  return found ? `${command === "dpkg-query" ? "webdis" : command} ${found}` : null;
}
