/**
 * `deno task packages`: lists every package of `deno.lock`, its licence, its size, and what of the
 * machine it can reach. Fails where a licence is not one of {@linkcode LICENCES}.
 *
 * All packages run with the rights of their process. What a package can reach is what its files import
 * of Node's modules: a new release that reaches for more shows here.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** Licences that ask for no more than their text. MPL-2.0, of axe-core, is for tests only. */
const LICENCES = [
  "MIT",
  "ISC",
  "0BSD",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "Apache-2.0",
  "BlueOak-1.0.0",
];
const FOR_TESTS = ["MPL-2.0"];
/** Node's modules that reach files, the network, or other programs. */
const REACHING =
  /\b(?:from|require\(|import\()\s*["'](?:node:)?(fs(?:\/promises)?|net|tls|dns|http|https|http2|child_process|worker_threads|vm)["']/g;

interface Lock {
  specifiers: Record<string, string>;
  npm: Record<string, { dependencies?: string[] }>;
  workspace: { dependencies: string[] };
}
const lock: Lock = JSON.parse(await Deno.readTextFile("deno.lock"));
const locked = lock.npm;
const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
const { npmCache } = JSON.parse(new TextDecoder().decode(stdout));
/** Where Deno keeps the packages of each registry. */
const registries = Array.from(Deno.readDirSync(npmCache), ({ name }) => join(npmCache, name));

/** The packages that the library needs, with theirs. */
const needed = new Set<string>();
for (const specifier of lock.workspace.dependencies) need(specifier.replace(/^npm:/, ""));

const rows: string[] = [];
for (const id of Object.keys(locked).sort()) {
  const [, name = "", version = ""] = /^(.[^@]*)@([^_]+)/.exec(id) ?? [];
  const { licence, bytes, reached } = read(name, version);
  const isNeeded = needed.has(id);
  const allowed = isNeeded ? LICENCES : [...LICENCES, ...FOR_TESTS];
  if (!allowed.includes(licence)) {
    Deno.exitCode = 1;
    console.error(`${id} has the licence "${licence}": expected ${allowed.join(", ")}`);
  }
  const use = isNeeded ? "library" : "tests";
  const kib = Math.ceil(bytes / 1024).toLocaleString("en");
  rows.push(`| ${name} | ${version} | ${use} | ${licence} | ${kib} | ${reached.join(", ")} |`);
}
console.log("| Package | Version | For | Licence | KiB | Reaches |\n| - | - | - | - | - | - |");
console.log(rows.join("\n"));

/** Marks a package as needed, given as the lock names it: with or without its version. */
function need(specifier: string): void {
  const name = specifier.replace(/(?<!^)@.*/, "");
  const version = lock.specifiers[`npm:${specifier}`];
  const id = Object.keys(locked).find((it) =>
    version === undefined
      ? it.startsWith(`${specifier}@`) || it === specifier
      : it === `${name}@${version}`
  );
  if (id === undefined) throw new Error(`deno.lock has no "${specifier}"`);
  if (needed.has(id)) return;
  needed.add(id);
  for (const dependency of locked[id]?.dependencies ?? []) need(dependency);
}

function read(name: string, version: string) {
  const root = registries.map((it) => join(it, name, version)).find((it) => existsSync(it));
  if (root === undefined) throw new Error(`${name} ${version} is not installed: deno install`);
  const reached = new Set<string>();
  let bytes = 0;
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    bytes += statSync(path).size;
    if (!/\.[cm]?js$/.test(path)) continue;
    for (const [, module = ""] of readFileSync(path, "utf8").matchAll(REACHING)) {
      reached.add(module.replace("/promises", ""));
    }
  }
  const { license } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  return { licence: String(license), bytes, reached: [...reached].sort() };
}
