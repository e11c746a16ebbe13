/**
 * The connection of a Redis store, by `ioredis` with settings under which nothing hangs, nothing is
 * sent twice and a lost connection is made again; and the scripts that the store writes with.
 *
 * @module
 */
import { Cluster, Redis } from "ioredis";
import dataHandler from "ioredis/built/DataHandler.js";
import type { RedisUrl } from "./url.ts";

/** The longest pause between two attempts to connect, in milliseconds. */
const MAX_BACK_OFF = 1000;
/** How long the other side may take to close a connection, in milliseconds. */
const CLOSE_TIMEOUT = 100;
/** Ends the script, with the entry that is there, unless ARGV[1] is "", "=<its revision>" or, for nothing, "!". */
const CHECK = `
  local revision = redis.call('GETRANGE', KEYS[1], 0, 35)
  if ARGV[1] ~= '' and ARGV[1] ~= (revision == '' and '!' or '=' .. revision) then
    return redis.call('GET', KEYS[1])
  end`;

/**
 * Writes all KEYS and publishes them: ARGV has the condition, the channel, the ttl in milliseconds
 * or "", then revisions and values. A key is published before it is written, so that a user who may
 * not publish cannot write either. No client sees a script half done.
 */
const PUT = `${CHECK}
  local expires = '-'
  if ARGV[3] ~= '' then
    local now = redis.call('TIME')
    expires = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3])
  end
  for i, key in ipairs(KEYS) do
    local entry = ARGV[i * 2 + 2] .. ' ' .. expires .. ' ' .. ARGV[i * 2 + 3]
    redis.call('PUBLISH', ARGV[2], key)
    if expires == '-' then
      redis.call('SET', key, entry)
    else
      redis.call('SET', key, entry, 'PXAT', expires)
    end
  end
  return {revision == '' and 1 or 0, expires}`;

/** Removes KEYS[1], and publishes it if it was there: ARGV has the condition and the channel. */
const REMOVE = `${CHECK}
  local entry = redis.call('GET', KEYS[1])
  if entry then
    redis.call('PUBLISH', ARGV[2], KEYS[1])
    redis.call('DEL', KEYS[1])
  end
  return {entry}`;

/** The scripts as ioredis has them: an array is a write that was done, anything else the entry in its way. */
interface Scripts {
  put(count: number, keys: string[], args: string[]): Promise<[number, string] | string | null>;
  remove(key: string, condition: string, channel: string): Promise<[string | null] | string | null>;
}

type Client = (Redis | Cluster) & Scripts;

const SCRIPTS = { put: { lua: PUT }, remove: { lua: REMOVE, numberOfKeys: 1 } };

/** The part of ioredis that takes the replies of one connection. Its types say that it is private. */
interface ReplyHandler {
  redis: {
    options: { scripts?: object };
    recoverFromFatalError(ofCommands: Error, error: Error, queues: { offlineQueue: boolean }): void;
  };
  dispatch(this: ReplyHandler, take: () => void): void;
}

// A reply that nothing asked for, or of another type, can throw in ioredis 6.0, which throws it again
// as an uncaught exception: that would end the process. Here it ends the connection. The connections
// of other users of ioredis in this process stay as they are.
const handler = dataHandler.default.prototype as unknown as ReplyHandler;
const { dispatch } = handler;
handler.dispatch = function (take) {
  if (this.redis.options.scripts !== SCRIPTS) return dispatch.call(this, take);
  try {
    take();
  } catch (cause) {
    const error = new Error("it does not follow the protocol", { cause });
    this.redis.recoverFromFatalError(error, error, { offlineQueue: false });
  }
};

/** Connects in the background; a connection that is lost is made again. */
export function connect(target: RedisUrl, deadline: number): Client {
  const { hosts, path, username, password, database, master } = target;
  const backOff = (attempt: number) => Math.min(25 * 2 ** attempt, MAX_BACK_OFF);
  const tls = target.tls ? { tls: {} } : {};
  const sentinelLogin = {
    ...target.sentinelUsername === undefined ? {} : { sentinelUsername: target.sentinelUsername },
    ...target.sentinelPassword === undefined ? {} : { sentinelPassword: target.sentinelPassword },
  };
  const options = {
    ...tls,
    username,
    password,
    db: database,
    scripts: SCRIPTS,
    connectTimeout: deadline,
    // A server that is silent for this long while calls wait may be gone: reconnect.
    socketTimeout: deadline,
    disconnectTimeout: CLOSE_TIMEOUT,
    disableClientInfo: true,
    retryStrategy: backOff,
    maxLoadingRetryTime: MAX_BACK_OFF,
    // Nothing is sent twice, and nothing is kept for later: that is the caller's decision.
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // A master that became a replica: ask the Sentinels again.
    reconnectOnError: (error: Error) => error.message.startsWith("READONLY"),
  };
  // ioredis adds the scripts as methods at run time.
  if (target.kind === "cluster") {
    const cluster = new Cluster(hosts, {
      redisOptions: options,
      scripts: SCRIPTS,
      clusterRetryStrategy: backOff,
      slotsRefreshTimeout: deadline,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      // A certificate is for a name, not for the address that ioredis would look up.
      ...(target.tls ? { dnsLookup: (host, done) => done(null, host) } : {}),
    }) as Cluster & Scripts;
    return cluster.on("+node", handleAsking);
  }
  if (master !== undefined) {
    return new Redis({
      ...options,
      sentinels: hosts,
      name: master,
      ...sentinelLogin,
      sentinelCommandTimeout: deadline,
      sentinelRetryStrategy: backOff,
      enableTLSForSentinelMode: target.tls,
      ...(target.tls ? { sentinelTLS: {} } : {}),
    }) as Redis & Scripts;
  }
  return new Redis({ ...options, ...(path === undefined ? hosts[0] : { path }) }) as
    & Redis
    & Scripts;
}

/**
 * ioredis sends an ASKING before a command that it redirects, and handles the errors of that command
 * only: an ASKING to a server that is gone, while a slot moves, would end the process.
 */
function handleAsking(node: Redis): void {
  node.asking = async () => await Redis.prototype.asking.call(node).catch(() => "OK"); // the command fails too
}

/**
 * Returns a function to call before each command: those of one turn of the event loop are then sent
 * as one packet, which halves the CPU time of a command. ioredis's own pipelining costs more, and in
 * a Cluster it would send a write again. There each command is a packet of its own.
 */
export function gatherCommands(redis: Redis | Cluster): () => void {
  if (redis instanceof Cluster) return () => {};
  let corked: Corkable | null = null;
  return () => {
    if (corked !== null) return;
    const stream = corked = (redis as unknown as { stream: Corkable }).stream;
    stream.cork();
    setImmediate(() => {
      corked = null;
      stream.uncork();
    });
  };
}

/** The socket of a connection, which ioredis's types leave out (`node:stream`'s `Writable`). */
interface Corkable {
  cork(): void;
  uncork(): void;
}

/** Whether the server at the other end of a new connection is loading its data; a Cluster asks itself. */
export async function isLoading(redis: Redis | Cluster): Promise<boolean> {
  return !(redis instanceof Cluster) && /^loading:1/m.test(await redis.info("persistence"));
}

/** Closes all connections. */
export async function disconnect(redis: Redis | Cluster): Promise<void> {
  const connections = redis instanceof Cluster ? [redis, ...redis.nodes()] : [redis];
  const open = connections.filter(({ status }) => status !== "end");
  const ended = open.map((it) => new Promise((resolve) => it.once("end", resolve)));
  if (open.length > 0) redis.disconnect();
  // ioredis emits no "end" if it was between two attempts to connect.
  const timeUp = Promise.withResolvers<void>();
  const timer = setTimeout(timeUp.resolve, 2 * CLOSE_TIMEOUT);
  await Promise.race([Promise.all(ended), timeUp.promise]);
  clearTimeout(timer);
}

/**
 * Returns the hash slot of a key in a Cluster: CRC16 (XMODEM) of its first {tag}, or of all of it.
 * The package `cluster-key-slot`, which ioredis uses, finds a tag in `{}a}`, where Redis finds none.
 */
export function slotOf(key: string): number {
  let crc = 0;
  for (const byte of new TextEncoder().encode(/^[^{]*\{([^}]+)\}/.exec(key)?.[1] ?? key)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0);
  }
  return crc & 0x3fff;
}
