/**
 * The connections of a Redis store, by `ioredis` with settings under which no call hangs, no command is
 * sent twice and a lost connection is made again.
 */
import { Cluster, Redis } from "ioredis";
import handlers from "ioredis/built/DataHandler.js";
import type { Writable } from "node:stream";
import { within } from "../timers.ts";
import { askWorkingServers, handleAsking } from "./cluster.ts";
import { sentinels } from "./sentinels.ts";
import type { RedisUrl } from "./url.ts";

/** The longest pause between two attempts to connect, in milliseconds. */
const MAX_BACK_OFF = 1000;
/** How long reaching a server may take, in milliseconds: a lost packet is sent again after a second. */
const CONNECT_TIMEOUT = 1500;
/** How long the other side may take to close a connection, in milliseconds. */
const CLOSE_TIMEOUT = 100;
/** Marks the options of our connections, and of their duplicates. */
const OURS = {};

/** The part of ioredis that takes the replies of one connection. Its types say that it is private. */
interface ReplyHandler {
  redis: {
    options: { scripts?: object };
    recoverFromFatalError(ofCommands: Error, error: Error, queues: { offlineQueue: boolean }): void;
  };
  dispatch(this: ReplyHandler, take: () => void): void;
}

// In ioredis 6.0 an unrequested reply, or one of another type, becomes an uncaught exception, which
// would end the process. Here it ends the connection, if that is ours. Bun imports the class itself.
const { prototype } = "default" in handlers ? handlers.default : handlers as never;
const handler = prototype as unknown as ReplyHandler;
const { dispatch } = handler;
handler.dispatch = function (take) {
  if (this.redis.options.scripts !== OURS) return dispatch.call(this, take);
  try {
    take();
  } catch (cause) {
    const error = new Error("it does not follow the protocol", { cause });
    this.redis.recoverFromFatalError(error, error, { offlineQueue: false });
  }
};

/**
 * Connects to the server, or to all of a Cluster, in the background; a connection that is lost is made
 * again. The function that is returned closes it, and the connections to Sentinels.
 *
 * @param deadline Of calls, in milliseconds: Sentinels are asked for the master twice in that time
 */
export function connect(target: RedisUrl, deadline: number) {
  const { hosts, path, username, password, database, tls } = target;
  const backOff = (attempt: number) => Math.min(25 * 2 ** attempt, MAX_BACK_OFF);
  const timeout = Math.min(deadline, CONNECT_TIMEOUT);
  const common = {
    ...tls ? { tls: {} } : {},
    scripts: OURS,
    connectTimeout: timeout,
    disconnectTimeout: CLOSE_TIMEOUT,
    disableClientInfo: true,
    // It needs INFO, which a user may not be allowed to call; a server that loads says so itself.
    enableReadyCheck: false,
    retryStrategy: backOff,
    // Nothing is sent twice or later: that is the caller's decision.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // ioredis handles no error of the subscriptions that it makes again.
    autoResubscribe: false,
  };
  const options = {
    ...common,
    username,
    password,
    db: database,
    // Reconnect to a server that is silent for so long while calls wait.
    socketTimeout: deadline,
    enableOfflineQueue: false,
  };
  if (target.kind === "cluster") {
    const cluster = new Cluster(hosts, {
      redisOptions: options,
      clusterRetryStrategy: backOff,
      slotsRefreshTimeout: timeout,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      // A certificate is for a name, not for the address that ioredis would look up.
      ...tls ? { dnsLookup: (host, done) => done(null, host) } : {},
    });
    cluster.on("+node", handleAsking);
    const asking = askWorkingServers(cluster, timeout);
    const close = async () => void await Promise.all([cluster, ...asking].map(disconnect));
    return { redis: cluster, close };
  }
  if (target.kind === "sentinel") {
    const { sentinelUsername, sentinelPassword } = target;
    const connection = { ...common, username: sentinelUsername, password: sentinelPassword };
    const asking = { connection, interval: deadline / 2, backOff };
    const { Connector, clients, stop } = sentinels(target, asking);
    const redis = new Redis({ ...options, Connector });
    const close = async () => {
      stop();
      await Promise.all([redis, ...clients].map(disconnect));
    };
    return { redis, close };
  }
  const redis = new Redis({ ...options, ...(path === undefined ? hosts[0] : { path }) });
  return { redis, close: () => disconnect(redis) };
}

/**
 * Returns a function to call before each command: those of one turn of the event loop are then sent
 * as one packet, which halves the CPU time of a command. ioredis's own pipelining costs more, and in
 * a Cluster, where each command is a packet here, it sends a write again.
 */
export function gatherCommands(redis: Redis | Cluster): () => void {
  if (redis instanceof Cluster) return () => {};
  let isCorked = false;
  return () => {
    if (isCorked) return;
    isCorked = true;
    const { stream } = redis as unknown as { stream: Writable }; // its types leave it out
    stream.cork();
    setImmediate(() => {
      isCorked = false;
      stream.uncork();
    });
  };
}

/** Closes a connection, or all of a Cluster. */
export async function disconnect(redis: Redis | Cluster): Promise<void> {
  const connections = redis instanceof Cluster ? [redis, ...redis.nodes()] : [redis];
  const open = connections.filter(({ status }) => status !== "end");
  const ended = open.map((it) => new Promise((resolve) => it.once("end", resolve)));
  if (open.length > 0) redis.disconnect();
  // ioredis emits no "end" if it was between two attempts to connect.
  await within(2 * CLOSE_TIMEOUT, Promise.all(ended)).catch(() => {});
}
