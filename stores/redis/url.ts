/**
 * The URLs of Redis stores. They are no URLs of the WHATWG's, which knows one host each.
 *
 * | URL | Redis |
 * |---|---|
 * | `redis://user:password@host:port/2` | one server; user, password, port and database may be left out |
 * | `redis+sentinel://host:port,host:port/name/2` | the master that these Sentinels call `name` |
 * | `redis+cluster://host:port,host:port` | a Cluster, found through any of these servers |
 *
 * `rediss` in place of `redis` means TLS. User and password are percent-encoded, and are the data
 * servers'; Sentinels are asked without. `?prefix=` (percent-encoded) goes before every key, for a
 * Redis that others use too.
 *
 * @module
 */

import { decodePart, parsePrefix } from "../prefix.ts";

/** What the URL of a Redis store says. */
export interface RedisUrl {
  readonly kind: "alone" | "sentinel" | "cluster";
  readonly tls: boolean;
  readonly hosts: { host: string; port: number }[];
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The name that the Sentinels have for the master. */
  readonly master: string | undefined;
  readonly database: number;
  readonly prefix: string;
}

const REDIS_URL =
  /^redis(s?)(?:\+(sentinel|cluster))?:\/\/(?:([^/?#]*)@)?([^/?#@]*)([^?#]*)(?:\?(.*))?$/s;

/** What is wrong with the URL of a Redis store, or null. */
export function redisUrlProblem(url: string): string | null {
  try {
    parseRedisUrl(url);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** @throws {TypeError} With what was expected, and without the password */
export function parseRedisUrl(url: string): RedisUrl {
  // The rest of such a password would be taken for a host or a database, and be shown.
  if (/^[^:]*:\/\/[^/?#]*[/?#].*@/s.test(url)) {
    throw new TypeError("expected %2F, %3F, %23 or %40 for each /, ?, # or @ but the separators");
  }
  const match = REDIS_URL.exec(url);
  if (match === null) throw new TypeError("expected a host after the scheme");
  const [, tls, form, login = "", hosts = "", path = "", query = ""] = match;
  const kind = form === "sentinel" || form === "cluster" ? form : "alone";
  const [username, password] = parseLogin(login);
  return {
    kind,
    tls: tls === "s",
    hosts: parseHosts(hosts, kind),
    username,
    password,
    ...parsePath(path, kind),
    prefix: parsePrefix(query),
  };
}

function parseLogin(login: string): (string | undefined)[] {
  const colon = login.indexOf(":");
  const parts = colon < 0 ? [login] : [login.slice(0, colon), login.slice(colon + 1)];
  return parts.map((part) => (part === "" ? undefined : decodePart(part)));
}

function parseHosts(hosts: string, kind: RedisUrl["kind"]): RedisUrl["hosts"] {
  const list = hosts.split(",");
  if (hosts === "") throw new TypeError("expected a host after the scheme");
  if (kind === "alone" && list.length > 1) {
    throw new TypeError("expected one host: several are for redis+sentinel: and redis+cluster:");
  }
  return list.map((item) => {
    const [, ip6, name, port] = /^(?:\[([\da-f:.]+)\]|([^:[\]\s]+))(?::(\d+))?$/i.exec(item) ?? [];
    const host = ip6 ?? name;
    const number = Number(port ?? (kind === "sentinel" ? 26379 : 6379));
    if (host === undefined || number < 1 || number > 65535) {
      throw new TypeError(`expected host:port, found "${item}"`);
    }
    return { host, port: number };
  });
}

function parsePath(path: string, kind: RedisUrl["kind"]): Pick<RedisUrl, "master" | "database"> {
  const parts = path.split("/").slice(1);
  const master = kind === "sentinel" ? decodePart(parts.shift() ?? "") : undefined;
  if (master === "") throw new TypeError("expected the name of the master after the hosts");
  const [database = "", ...rest] = parts;
  if (kind === "cluster" && database !== "") {
    throw new TypeError(`expected no database, found "${database}": a Cluster has but one`);
  }
  if (!/^\d{0,9}$/.test(database) || rest.length > 0) {
    throw new TypeError(
      `expected the number of a database, found "${[database, ...rest].join("/")}"`,
    );
  }
  return { master, database: Number(database) };
}
