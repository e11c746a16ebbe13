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
 */
import { Cluster } from "ioredis";
import { randomUUID } from "node:crypto";
import type { Changes } from "../changes.ts";
import { checked, isKey } from "../checks.ts";
import {
  DEADLINE,
  type Entry,
  type JsonText,
  MAX_KEY_BYTES,
  RevisionConflict,
  type Store,
  StoreUnavailable,
} from "../store.ts";
import { subscribe, type Subscription } from "./changes.ts";
import { keysOnMasters, slotOf } from "./cluster.ts";
import { Connection } from "./connection.ts";
import { conditionOf, decode, MAX_ENTRY_BYTES, timeOf } from "./format.ts";
import { listPage } from "./list.ts";
import { PROBE, PUT, REMOVE, runScript, type Send } from "./scripts.ts";
import { parseRedisUrl } from "./url.ts";

/** What {@linkcode redisStore} takes. */
export interface RedisOptions {
  /** How long a call may take, including connecting, in milliseconds: by default {@linkcode DEADLINE}. */
  deadline?: number;
}

/**
 * Opens the store in the Redis that `url` names. It returns at once and connects in the background.
 * Calls wait for the first attempt to connect, and for the first after a loss; when that has failed,
 * they fail at once. It reconnects within a second of the server's return.
 *
 * A write whose outcome is `unknown` may still be done, even after a later write to the same key.
 *
 * In a Cluster `setAll` is all or nothing for the keys of each hash slot (a `{tag}` in the keys or
 * the prefix puts them in one). If only some slots could be written, its outcome is `unknown`.
 *
 * `watch` reports what any process writes. It may also report a key whose write the server refused,
 * as when it is full: its entry has not changed. Every write publishes its key, so a Redis user who
 * writes needs access to the channel `<prefix>changes@<database>` (`&channel` in its ACL).
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
  /** What ends with it is too long for the key of an entry. */
  const noKey = "\0".repeat(MAX_KEY_BYTES + 1);
  const connection = new Connection(target, deadline);
  /** The last write under way to each key: a later one could overtake its redirection or its EVAL. */
  const lastWrites = new Map<string, Promise<unknown>>();
  let subscription: Promise<Subscription> | undefined;
  let isClosing = false;

  /** Runs a write after those to the same keys that are under way. */
  async function write<T>(keys: readonly string[], run: (send: Send) => Promise<T>): Promise<T> {
    const before = keys.flatMap((key) => lastWrites.get(key) ?? []);
    const isFirst = before.length === 0;
    const done = connection.call(run, "unknown", isFirst ? undefined : Promise.allSettled(before));
    for (const key of keys) lastWrites.set(key, done);
    try {
      return await done;
    } finally {
      for (const key of keys) if (lastWrites.get(key) === done) lastWrites.delete(key);
    }
  }

  async function put(
    entries: readonly (readonly [key: string, value: JsonText])[],
    ttl: number | undefined,
    condition = "",
  ) {
    const keys = entries.map(([key]) => prefix + key);
    const revisions = entries.map(() => randomUUID());
    const values = entries.flatMap(([, value], i) => [revisions[i] as string, value]);
    const milliseconds = ttl === undefined ? "" : `${ttl * 1000}`;
    const args = [condition, channel, milliseconds, ...values];
    const reply = await write(keys, (send) => runScript(send, PUT, keys, args));
    return { reply, revision: revisions[0] as string };
  }

  async function get(key: string): Promise<Entry | null> {
    const name = prefix + key;
    const packed = await connection.call(async (send) => {
      const text = await send("getrange", [name, 0, MAX_ENTRY_BYTES]);
      // GETRANGE does not tell a missing key from an empty text.
      return text === "" ? await send("get", [name]) : text;
    }, "unchanged");
    return decode(key, packed);
  }

  /** Returns the changes received since the first watch; after `until` (`performance.now()`), fails. */
  async function receivedChanges(until: number): Promise<Changes> {
    const current = subscription;
    const isOver = current !== undefined && !await current.then((it) => it.test(), () => false);
    if (isOver && subscription === current) subscription = undefined;
    subscription ??= subscribe(connection.redis, {
      channel,
      prefix,
      interval: deadline / 2,
      until,
      failed: (cause) => connection.failure(cause, "unchanged"),
    });
    const begun = await subscription;
    if (isClosing) await begun.close(); // close() has not found it
    return begun.changes;
  }

  return checked({
    get,

    async set(key, value, { ttl, ifRevision }) {
      const { reply, revision } = await put([[key, value]], ttl, conditionOf(ifRevision));
      if (!Array.isArray(reply)) throw new RevisionConflict(key, decode(key, reply));
      const [created, expires] = reply;
      return { key, value, revision, expires: timeOf(expires), created: created === 1 };
    },

    async setAll(values, { ttl }) {
      const isCluster = target.kind === "cluster";
      const slots = Map.groupBy(values, ([key]) => isCluster ? slotOf(prefix + key) : 0);
      const puts = Array.from(slots.values(), (entries) => put(entries, ttl));
      const writes = await Promise.allSettled(puts);
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
      const keys = [prefix + key];
      const args = [conditionOf(ifRevision), channel];
      const reply = await write(keys, (send) => runScript(send, REMOVE, keys, args));
      if (!Array.isArray(reply)) throw new RevisionConflict(key, decode(key, reply));
      return decode(key, reply[0], "unknown"); // it is removed, even if it cannot be read
    },

    async list(keyPrefix, { after, limit }) {
      const start = prefix + keyPrefix;
      // The client of a service waits half of its deadline for a page.
      const run = () => listPage(connection.redis, start, after, limit, deadline / 4);
      const { keys, next } = await connection.call(run, "unchanged");
      // The entry under the prefix itself has no key here.
      return { keys: keys.map((key) => key.slice(prefix.length)).filter(isKey), next };
    },

    async watch(keyPrefix, { since }) {
      const until = performance.now() + deadline;
      const changes = await connection.call(() => receivedChanges(until), "unchanged");
      return changes.watch(keyPrefix, since, get);
    },

    async check() {
      await connection.call(async (send) => {
        const { redis } = connection;
        const keys = redis instanceof Cluster
          ? keysOnMasters(redis, prefix, noKey)
          : [prefix + noKey];
        const args = ["", channel, target.kind];
        await Promise.all(keys.map((key) => runScript(send, PROBE, [key], args)));
      }, "unchanged");
    },

    async close() {
      isClosing = true;
      const endWatches = async () => await (await subscription?.catch(() => undefined))?.close();
      await endWatches(); // first, since they read entries
      await connection.close();
      await endWatches(); // a watch that has taken too long may have begun one
    },
  });
}
