/**
 * The master that Sentinels name. All are asked, and the answer with the highest epoch counts, which
 * is Sentinel's own rule: one that is cut off together with an old master goes on naming that.
 *
 * A connection ends as soon as another master is named, even if it still works: what the old master
 * acknowledges from then on is lost.
 *
 * @module
 */
import { AbstractConnector, Redis, type RedisOptions } from "ioredis";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { unref } from "../timers.ts";
import { within } from "./deadlines.ts";
import { isRefusal } from "./format.ts";
import type { RedisUrl } from "./url.ts";

/** How long a Sentinel may take to answer, in milliseconds. */
const ANSWER_TIMEOUT = 1000;

/** The Sentinels that a URL names, for all connections of one store. */
export class Sentinels {
  readonly #master: string;
  readonly #isTls: boolean;
  /** A connection to each. */
  readonly clients: Redis[];
  readonly #lastErrors = new WeakMap<Redis, Error>();
  /** The connections to masters, with their addresses. */
  readonly #connections = new Map<Socket, string>();
  readonly #timer: ReturnType<typeof setInterval>;
  /** The highest epoch that was seen. */
  #epoch = 0;

  /**
   * @param options Of the connection to each Sentinel
   * @param interval How often they are asked whether the master is still the same, in milliseconds
   */
  constructor(target: RedisUrl, options: Omit<RedisOptions, "replyMapping">, interval: number) {
    this.#master = target.master ?? "";
    this.#isTls = target.tls;
    this.clients = target.hosts.map((host) => new Redis({ ...options, ...host }));
    for (const client of this.clients) {
      client.on("error", (error: Error) => this.#lastErrors.set(client, error));
      // Without the right to subscribe, another master is noticed at the next interval.
      client.on("ready", () => client.subscribe("+switch-master").catch(() => {}));
      client.on("message", () => this.#leaveOthers());
    }
    this.#timer = setInterval(() => this.#leaveOthers(), interval);
    unref(this.#timer);
  }

  /**
   * Connects to the master.
   *
   * @throws {Error} If it is not known, with what the Sentinels answer
   */
  async connect(): Promise<Socket> {
    const { host, port } = await this.#find();
    const socket = this.#isTls ? connectTls({ host, port }) : connect({ host, port });
    this.#connections.set(socket, `${host}:${port}`);
    socket.once("close", () => this.#connections.delete(socket));
    return socket;
  }

  async #find(): Promise<{ host: string; port: number }> {
    const answers = await Promise.allSettled(this.clients.map((client) => this.#ask(client)));
    const known = answers.flatMap((it) => it.status === "fulfilled" ? [it.value] : []);
    const [newest] = known.sort((a, b) => b.epoch - a.epoch);
    const problems = answers.flatMap((it) => it.status === "rejected" ? [it.reason.message] : []);
    if (newest === undefined) {
      const reasons = [...new Set(problems)].join("; ");
      throw new Error(`the Sentinels name no master "${this.#master}": ${reasons}`);
    }
    // Unless all answer: they may have been set up again.
    if (newest.epoch < this.#epoch && problems.length > 0) {
      throw new Error(`only Sentinels that name an old master answer: ${problems[0]}`);
    }
    this.#epoch = newest.epoch;
    return newest;
  }

  async #ask(client: Redis): Promise<{ host: string; port: number; epoch: number }> {
    try {
      // At the end of a failover both have the new epoch, but only the first the new address.
      const answers = Promise.all([
        client.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", this.#master),
        client.call("SENTINEL", "MASTER", this.#master),
      ]);
      const [address, facts] = await within(ANSWER_TIMEOUT, answers) as [string[], string[]];
      const [host = "", port] = address;
      return { host, port: Number(port), epoch: Number(facts[facts.indexOf("config-epoch") + 1]) };
    } catch (error) {
      throw isRefusal(error) ? error : this.#lastErrors.get(client) ?? error;
    }
  }

  /** Ends the connections to masters that are no longer named. */
  async #leaveOthers(): Promise<void> {
    if (this.#connections.size === 0) return;
    try {
      const { host, port } = await this.#find();
      for (const [socket, address] of this.#connections) {
        if (address === `${host}:${port}`) continue;
        socket.destroy(new Error(`the Sentinels name another master: ${host}:${port}`));
      }
    } catch {
      // No other master is known.
    }
  }

  /** Stops asking. */
  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Returns the `Connector` by which ioredis connects to the master. */
export function masterConnector(
  sentinels: Sentinels,
  options: { disconnectTimeout: number; backOff(attempt: number): number },
): NonNullable<RedisOptions["Connector"]> {
  return class extends AbstractConnector {
    #ended = new AbortController();

    constructor() {
      super(options.disconnectTimeout);
    }

    override async connect(emit: (event: string, error: Error) => void): Promise<Socket> {
      const { signal } = this.#ended = new AbortController();
      for (let attempt = 1;; attempt++) {
        try {
          const socket = await sentinels.connect();
          if (signal.aborted) socket.destroy();
          return this.stream = socket;
        } catch (error) {
          emit("error", error as Error);
        }
        await delay(options.backOff(attempt), undefined, { signal });
      }
    }

    override disconnect(): void {
      this.#ended.abort();
      super.disconnect();
    }
  };
}
