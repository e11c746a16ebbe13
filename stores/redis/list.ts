/**
 * Pages of the keys in Redis, by SCAN on one master after another. Any process on the same Redis can
 * continue a listing, since all of its state is in the cursor.
 *
 * SCAN finds every key that exists all the time. If the server's table shrinks, SCAN goes over its
 * current part again, so the cursor carries fingerprints of the last {@linkcode REMEMBERED} keys. A
 * key comes twice only if, between two pages, fewer than one key in {@linkcode REMEMBERED} is left.
 *
 * A restart or a failover changes the order, so older cursors are rejected; so are those of another
 * connection if the user may not call INFO. A Cluster that moves slots from one master to another is
 * not listed meanwhile, and rejects older cursors: keys would be missed or come twice.
 */
import { Buffer } from "node:buffer";
import { createHash, randomUUID } from "node:crypto";
import { Cluster, type Redis } from "ioredis";
import { InvalidArgument, type Page } from "../store.ts";
import { isRefusal } from "./format.ts";
import { allMasters, type Master } from "./cluster.ts";

/** How many of the keys found last are in a cursor. */
const REMEMBERED = 64;
/** The most keys that a server examines in one step, which blocks it for a few milliseconds. */
const MAX_SCAN = 10_000;
/** How much a cursor may carry of keys that did not fit, in bytes of JSON, since it goes into a URL. */
const MAX_AHEAD = 4096;

/** The listing, the server, SCAN's cursor, fingerprints, and the keys ahead, as base64url of JSON. */
const CURSOR = /^([\w-]{11})\.(\d{1,4})\.(\d{1,19})\.((?:[\w-]{11})*)\.([\w-]*)$/;

/** How far a listing has come. */
interface Position {
  /** The master's index. */
  server: number;
  scan: string;
  /** Fingerprints of the keys found last. */
  met: string[];
  /** Keys that were found and did not fit into the page: SCAN takes its count as a hint. */
  ahead: string[];
}

/**
 * Returns a page of the keys that begin with `start`: the URL's prefix and then the caller's.
 *
 * @param timeout Milliseconds after which the page ends, even if it is short or empty
 * @throws {InvalidArgument} If `after` is not a cursor of this listing
 */
export async function listPage(
  redis: Redis | Cluster,
  start: string,
  after: string | undefined,
  limit: number,
  timeout: number,
): Promise<Page> {
  const end = performance.now() + timeout;
  const { masters, listing } = await findServers(redis, start);
  const position = after === undefined ? FIRST : parse(after, listing, start);
  const pattern = `${start.replace(/[*?[\]\\]/g, "\\$&")}*`;
  const met = new Set(position.met);
  // Since the page before, they may have been removed, or expired.
  const isThere = await Promise.all(position.ahead.map((key) => redis.exists(key)));
  const keys = position.ahead.filter((_, i) => isThere[i] === 1);
  let { server, scan } = position;
  let count = limit;
  while (keys.length < limit && performance.now() < end) {
    const master = masters[server];
    if (master === undefined) break;
    const reply = await master.scan(scan, "MATCH", pattern, "COUNT", count);
    const [next, names] = checkScan(reply, start);
    const found = new Map(names.map((name) => [fingerprint(name), name]));
    const fresh = [...found].filter(([mark]) => !met.has(mark)).map(([, name]) => name);
    const ahead = JSON.stringify(fresh.slice(Math.max(0, limit - keys.length)));
    if (count > 1 && Buffer.byteLength(ahead) > MAX_AHEAD) {
      // Again from where it was, in smaller steps. What it returns then may be something else.
      count = Math.ceil(count / 4);
      continue;
    }
    keys.push(...fresh);
    for (const mark of found.keys()) met.add(mark);
    scan = next;
    if (scan === "0") server++;
    // Enough to fill the page, if the rest of the table is like the part just examined.
    const enough = names.length === 0 ? 2 * count : (limit - keys.length) * count / names.length;
    count = Math.min(Math.ceil(enough), MAX_SCAN);
  }
  if (redis instanceof Cluster && (await findServers(redis, start)).listing !== listing) {
    throw new Error("the Cluster has moved slots from one master to another");
  }
  const ahead = keys.splice(limit);
  const isLast = ahead.length === 0 && server === masters.length;
  const last = [...met].slice(-REMEMBERED);
  return { keys, next: isLast ? null : format(listing, { server, scan, met: last, ahead }) };
}

/** @throws {Error} If it is not the reply to a SCAN for keys that begin with `start` */
function checkScan(reply: unknown, start: string): [next: string, names: string[]] {
  const [next, names] = Array.isArray(reply) ? reply : [];
  const isExpected = typeof next === "string" && /^\d{1,19}$/.test(next) && Array.isArray(names) &&
    names.every((name) => typeof name === "string" && name.startsWith(start));
  if (!isExpected) throw new Error("its reply is unexpected");
  return [next, names];
}

const FIRST: Position = { server: 0, scan: "0", met: [], ahead: [] };

function format(listing: string, { server, scan, met, ahead }: Position): string {
  const rest = ahead.length === 0 ? "" : Buffer.from(JSON.stringify(ahead)).toString("base64url");
  return [listing, server, scan, met.join(""), rest].join(".");
}

function parse(cursor: string, listing: string, start: string): Position {
  const [, of, server, scan, met, rest = ""] = CURSOR.exec(cursor) ?? [];
  const ahead = parseAhead(rest, start);
  if (of !== listing || scan === undefined || met === undefined || ahead === null) {
    const wanted = 'expected the "next" of this listing, since the servers last changed';
    // The rest of a cursor of ours has keys in it.
    const shown = cursor.length > 11 ? `${cursor.slice(0, 11)}…` : cursor;
    throw new InvalidArgument("after", `Cannot list after "${shown}": ${wanted}`);
  }
  return { server: Number(server), scan, met: met.match(/.{11}/g) ?? [], ahead };
}

/** Returns the keys, or null if a client has changed them: it could look outside the URL's prefix. */
function parseAhead(rest: string, start: string): string[] | null {
  if (rest === "") return [];
  try {
    const ahead: unknown = JSON.parse(Buffer.from(rest, "base64url").toString());
    // A key takes four bytes at least, and a call to Redis.
    const isExpected = Array.isArray(ahead) && ahead.length <= MAX_AHEAD / 4 &&
      ahead.every((key) => typeof key === "string" && key.startsWith(start));
    return isExpected ? ahead : null;
  } catch {
    return null;
  }
}

/**
 * Returns the masters in the order of the ids of their processes, which are new at each start, and what
 * identifies a listing: it changes if the keys of a master are no longer the same to SCAN.
 */
async function findServers(redis: Redis | Cluster, start: string) {
  const masters = redis instanceof Cluster
    ? await findMasters(redis)
    : [{ node: redis, slots: "" }];
  const servers = await Promise.all(masters.map(async ({ node, slots }) => {
    return { state: `${await runOf(node)} ${slots}`, node };
  }));
  servers.sort((a, b) => a.state < b.state ? -1 : 1);
  const listing = fingerprint(JSON.stringify([start, ...servers.map(({ state }) => state)]));
  return { masters: servers.map(({ node }) => node), listing };
}

/** Returns the masters that have all keys, also those that ioredis does not know yet, or no longer. */
async function findMasters(cluster: Cluster): Promise<Master[]> {
  try {
    return await allMasters(cluster);
  } catch {
    // ioredis learns of new masters by redirections, which SCAN does not get, and forgets one that
    // has closed a quiet connection.
    await new Promise((done) => cluster.refreshSlotsCache(done));
    return await allMasters(cluster);
  }
}

/** Ids of connections, for servers whose process id may not be asked for: none outlives its process. */
const connections = new WeakMap<object, string>();

/** Returns the id of a server's process, or of our connection to it. */
async function runOf(node: Redis): Promise<string> {
  try {
    const run = /^run_id:(\w+)/m.exec(await node.info("server"))?.[1];
    if (run === undefined) throw new Error("there is no run_id in its INFO");
    return run;
  } catch (error) {
    if (!isRefusal(error, "NOPERM")) throw error;
    const { stream } = node as unknown as { stream: object };
    const run = connections.get(stream) ?? randomUUID();
    connections.set(stream, run);
    return run;
  }
}

/** Returns 66 bits of a hash: enough to keep the keys of two pages apart. */
function fingerprint(text: string): string {
  return createHash("sha1").update(text).digest("base64url").slice(0, 11);
}
