/**
 * What a Redis Cluster needs beside ioredis: servers that are cut off are not asked for the map of
 * slots, and what servers know of one another is read.
 */
import { type Cluster, Redis } from "ioredis";
import { within } from "../timers.ts";

/** The hash slots of every Cluster. */
const SLOTS = 16384;
/** How many keys are tried to find one on each master: one with a hundredth of the slots is found. */
const TRIED_KEYS = 500;
/** What a server that can serve its slots says by CLUSTER INFO. */
const WORKING = /^cluster_state:ok/m;

/** What makes a connection to a server beside the one that there is. */
type Server = Pick<Redis, "duplicate">;

/** The part of ioredis that asks a server for the map of slots. Its types say that it is private. */
interface SlotsReader {
  getInfoFromNode(server: Server | undefined, done: (error?: unknown) => void): void;
}

/**
 * Makes ioredis ignore servers that do not know the Cluster: one that is cut off has an old map, and
 * one that was removed an empty map, with which ioredis would end all connections.
 *
 * @param timeout Milliseconds that a server may take to answer
 * @returns The connections that are open to ask: closing the Cluster leaves them open
 */
export function askWorkingServers(cluster: Cluster, timeout: number): ReadonlySet<Redis> {
  const asking = new Set<Redis>();
  const reader = cluster as unknown as SlotsReader;
  const { getInfoFromNode } = reader;
  reader.getInfoFromNode = (server, done) => {
    if (server === undefined) return getInfoFromNode.call(cluster, server, done);
    const noted: Server = {
      duplicate(options) {
        const connection = server.duplicate(options);
        const { disconnect } = connection;
        // Of a connection that has ended, it would start a timer that nothing stops.
        connection.disconnect = () => connection.status !== "end" && disconnect.call(connection);
        asking.add(connection);
        connection.once("end", () => asking.delete(connection));
        return connection;
      },
    };
    const taken = (error?: unknown) => {
      const isNowhere = !error && cluster.nodes().length === 0;
      done(isNowhere ? new Error("it announces no address: expected cluster-announce-ip") : error);
    };
    const ask = () => {
      if (/^(disconnecting|close|end)$/.test(cluster.status)) return done(); // it checks that itself
      getInfoFromNode.call(cluster, noted, taken);
    };
    checkState(noted, timeout).then(ask, done);
  };
  return asking;
}

async function checkState(server: Server, timeout: number): Promise<void> {
  // A new connection, since most replicas have none.
  const connection = server.duplicate({ enableOfflineQueue: true, retryStrategy: null });
  let reason: unknown;
  connection.on("error", (error) => reason = error);
  try {
    const info = await within(timeout, connection.cluster("INFO"));
    if (!WORKING.test(String(info))) {
      throw new Error("the Cluster is down: its cluster_state is not ok");
    }
  } catch (error) {
    throw reason ?? error;
  } finally {
    connection.disconnect();
  }
}

/** A master, and what identifies the slots that it has. */
export interface Master {
  readonly node: Redis;
  readonly slots: string;
}

/** Returns the masters. Fails unless they have all keys: one may be down, or not known here. */
export async function allMasters(cluster: Cluster): Promise<Master[]> {
  const masters = cluster.nodes("master");
  // Without any, nobody would say how many there are.
  if (masters.length === 0) throw new Error("no master of the Cluster is connected");
  const states = await Promise.all(masters.map(async (it) => String(await it.cluster("INFO"))));
  for (const state of states) {
    const count = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(state)?.[1]);
    const hasAll = count("cluster_slots_assigned") === SLOTS && count("cluster_slots_fail") === 0;
    if (!WORKING.test(state) || !hasAll || count("cluster_size") !== masters.length) {
      throw new Error("not every master of the Cluster is available");
    }
  }
  return await Promise.all(masters.map(async (node) => ({ node, slots: await slotsOf(node) })));
}

/**
 * Returns keys that end with `end`, one on each master that has keys with this prefix and many slots:
 * with a {tag} in the prefix, on the only one.
 */
export function keysOnMasters(cluster: Cluster, prefix: string, end: string): string[] {
  const keys = new Map<string | undefined, string>();
  for (let i = 0; i < TRIED_KEYS; i++) {
    const key = `${prefix}{${i}}${end}`;
    keys.set(cluster.slots[slotOf(key)]?.[0], key);
  }
  return [...keys.values()];
}

/** @throws {Error} If a server may miss what is published on a master: it is cut off, or removed */
export async function checkReach(connection: Redis): Promise<void> {
  // By RESP2 it can ask for nothing.
  if (connection.mode === "subscriber") {
    throw new Error("a watch in a Cluster needs HELLO, which its servers do not know");
  }
  const masters = (await nodesOf(connection)).filter(({ length }) => length > 8);
  const isReached = ([, , flags = "", , , , , link]: string[]) =>
    flags.startsWith("myself") || (link === "connected" && !flags.includes("fail"));
  if (masters.length === 0 || !masters.every(isReached)) {
    throw new Error("a server of the Cluster does not reach every master");
  }
}

/** Returns what a server knows of each: `<id> <address> <flags> <master> <ping> <pong> <epoch> <link> <slots>…`. */
async function nodesOf(connection: Redis): Promise<string[][]> {
  const lines = String(await connection.cluster("NODES")).trim().split("\n");
  return lines.map((line) => line.split(" "));
}

/**
 * Returns which slots a master has. Slots that went to another and came back count as other ones,
 * since one of both masters has another epoch then.
 *
 * @throws {Error} If it is giving or taking one, whose keys are on two masters meanwhile; or if it has
 *     none: it has become a replica, and may have only a part of its keys
 */
async function slotsOf(master: Redis): Promise<string> {
  const own = (await nodesOf(master)).find(([, , flags = ""]) => flags.startsWith("myself")) ?? [];
  const [epoch, , ...slots] = own.slice(6);
  if (slots.some((slot) => slot.startsWith("["))) {
    throw new Error("the Cluster is moving slots from one master to another");
  }
  if (slots.length === 0) throw new Error("a master of the Cluster has become a replica");
  return [epoch, ...slots].join(" ");
}

/**
 * Handles the error of the ASKING that ioredis sends before a redirected command, which fails too. If
 * the server is gone, it would end the process as an unhandled rejection.
 */
export function handleAsking(node: Redis): void {
  node.asking = async () => await Redis.prototype.asking.call(node).catch(() => "OK");
}

/**
 * Returns the hash slot of a key: CRC16 (XMODEM) of its first {tag}, or of all of it. ioredis's own
 * `cluster-key-slot` finds a tag in `{}a}`, where Redis finds none.
 */
export function slotOf(key: string): number {
  let crc = 0;
  for (const byte of new TextEncoder().encode(/^[^{]*\{([^}]+)\}/.exec(key)?.[1] ?? key)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0);
  }
  return crc & (SLOTS - 1);
}
