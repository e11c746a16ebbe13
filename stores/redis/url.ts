/**
 * The URLs of Redis stores. The WHATWG's parser cannot read them: it knows one host for each.
 *
 * | URL | Redis |
 * |---|---|
 * | `redis://user:password@host:port/2` | one server; user, password, port and database may be left out |
 * | `redis+unix://user:password@/run/redis.sock?db=2` | one server, by the path of its socket |
 * | `redis+sentinel://host:port,host:port/name/2` | the master that these Sentinels call `name` |
 * | `redis+cluster://host:port,host:port` | a Cluster, found through any of these servers |
 *
 * `rediss` instead of `redis` means TLS. All parts are percent-encoded. User and password are the data
 * servers'; the Sentinels' are `?sentinelUsername=` and `?sentinelPassword=`. `?prefix=` goes before
 * every key, for a Redis that others use too.
 */

import { decodePart, parseQuery } from "../query.ts";

export interface RedisUrl {
  readonly kind: "alone" | "sentinel" | "cluster";
  readonly tls: boolean;
  /** Empty where there is a path. */
  readonly hosts: { host: string; port: number }[];
  /** The path of a socket. */
  readonly path?: string;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The name that the Sentinels have for the master. */
  readonly master?: string | undefined;
  readonly sentinelUsername?: string;
  readonly sentinelPassword?: string;
  readonly database: number;
  readonly prefix: string;
}

const REDIS_URL =
  /^redis(s?)(?:\+(sentinel|cluster|unix))?:\/\/(?:([^/?#]*)@)?([^/?#@]*)([^?#]*)(?:\?(.*))?$/s;

/** @throws {TypeError} With what was expected, and without the password */
export function parseRedisUrl(url: string): RedisUrl {
  // The rest of such a password would be read as a host or a database, and be shown.
  if (/^[^:]*:\/\/[^/?#]*[/?#].*@/s.test(url)) {
    throw new TypeError(
      "expected %2F, %3F, %23 or %40 for each /, ?, # or @ that is not a separator",
    );
  }
  const match = REDIS_URL.exec(url);
  if (match === null) throw new TypeError("expected a host after the scheme");
  const [, tls, form, login = "", hosts = "", path = "", query = ""] = match;
  const kind = form === "sentinel" || form === "cluster" ? form : "alone";
  const [username, password] = parseLogin(login);
  const { prefix = "", db = "", ...sentinelLogin } = parseQuery(query, [
    "prefix",
    ...form === "unix" ? ["db"] as const : [],
    ...form === "sentinel" ? ["sentinelUsername", "sentinelPassword"] as const : [],
  ]);
  const isSocket = form === "unix";
  if (isSocket && (hosts !== "" || path === "" || tls === "s")) {
    throw new TypeError("expected redis+unix:///path/of/a/socket");
  }
  const place = isSocket
    ? { hosts: [], path: decodePart(path), database: parseDatabase(db) }
    : { hosts: parseHosts(hosts, kind), ...parsePath(path, kind) };
  return { kind, tls: tls === "s", username, password, prefix, ...sentinelLogin, ...place };
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
    throw new TypeError(`expected no database, found "${database}": a Cluster has only one`);
  }
  return { master, database: parseDatabase([database, ...rest].join("/")) };
}

function parseDatabase(database: string): number {
  if (!/^\d{0,9}$/.test(database)) {
    throw new TypeError(`expected the number of a database, found "${database}"`);
  }
  return Number(database);
}
