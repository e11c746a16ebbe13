/**
 * A store in Redis 6.2 or later, or in Valkey: one server, the master that Sentinels name, or a
 * Cluster (`url.ts` has the forms of the URL). A promise resolves when the master has acknowledged
 * the write; docs/SCALING.md says what a crash or a failover may still lose.
 *
 * An entry is one Redis string under the prefix and the key, `<revision> <expires or -> <value>`,
 * so that a read is one GET. A write is one Lua script, which checks and writes in one step. The
 * server's clock decides, and Redis itself removes an entry when it expires.
 *
 * Without a prefix no other program may use the database.
 *
 * @module
 */
import { randomUUID } from "node:crypto";
import { ReplyError } from "ioredis";
import type { Changes } from "../changes.ts";
import { subscribe, type Subscription } from "./changes.ts";
import { connect, disconnect, gatherCommands, isLoading, slotOf } from "./client.ts";
import { Deadlines } from "./deadlines.ts";
import {
  checkReply,
  conditionOf,
  decode,
  isPutReply,
  isRemoveReply,
  milliseconds,
  timeOf,
} from "./format.ts";
import { listPage } from "./list.ts";
import { parseRedisUrl } from "./url.ts";
import { checked, isKey } from "../checks.ts";
import {
  DEADLINE,
  type Entry,
  InvalidArgument,
  type JsonText,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../store.ts";

/** How much of the server's error a message contains, in characters: each failed call is logged. */
const MAX_REASON = 1000;

/** What {@linkcode redisStore} takes. */
export interface RedisOptions {
  /** How long a call may take, including connecting, in milliseconds: by default {@linkcode DEADLINE}. */
  deadline?: number;
}

/**
 * Opens the store in the Redis that `url` names. It returns at once and connects in the background:
 * the first calls wait for that, and later ones fail at once while there is no connection. It
 * reconnects by itself, within a second of the server's return.
 *
 * A write whose outcome is `unknown` may still be done, even after a later write to the same key.
 *
 * In a Cluster `setAll` is all or nothing for the keys of each hash slot (a `{tag}` in the keys or
 * the prefix puts them in one). If only some slots could be written, its outcome is `unknown`.
 *
 * `watch` reports what any process writes. Every write publishes its key, so a Redis user who writes
 * needs access to the channel `<prefix>changes@<database>` (`&channel` in its ACL).
 *
 * @throws {TypeError} If `url` is not a Redis URL
 *
 * @example
 * ```ts ignore
 * import { redisStore } from "./store.ts";
 * import { json } from "../json/text.ts";
 *
 * const store = redisStore("redis://localhost:6379/0?prefix=counter:");
 * await store.set("a", json(1), { ttl: 60 });
 * await store.close();
 * ```
 */
export function redisStore(url: string, { deadline = DEADLINE }: RedisOptions = {}): Store {
  const target = parseRedisUrl(url);
  const { prefix } = target;
  // Channels are shared by all databases. The number is last, since a prefix may be any text.
  const channel = `${prefix}changes@${target.database}`;
  const redis = connect(target, deadline);
  const address = target.path ??
    target.hosts.map(({ host, port }) => `${host}:${port}`).join(",");
  const deadlines = new Deadlines(deadline);
  const beforeCommand = gatherCommands(redis);
  /**
   * The last write under way to each key, for which the next one waits: it could overtake one that a
   * Cluster redirects, or whose script the server has forgotten.
   */
  const lastWrites = new Map<string, Promise<unknown>>();
  let subscription: Subscription | undefined;
  let lastError: unknown = new Error("not connected yet");
  function noteError(error: Error & { command?: { name: string } }): void {
    // ioredis would go on in database 0.
    if (error.command?.name === "select") redis.disconnect(true);
    // Commands that it could no longer send only follow from the reason.
    if (!error.message.startsWith("Stream isn't writeable")) lastError = error;
  }
  redis.on("error", noteError);
  const { promise: firstAttempt, resolve: firstAttemptEnded } = Promise.withResolvers<void>();
  for (const event of ["ready", "close", "end"]) redis.once(event, firstAttemptEnded);
  // While a server loads its data, ioredis is connected but not ready, and emits no event.
  redis.on("connect", () => {
    isLoading(redis).then((isLoading) => {
      if (!isLoading || redis.status === "ready") return;
      lastError = new Error("it is loading its data");
      firstAttemptEnded();
    }, noteError);
  });

  /** Runs a call to its end, or to the deadline. `outcome` is that of a call that was sent and failed. */
  function call<T>(
    run: () => Promise<T>,
    outcome: StoreUnavailable["outcome"],
    before?: Promise<unknown>,
  ): Promise<T> {
    let sent = false;
    const failed = (cause: unknown) => failure(address, cause, sent ? outcome : "unchanged");
    const late = () => failed(new Error(`no answer within ${deadline} ms`));
    return deadlines.run(async (isLate) => {
      try {
        if (redis.status !== "ready") await firstAttempt;
        if (before) await before;
        if (redis.status !== "ready") throw lastError;
        // The caller has been told that nothing is changed.
        if (isLate()) throw new Error("too late");
        sent = true;
        beforeCommand();
        return await run();
      } catch (cause) {
        throw failed(cause);
      }
    }, late);
  }

  /** Runs a write after those to the same keys that are under way. */
  async function write<T>(keys: readonly string[], run: () => Promise<T>): Promise<T> {
    const before = keys.flatMap((key) => lastWrites.get(key) ?? []);
    const done = call(run, "unknown", before.length > 0 ? Promise.allSettled(before) : undefined);
    for (const key of keys) lastWrites.set(key, done);
    try {
      return await done;
    } finally {
      for (const key of keys) if (lastWrites.get(key) === done) lastWrites.delete(key);
    }
  }

  async function put(
    entries: readonly (readonly [key: string, value: JsonText])[],
    condition: string,
    ttl: string,
  ) {
    const keys = entries.map(([key]) => prefix + key);
    const revisions = entries.map(() => randomUUID());
    const values = entries.flatMap(([, value], i) => [revisions[i] as string, value]);
    const args = [condition, channel, ttl, ...values];
    const run = async () =>
      checkReply(await redis.put(keys.length, keys, args), condition, isPutReply);
    const reply = await write(keys, run);
    return { reply, revision: revisions[0] as string };
  }

  async function get(key: string): Promise<Entry | null> {
    return decode(key, await call(() => redis.get(prefix + key), "unchanged"));
  }

  /** Returns the changes that are received since the first watch. */
  async function receivedChanges(): Promise<Changes> {
    if (subscription === undefined || subscription.isOver) {
      const failed = (cause: Error) => failure(address, cause, "unchanged");
      subscription = subscribe(redis, channel, prefix, failed);
    }
    const { ready, changes } = subscription;
    await ready;
    return changes;
  }

  return checked({
    get,

    async set(key, value, { ttl, ifRevision }) {
      const { reply, revision } = await put(
        [[key, value]],
        conditionOf(ifRevision),
        milliseconds(ttl),
      );
      if (!Array.isArray(reply)) throw new RevisionConflict(key, decode(key, reply));
      const [created, expires] = reply;
      return { key, value, revision, expires: timeOf(expires), created: created === 1 };
    },

    async setAll(values, { ttl }) {
      const life = milliseconds(ttl);
      const slots = Map.groupBy(
        values,
        ([key]) => target.kind === "cluster" ? slotOf(prefix + key) : 0,
      );
      const writes = await Promise.allSettled(
        [...slots.values()].map((entries) => put(entries, "", life)),
      );
      const errors = writes.flatMap((write) => write.status === "rejected" ? [write.reason] : []);
      if (errors.length === 0) return;
      const unchanged = errors.every((error) => error.outcome !== "unknown");
      if (writes.length === 1 || (errors.length === writes.length && unchanged)) throw errors[0];
      throw new StoreUnavailable(`Some keys may be written, some not: ${errors[0].message}`, {
        cause: errors[0],
        outcome: "unknown",
      });
    },

    async delete(key, { ifRevision }) {
      const name = prefix + key;
      const condition = conditionOf(ifRevision);
      const remove = async () =>
        checkReply(await redis.remove(name, condition, channel), condition, isRemoveReply);
      const reply = await write([name], remove);
      if (!Array.isArray(reply)) throw new RevisionConflict(key, decode(key, reply));
      // It is removed, whoever wrote it.
      return decode(key, reply[0], "unknown");
    },

    async list(keyPrefix, { after, limit }) {
      const start = prefix + keyPrefix;
      const run = () => listPage(redis, start, after, limit, deadline / 2);
      const { keys, next } = await call(run, "unchanged");
      // An entry under the prefix itself has no name here.
      return { keys: keys.map((key) => key.slice(prefix.length)).filter(isKey), next };
    },

    async watch(keyPrefix, { since }) {
      const changes = await call(receivedChanges, "unchanged");
      return changes.watch(keyPrefix, since, get);
    },

    async close() {
      // An attempt to connect that is cut short leaves its timers behind: an empty call waits for it.
      await call(async () => {}, "unchanged").catch(() => {}); // whether it succeeds does not matter
      await deadlines.close();
      await Promise.all([subscription?.close(), disconnect(redis)]);
    },
  });
}

/** Returns the store's error for a failed call. */
function failure(address: string, cause: unknown, outcome: StoreUnavailable["outcome"]): Error {
  if (cause instanceof InvalidArgument) return cause;
  // A Cluster's error contains that of the last server.
  const { lastNodeError } = cause as { lastNodeError?: unknown };
  const error = (lastNodeError ?? cause) as Error & { command?: unknown };
  // ioredis attaches the command to its error: a password, or the values of a session.
  delete error.command;
  const reason = error.name === "MaxRetriesPerRequestError"
    ? "the connection was lost"
    : error.message.slice(0, MAX_REASON);
  const message = `Cannot use Redis at "${address}": ${reason}`;
  if (!(error instanceof ReplyError)) {
    return new StoreUnavailable(message, { cause: error, outcome });
  }
  // The server refused. A script writes only after everything that can be refused.
  return /\bOOM\b/.test(reason)
    ? new StoreFull(message, { cause: error })
    : new StoreUnavailable(message, { cause: error, outcome: "unchanged" });
}
