/**
 * The changes that any client makes in a Redis store. The scripts of `client.ts` publish the key of
 * each entry that they write, and a connection of its own, opened at the first watch, receives them.
 *
 * Redis keeps no messages for a subscriber that is disconnected: if this connection is lost, every
 * watch ends, and none can be resumed from before. A Cluster forwards messages from server to server
 * without acknowledgement: while two servers cannot reach each other, or a slot moves, a change may
 * be missed.
 *
 * @module
 */
import { Cluster, type Redis } from "ioredis";
import { Changes } from "../changes.ts";
import { isKey } from "../checks.ts";
import { unref } from "../timers.ts";
import { disconnect } from "./client.ts";

/** How often the connection is tested, in milliseconds: one that only listens does not notice its loss. */
const HEARTBEAT = 5000;

/** One connection that receives changes. */
export interface Subscription {
  readonly changes: Changes;
  /** Resolves once every later write will be received; rejects if the connection fails. */
  readonly ready: Promise<void>;
  /** Whether the connection could not be made, or is lost. */
  readonly isOver: boolean;
  /** Ends the watches without an error, and the connection. */
  close(): Promise<void>;
}

/**
 * Listens on a connection of its own, which is made as `redis` is.
 *
 * @param prefix What stands before each key in Redis
 * @param failed The error with which the watches end when the connection is lost
 */
export function subscribe(
  redis: Redis | Cluster,
  channel: string,
  prefix: string,
  failed: (cause: Error) => Error,
): Subscription {
  const changes = new Changes();
  const connection = anyServer(redis).duplicate({
    lazyConnect: true,
    // Reconnecting by itself would hide that changes were missed.
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
  });
  let isOver = false;
  let lastError = new Error("the connection was lost");
  connection.on("error", (error: Error) => (lastError = error));
  // Whoever may publish on the channel can send anything.
  connection.on("message", (_channel, name) => {
    const key = name.slice(prefix.length);
    if (name.startsWith(prefix) && isKey(key)) changes.add(key);
  });
  connection.once("end", () => {
    isOver = true;
    clearInterval(timer);
    changes.end(failed(lastError));
  });
  const timer = setInterval(() => connection.ping().catch(giveUp), HEARTBEAT);
  unref(timer);

  function giveUp(cause: Error): void {
    isOver = true;
    lastError = cause;
    if (connection.status !== "end") connection.disconnect();
  }

  async function begin(): Promise<void> {
    // The rejection lacks the reason, which came as an event.
    await connection.connect().catch(() => Promise.reject(lastError));
    await connection.subscribe(channel);
  }

  const ready = begin();
  ready.catch(giveUp);
  return {
    changes,
    ready,
    get isOver() {
      return isOver;
    },
    async close() {
      changes.end();
      clearInterval(timer);
      await disconnect(connection);
    },
  };
}

/** Returns the server, or one of a Cluster: what is published on one reaches all. */
function anyServer(redis: Redis | Cluster): Redis {
  if (!(redis instanceof Cluster)) return redis;
  const servers = redis.nodes().filter(({ status }) => status === "ready");
  const server = servers[Math.floor(Math.random() * servers.length)];
  if (server === undefined) throw new Error("no server of the Cluster is available");
  return server;
}
