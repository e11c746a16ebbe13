/** The command line of `dump.ts`. */
import { parseArgs } from "@std/cli/parse-args";
import { checkTtl } from "../stores/checks.ts";
import { watchesOthers, withoutPassword } from "../stores/open.ts";
import { type Format, FORMATS } from "./formats.ts";

export const USAGE = `Usage: dump.ts [options] URL

Prints every entry of the store at URL, one {"key": value} a line. A URL is
http://localhost:5100, a file such as kv.db, redis://localhost:6379, and so on.

  --prefix TEXT    only the keys that begin with TEXT
  --format FORMAT  lines; backup, lines that keep lifetimes; table; or json, one
                   object. The default is lines
  --watch          goes on with changes as they happen, until Ctrl-C
  --restore FILE   writes the entries of FILE, lines or a backup, into the store;
                   of standard input if FILE is -
  --ttl SECONDS    how long restored lines without a lifetime are kept
  --to URL         copies the entries, with their lifetimes, into an empty store
  --help           prints this text

For a service that requires a token, set KV_TOKEN; if the one to copy to has a
token of its own, KV_TO_TOKEN.
Exit codes: 0 done, 1 the store or file failed, 2 the command is wrong.`;

export interface Options {
  url: string;
  prefix: string;
  format: Format;
  watch: boolean;
  /** The file to restore. */
  restore: string | undefined;
  ttl: number | undefined;
  /** The store to copy to. */
  to: string | undefined;
}

export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Which options each command takes. */
const TAKEN = {
  "--restore": ["restore", "ttl"],
  "--to": ["to", "prefix", "watch"],
  "A dump": ["prefix", "format", "watch"],
};

/**
 * @throws {UsageError} If the arguments are wrong
 * @throws {InvalidArgument} If the ttl is not one
 */
export function readOptions(args: string[]): Options | "help" {
  expectOnce(args);
  // The parser takes "-" for an option.
  const place = args.indexOf("--restore");
  if (place !== -1 && args[place + 1] === "-") args = args.toSpliced(place, 2, "--restore=-");
  const { _: [url, ...others], ...given } = parseArgs(args, {
    string: ["_", "prefix", "format", "restore", "ttl", "to"],
    boolean: ["watch", "help"],
    alias: { help: "h" },
    unknown(arg) {
      if (arg.startsWith("-")) throw new UsageError(`Unknown option "${withoutPassword(arg)}"`);
    },
  });
  const { prefix = "", watch, restore, to } = given;
  if (given.help) return "help";
  if (url === undefined) {
    throw new UsageError("Expected the URL of a store, as in: dump.ts http://localhost:5100");
  }
  if (others.length > 0) {
    throw new UsageError(`Expected one URL, not also "${withoutPassword(`${others[0]}`)}"`);
  }
  if (restore === "") throw new UsageError("--restore needs a file");
  if (to === "") throw new UsageError("--to needs the URL of a store");
  if (to === url) {
    const shown = withoutPassword(url);
    throw new UsageError(`Cannot copy "${shown}" to itself: expected another store`);
  }
  const command = restore !== undefined ? "--restore" : to !== undefined ? "--to" : "A dump";
  for (const [name, value] of Object.entries(given)) {
    const isGiven = value !== undefined && value !== false && name.length > 1;
    if (isGiven && !TAKEN[command].includes(name)) {
      throw new UsageError(`${command} takes no --${name}`);
    }
  }
  const format = FORMATS.find((it) => it === (given.format ?? "lines"));
  if (!format) {
    const shown = withoutPassword(`${given.format}`);
    throw new UsageError(`--format is "${shown}": expected ${FORMATS.join(" or ")}`);
  }
  if (watch && (format === "json" || format === "backup")) {
    throw new UsageError("--watch has no end: expected --format lines or table");
  }
  if (watch && !watchesOthers(url)) {
    const why = "a file does not report other programs' changes";
    throw new UsageError(`--watch needs a service or Redis: ${why}`);
  }
  if (given.ttl !== undefined && !/^\d+$/.test(given.ttl)) {
    const shown = withoutPassword(given.ttl);
    throw new UsageError(`--ttl is "${shown}": expected a whole number of seconds`);
  }
  const ttl = given.ttl === undefined ? undefined : Number(given.ttl);
  checkTtl(ttl);
  return { url, prefix, format, watch, restore, ttl, to };
}

/**
 * The parser would take the last of several values, and any value of a flag as true.
 *
 * @throws {UsageError} If an option is repeated, or a flag has a value
 */
function expectOnce(args: string[]): void {
  const seen = new Set<string>();
  for (const arg of args) {
    if (arg === "--") return;
    const [, name, value] = /^--(\w+)(=?)/.exec(arg) ?? [];
    if (name === undefined) continue;
    if (value && (name === "watch" || name === "help")) {
      throw new UsageError(`Cannot read "${withoutPassword(arg)}": --${name} takes no value`);
    }
    if (seen.has(name)) throw new UsageError(`--${name} is repeated: expected it once`);
    seen.add(name);
  }
}
