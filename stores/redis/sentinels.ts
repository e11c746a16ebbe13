/**
 * The master that Sentinels name. All are asked, and the answer with the highest epoch counts, which
 * is Sentinel's own rule: one that is cut off together with an old master goes on naming that.
 *
 * A connection ends as soon as another master is named, even if it still works: what the old master
 * acknowledges from then on is lost.
 */
import { AbstractConnector, Redis, type RedisOptions } from "ioredis";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { unref, within } from "../timers.ts";
import { hasNoConnection, isRefusal } from "./format.ts";
import type { RedisUrl } from "./url.ts";

/** How long a Sentinel may take to answer, in milliseconds. */
const ANSWER_TIMEOUT = 1000;

export interface SentinelsOptions {
  /** Of the connection to each Sentinel. */
  connection: Omit<RedisOptions, "replyMapping" | "disconnectTimeout"> & {
    disconnectTimeout: number;
  };
  /** How often they are asked whether the master is still the same, in milliseconds. */
  interval: number;
  /** Returns how long to wait after a failed attempt, in milliseconds. */
  backOff(attempt: number): number;
}

/**
 * Connects to the Sentinels that a URL names. Returns the `Connector` by which ioredis connects to the
 * master, the connections to the Sentinels, and a function that stops asking them.
 */
export function sentinels(
  { master = "", tls, hosts }: RedisUrl,
  { connection, interval, backOff }: SentinelsOptions,
) {
  const clients = hosts.map((host) => new Redis({ ...connection, ...host }));
  const lastErrors = new WeakMap<Redis, Error>();
  /** The connections to masters, with their addresses. */
  const connections = new Map<Socket, string>();
  let highestEpoch = 0;
  for (const client of clients) {
    client.on("error", (error: Error) => lastErrors.set(client, error));
    // Without the right to subscribe, another master is noticed at the next interval.
    client.on("ready", () => client.subscribe("+switch-master").catch(() => {}));
    client.on("message", leaveOthers);
  }
  const timer = unref(setInterval(leaveOthers, interval));

  /** @throws {Error} If the master is not known, with what the Sentinels answer */
  async function find(): Promise<{ host: string; port: number }> {
    const answers = await Promise.allSettled(clients.map(ask));
    const known = answers.flatMap((it) => it.status === "fulfilled" ? [it.value] : []);
    const [newest] = known.sort((a, b) => b.epoch - a.epoch);
    const problems = answers.flatMap((it) => it.status === "rejected" ? [it.reason.message] : []);
    if (newest === undefined) {
      const reasons = [...new Set(problems)].join("; ");
      throw new Error(`the Sentinels name no master "${master}": ${reasons}`);
    }
    // Unless all answer: they may have been set up again.
    if (newest.epoch < highestEpoch && problems.length > 0) {
      throw new Error(`only Sentinels that name an old master answer: ${problems[0]}`);
    }
    highestEpoch = newest.epoch;
    return newest;
  }

  async function ask(client: Redis): Promise<{ host: string; port: number; epoch: number }> {
    try {
      // At the end of a failover both have the new epoch, but only the first the new address.
      const answers = Promise.all([
        client.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master),
        client.call("SENTINEL", "MASTER", master),
      ]);
      const [address, facts] = await within(ANSWER_TIMEOUT, answers) as [string[], string[]];
      const [host = "", port] = address;
      return { host, port: Number(port), epoch: Number(facts[facts.indexOf("config-epoch") + 1]) };
    } catch (error) {
      const reason = isRefusal(error) ? error : lastErrors.get(client) ?? error;
      if (hasNoConnection(reason)) throw new Error("they close the connection", { cause: reason });
      if (!isRefusal(reason, "NOAUTH")) throw reason;
      const problem = "they require a password: expected ?sentinelPassword= in the URL";
      throw new Error(problem, { cause: reason });
    }
  }

  /** Ends the connections to masters that are no longer named. */
  async function leaveOthers(): Promise<void> {
    if (connections.size === 0) return;
    try {
      const { host, port } = await find();
      for (const [socket, address] of connections) {
        if (address === `${host}:${port}`) continue;
        socket.destroy(new Error(`the Sentinels name another master: ${host}:${port}`));
      }
    } catch {
      // No other master is known.
    }
  }

  class Connector extends AbstractConnector {
    #ended = new AbortController();

    constructor() {
      super(connection.disconnectTimeout);
    }

    override async connect(emit: (event: string, error: Error) => void): Promise<Socket> {
      const { signal } = this.#ended = new AbortController();
      for (let attempt = 1;; attempt++) {
        try {
          const { host, port } = await find();
          const socket = tls ? connectTls({ host, port }) : connect({ host, port });
          connections.set(socket, `${host}:${port}`);
          socket.once("close", () => connections.delete(socket));
          if (signal.aborted) socket.destroy();
          return this.stream = socket;
        } catch (error) {
          emit("error", error as Error);
          // An aborted wait would hide the reason.
          await delay(backOff(attempt), undefined, { signal }).catch(() => {
            throw error;
          });
        }
      }
    }

    override disconnect(): void {
      this.#ended.abort();
      super.disconnect();
    }
  }

  return { Connector, clients, stop: () => clearInterval(timer) };
}
