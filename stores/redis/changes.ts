/**
 * What anybody changes in a Redis store. The scripts of `redis_client.ts` publish the key of each
 * entry that they write; one more connection, opened at the first watch, hears of them.
 *
 * Redis keeps nothing for a listener who is away: when this connection is lost, every watch ends,
 * and none can be resumed from before. A Cluster carries a message from server to server without
 * asking whether it arrived: where two servers lose sight of each other for a moment, or a slot
 * moves, a change may go unheard.
 *
 * @module
 */
import { Cluster, type Redis } from "ioredis";
import { Changes } from "../changes.ts";
import { unref } from "../timers.ts";
import { disconnect } from "./client.ts";

/** How often the connection is tried, in milliseconds: one that only listens notices no loss. */
const HEARTBEAT = 5000;

/** What is heard on one connection, for as long as it lasts. */
export interface Subscription {
  readonly changes: Changes;
  /** Resolves when every later write will be heard of, and rejects where that cannot be. */
  readonly ready: Promise<void>;
  /** Whether the connection could not be made, or is lost. */
  readonly isOver: boolean;
  /** Ends the watches in good order, and the connection. */
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
    // One that came back by itself would hide that changes were missed.
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
  });
  let isOver = false;
  let lastError = new Error("the connection was lost");
  connection.on("error", (error: Error) => (lastError = error));
  connection.on("message", (_channel, name) => changes.add(name.slice(prefix.length)));
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
    // It rejects without the reason, which came as an event.
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

/** The server, or one of a Cluster: each hears what is published on any. */
function anyServer(redis: Redis | Cluster): Redis {
  if (!(redis instanceof Cluster)) return redis;
  const servers = redis.nodes().filter(({ status }) => status === "ready");
  const server = servers[Math.floor(Math.random() * servers.length)];
  if (server === undefined) throw new Error("no server of the Cluster answers");
  return server;
}
