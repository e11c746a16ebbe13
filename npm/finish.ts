/**
 * Makes the npm package of the library, for Node 22.16, Bun and Deno, from what `deno pack` compiled.
 *
 * ```sh
 * deno task npm                         # writes build/npm.tgz
 * npm publish build/npm.tgz
 * ```
 *
 * `deno pack` compiles the modules, with types and source maps. What is left to do here:
 * - Programs are left out, with what only they import: in a bundle they would run in place of the app.
 * - Names of the import map that `deno pack` keeps, as `@std/http/cookie`, become a package's.
 * - Node 22 cannot import a file as text, so the text becomes a constant.
 * - The version is read from package.json instead of deno.json, which is not in the package.
 * - `deno pack` misses packages from which only types are imported.
 * - Hono becomes a peer dependency, since types of two copies of Hono are incompatible.
 * - Source maps name files by where they were built; a source is beside what it was compiled to.
 */
import { createTar, parseTarGzip } from "nanotar";
import { decodeBase64, encodeBase64 } from "hono/utils/encode";
import { basename, join } from "node:path/posix";
import project from "../deno.json" with { type: "json" };

const MANIFEST = "package/package.json";
const IMPORTED = /(?<=\b(?:from|import) ")[\w@][^":]*(?=")/g;
const OWN_IMPORT = /\b(?:from|import) ?\(?"(\.[^"]+\.js)"/g;
const SOURCE_MAP = /(?<=\n\/\/# sourceMappingURL=data:application\/json;base64,).*/;
/** What tar ends with: two blocks of zeros. nanotar writes none, one or more. */
const TAR_END = new Uint8Array(1024);
const PROGRAM = /^if \(import\.meta\.main\) \{\n[^]*?\n\}/m;
const TEXT_IMPORT = /import (\w+) from "(\.[^"]+)" with (\{\s*type: "text"\s*\});/g;

/** The import map's names, with the package's path of each: `deno-std/http/cookie.js`. */
const paths = new Map<string, string>();
/** The versions that the import map asks for, by package. */
const versions = new Map<string, string>();
for (const [name, target] of Object.entries(project.imports)) {
  const [, id = "", version = "", path = ""] = /^npm:\/?(.+?)@([^/]+)(.*)/.exec(target) ?? [];
  paths.set(name, id + path);
  versions.set(id, version);
}

/** The files of the package, by their paths, from those that `deno pack` wrote. */
function finish(packed: Map<string, string>): Map<string, string> {
  const files = new Map(packed);
  const { exports } = JSON.parse(packed.get(MANIFEST) ?? "");
  const packages = new Set<string>();
  for (const [path, source] of packed) {
    if (!/\.(js|d\.ts)$/.test(path) || !files.has(path)) continue;
    const compiled = source
      .replace(IMPORTED, (name) => {
        const known = paths.get(name) ?? name;
        packages.add(/^(@[^/]+\/)?[^/]+/.exec(known)?.[0] ?? known);
        return known;
      })
      .replaceAll('/deno.json" with', '/package.json" with')
      .replace(TEXT_IMPORT, (_, name, specifier, attributes) => {
        const asset = join(path, "..", specifier);
        files.delete(asset);
        return `const ${name} = ${JSON.stringify(packed.get(asset))};${newlinesOf(attributes)}`;
      })
      .replace(PROGRAM, newlinesOf)
      .replace(SOURCE_MAP, withoutDirectories);
    files.set(path, compiled);
  }
  const modules = new Set<string>();
  for (const entry of Object.values<{ default: string }>(exports)) {
    addModules(modules, join("package", entry.default), files);
  }
  for (const path of files.keys()) {
    const isTyped = path.endsWith(".d.ts") || files.has(path.replace(/\.[jt]s$/, ".d.ts"));
    if (/\.[jt]s$/.test(path) && !isTyped && !modules.has(path)) files.delete(path);
  }
  return files.set(MANIFEST, manifest(packed.get(MANIFEST) ?? "", packages));
}

/** Adds a module, and all that it imports. */
function addModules(modules: Set<string>, path: string, files: Map<string, string>): void {
  if (modules.has(path)) return;
  modules.add(path);
  for (const [, specifier = ""] of (files.get(path) ?? "").matchAll(OWN_IMPORT)) {
    addModules(modules, join(path, "..", specifier), files);
  }
}

/** Keeps the number of lines, which the source map refers to. */
function newlinesOf(text: string): string {
  return text.replace(/[^\n]/g, "");
}

/** Returns a source map in Base64 whose sources have only names. */
function withoutDirectories(encoded: string): string {
  const map = JSON.parse(new TextDecoder().decode(decodeBase64(encoded)));
  map.sources = map.sources.map((source: string) => basename(source));
  return encodeBase64(new TextEncoder().encode(JSON.stringify(map)).buffer);
}

function manifest(packed: string, packages: Set<string>): string {
  const { dependencies: found, ...others } = JSON.parse(packed);
  const dependencies: Record<string, string> = {};
  for (const name of [...packages].sort()) {
    const version = versions.get(name);
    if (version !== undefined) dependencies[name] = found[name] ?? `^${version}`;
  }
  const { hono, ...rest } = dependencies;
  const complete = {
    ...others,
    description: "Sessions for Hono, in a signed cookie or in a store",
    ...repository !== undefined && { repository: { type: "git", url: `git+${repository}` } },
    engines: { node: ">=22.16" },
    sideEffects: false,
    publishConfig: { access: "public" },
    peerDependencies: { hono },
    dependencies: rest,
  };
  return `${JSON.stringify(complete, null, 2)}\n`;
}

const [input = "", output = "", origin = ""] = Deno.args;
/** Where this checkout came from, unless that is a directory: `https://…`, `ssh://…` or `git@host:…`. */
const [repository] = /^(?:https|ssh):.*/.exec(origin.replace(/^(\w+@[\w.]+):/, "ssh://$1/")) ?? [];
const packed = await parseTarGzip(await Deno.readFile(input));
const files = finish(new Map(packed.map(({ name, text }) => [name, text])));
const tar = createTar(Array.from(files, ([name, data]) => ({ name, data })));
const gzip = new Blob([new Uint8Array(tar), TAR_END]).stream().pipeThrough(
  new CompressionStream("gzip"),
);
const tarball = await new Response(gzip).bytes();
await Deno.writeFile(output, tarball);
console.log(`${output}: ${files.size} files, ${Math.round(tarball.byteLength / 1024)} KiB`);
