/** The permissions that a server needs for its configuration, and no others. */
import { lstatSync, readlinkSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { parseRedisUrl } from "../stores/redis/url.ts";
import { ConfigError, SETTINGS } from "./config.ts";
import { hostPort } from "./listen.ts";

interface Used {
  hostname: string;
  port: number;
  config: string;
  /** The URL of its store, if it has one. */
  store?: string | undefined;
}

/** Returns the flags of `deno run` for a server. */
export function permissionsOf({ hostname, port, config, store }: Used): string[] {
  const { hosts = [], files = [] } = store === undefined ? {} : needsOf(store);
  // With port 0, any port of the host, since the port is not known yet.
  const own = hostPort(hostname, port).replace(/:0$/, "");
  return [
    "--no-prompt",
    hosts === "any" ? "--allow-net" : `--allow-net=${[own, ...hosts].join()}`,
    allow("--allow-read", [config, ...files]),
    ...files.length > 0 ? [allow("--allow-write", files)] : [],
    `--allow-env=${SETTINGS.join()}`,
    // Packages may look for their own variables: each is missing.
    "--ignore-env",
  ];
}

/** The hosts that a store needs, and the files, to read and write. */
function needsOf(store: string): { hosts?: string[] | "any"; files?: string[] } {
  if (/^:memory:(\?|$)/.test(store)) return {};
  const [scheme = "sqlite:"] = /^[a-z][a-z0-9+.-]+:/i.exec(store) ?? [];
  if (scheme === "sqlite:") {
    const file = store.replace(/^sqlite:/, "").replace(/\?.*/s, "");
    const linked = withoutLinks(file);
    const names = linked === resolve(file) ? [file] : [file, linked];
    const suffixes = ["", "-wal", "-shm", "-journal"];
    return { files: names.flatMap((name) => suffixes.map((suffix) => name + suffix)) };
  }
  if (/^https?:$/.test(scheme)) {
    const { host, port } = new URL(store);
    return { hosts: addresses(port ? host : `${host}:${scheme === "http:" ? 80 : 443}`) };
  }
  const { kind, hosts, path } = parseRedisUrl(store);
  if (path !== undefined) return { hosts: "any", files: [path] };
  // Sentinels and nodes of a Cluster name other hosts.
  if (kind !== "alone") return { hosts: "any" };
  return { hosts: hosts.flatMap(({ host, port }) => addresses(hostPort(host, port))) };
}

/** After the first address of a name, Deno asks for a right to the next one by its number. */
function addresses(host: string): string[] {
  const port = /^localhost(:\d+)$/.exec(host)?.[1];
  return port === undefined ? [host] : [host, `127.0.0.1${port}`, `[::1]${port}`];
}

/** Returns the file that a path leads to by links: SQLite keeps its other files beside that one. */
function withoutLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    if ((cause as { code?: string }).code === "ELOOP") return path; // the server says what is wrong
  }
  // It is created by the server, where a link may lead to it.
  try {
    const file = join(realpathSync(dirname(path)), basename(path));
    const isLink = lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink();
    return isLink ? withoutLinks(resolve(dirname(file), readlinkSync(file))) : file;
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotCapable)) return path; // as above
    const hint = "Deno opens no file of /dev, /proc or /sys without all rights";
    throw new ConfigError(`Cannot use "${path}" as a store: ${hint}`, { cause });
  }
}

/** Deno splits a list at commas, so a path with a comma can only be allowed with all others. */
function allow(flag: string, paths: string[]): string {
  return paths.some((path) => path.includes(",")) ? flag : `${flag}=${paths.join()}`;
}
