/**
 * The changes that any client makes in a Redis store. The scripts publish the key of each entry that
 * they write, and a connection of its own, opened at the first watch, receives the keys.
 *
 * Redis keeps no messages for a subscriber that is disconnected: if this connection is lost, or its
 * server may not receive all messages, every watch ends and cannot be resumed. The servers of a
 * Cluster forward messages without acknowledgement: a change may be missed while a slot moves, and
 * until a server notices that it cannot reach another (`cluster-node-timeout`).
 */
import { Cluster, type Redis } from "ioredis";
import { Changes } from "../changes.ts";
import { isKey } from "../checks.ts";
import { unref, within } from "../timers.ts";
import { disconnect } from "./client.ts";
import { checkReach } from "./cluster.ts";
import { facts } from "./connection.ts";

/** Where changes are published, and when a subscription ends. */
export interface SubscribeOptions {
  channel: string;
  /** What stands before each key in Redis. */
  prefix: string;
  /** How often the connection is tested, in milliseconds: one that only listens does not notice its loss. */
  interval: number;
  /** When no caller waits for it any more, by `performance.now()`. */
  until: number;
  /** Returns the error with which the watches end when the connection is lost. */
  failed(cause: Error): Error;
}

/** One connection that receives every later change. */
export type Subscription = Awaited<ReturnType<typeof listen>>;

/** Listens with the options of `redis`; in a Cluster, on any server that reaches every master. */
export async function subscribe(
  redis: Redis | Cluster,
  options: SubscribeOptions,
): Promise<Subscription> {
  let problem: unknown = new Error("no server of the Cluster is available");
  for (const server of redis instanceof Cluster ? serversOf(redis) : [redis]) {
    try {
      return await listen(server, redis instanceof Cluster ? checkReach : checkMaster, options);
    } catch (error) {
      problem = error;
      if (performance.now() > options.until) break;
    }
  }
  throw problem;
}

async function listen(
  server: Redis,
  check: (connection: Redis) => Promise<void>,
  { channel, prefix, interval, until, failed }: SubscribeOptions,
) {
  const changes = new Changes();
  // Without a reconnection, which would hide that changes were missed.
  const connection = server.duplicate({ lazyConnect: true, retryStrategy: () => null });
  let lastError = new Error("the connection was lost");
  connection.on("error", (error: Error) => (lastError = error));
  // Other clients may publish anything on the channel.
  connection.on("message", (_channel, name) => {
    const key = name.slice(prefix.length);
    if (name.startsWith(prefix) && isKey(key)) changes.add(key);
  });

  /** Ends the watches if changes may be missed. Returns whether they go on. */
  async function test(): Promise<boolean> {
    try {
      await within(interval, check(connection));
      return connection.status === "ready";
    } catch (error) {
      end(error as Error);
      return false;
    }
  }

  function end(cause: Error): void {
    clearInterval(timer);
    changes.end(failed(cause));
    if (connection.status !== "end") connection.disconnect();
  }

  const timer = unref(setInterval(test, interval));
  const { promise: ended, reject } = Promise.withResolvers<never>();
  connection.once("end", () => {
    end(lastError);
    reject(lastError);
  });
  async function begin(): Promise<void> {
    // The rejection lacks the reason, which comes with "end".
    await connection.connect().catch(() => ended);
    await connection.subscribe(channel);
    await check(connection);
  }
  try {
    await within(until - performance.now(), Promise.race([begin(), ended]), () => {
      throw new Error("no answer in time");
    });
  } catch (error) {
    end(error as Error);
    throw error;
  }
  return {
    changes,
    test,
    /** Ends the watches without an error, and the connection. */
    async close(): Promise<void> {
      changes.end();
      clearInterval(timer);
      await disconnect(connection);
    },
  };
}

/** @throws {Error} If what others write may not reach this server */
async function checkMaster(connection: Redis): Promise<void> {
  // Without HELLO a connection that listens can send no more than this: its role is not known.
  if (connection.mode === "subscriber") return void await connection.ping();
  const { role } = await facts(connection);
  if (role === "replica") throw new Error("it is a replica, which may miss changes");
}

/** Returns the servers of a Cluster in random order, first those that are connected. */
function serversOf(cluster: Cluster): Redis[] {
  const orderOf = ({ status }: Redis) => Math.random() + (status === "ready" ? 0 : 1);
  return cluster.nodes().map((server) => ({ server, order: orderOf(server) }))
    .sort((a, b) => a.order - b.order).map(({ server }) => server);
}
