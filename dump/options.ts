/** The command line of `dump.ts`. */
import { parseArgs } from "node:util";
import { checkTtl } from "../stores/checks.ts";
import { isRemote, withoutPassword } from "../stores/open.ts";
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
  restore: string | undefined;
  ttl: number | undefined;
  /** The store to copy to. */
  to: string | undefined;
}

export class UsageError extends Error {}

const OPTIONS: Record<string, { type: "string" | "boolean"; short?: string }> = {
  prefix: { type: "string" },
  format: { type: "string" },
  restore: { type: "string" },
  ttl: { type: "string" },
  to: { type: "string" },
  watch: { type: "boolean" },
  help: { type: "boolean", short: "h" },
};

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
  const { given, positionals: [url, ...others] } = parse(args);
  if (given.help !== undefined) return "help";
  const { prefix = "", restore, to } = given;
  const watch = given.watch !== undefined;
  if (url === undefined || url === "-") {
    throw new UsageError("Expected the URL of a store, as in: dump.ts http://localhost:5100");
  }
  if (others.length > 0) {
    throw new UsageError(`Expected one URL, not also "${withoutPassword(others[0] ?? "")}"`);
  }
  if (restore === "") throw new UsageError("--restore needs a file");
  if (to === "") throw new UsageError("--to needs the URL of a store");
  if (to === url) {
    const shown = withoutPassword(url);
    throw new UsageError(`Cannot copy "${shown}" to itself: expected another store`);
  }
  const command = restore !== undefined ? "--restore" : to !== undefined ? "--to" : "A dump";
  for (const name in given) {
    if (!TAKEN[command].includes(name)) throw new UsageError(`${command} takes no --${name}`);
  }
  const format = FORMATS.find((it) => it === (given.format ?? "lines"));
  if (!format) {
    const shown = withoutPassword(`${given.format}`);
    throw new UsageError(`--format is "${shown}": expected ${FORMATS.join(" or ")}`);
  }
  if (watch && (format === "json" || format === "backup")) {
    throw new UsageError("--watch has no end: expected --format lines or table");
  }
  if (watch && !isRemote(url)) {
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
 * @returns The value of each option, "" for a flag and for a value that is missing at the end
 * @throws {UsageError} If an option is unknown, repeated, or without a value, or a flag has one
 */
function parse(args: string[]) {
  const parsed = parseArgs({ args, options: OPTIONS, strict: false, tokens: true });
  const given: Record<string, string> = {};
  for (const token of parsed.tokens) {
    if (token.kind !== "option") continue;
    const { name, value = "", inlineValue } = token;
    const shown = withoutPassword(args[token.index] ?? "");
    if (!Object.hasOwn(OPTIONS, name)) throw new UsageError(`Unknown option "${shown}"`);
    if (inlineValue && OPTIONS[name]?.type === "boolean") {
      throw new UsageError(`Cannot read "${shown}": --${name} takes no value`);
    }
    // An empty prefix means all keys; any other option says below what it needs.
    const isMissing = name === "prefix" && token.value === undefined;
    if (isMissing || !inlineValue && /^-./.test(value)) {
      throw new UsageError(`--${name} needs a value: one that begins with - follows --${name}=`);
    }
    if (name in given) throw new UsageError(`--${name} is repeated: expected it once`);
    given[name] = value;
  }
  return { given, positionals: parsed.positionals };
}
