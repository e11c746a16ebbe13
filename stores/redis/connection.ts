/**
 * The connection of a Redis store: whether it can be used now, and if not, why; and the outcome of
 * each call.
 */
import { Cluster, Command, type Redis } from "ioredis";
import { InvalidArgument, StoreFull, StoreUnavailable } from "../store.ts";
import { unref } from "../timers.ts";
import { connect, gatherCommands } from "./client.ts";
import { Deadlines } from "./deadlines.ts";
import { FOREIGN, hasNoConnection, isRefusal } from "./format.ts";
import type { Send } from "./scripts.ts";
import type { RedisUrl } from "./url.ts";

/** How much of the server's error a message contains, in characters. */
const MAX_REASON = 1000;
/** The shortest time between two requests for the slots of a Cluster, in milliseconds. */
const MIN_REFRESH = 200;
/** The shortest time between two attempts to leave a replica, in milliseconds: reads wait for each. */
const MIN_LEAVE = 1000;
/** What a server quotes of a command that it does not know: a password, keys, values. */
const QUOTED = /,? with args beginning with:.*$/s;

const NO_PASSWORD = "it requires a password: expected user:password@ in the URL";

/** The connection to one server, to the master that Sentinels name, or to a Cluster. */
export class Connection {
  readonly redis: Redis | Cluster;
  readonly #hosts: string[];
  readonly #client: ReturnType<typeof connect>;
  readonly #deadlines: Deadlines;
  readonly #beforeCommand: () => void;
  readonly #timer: ReturnType<typeof setInterval>;
  /** The attempt to connect that calls wait for: the first one, and the first after a loss. */
  #attempt = Promise.withResolvers<void>();
  #isChecked = false;
  #wasChecked = false;
  /** Whether it is being closed to look for another server: calls wait for the next attempt. */
  #isLeaving = false;
  #lastLeave = -Infinity;
  /** Until another reason is known, what an end of the first attempt means. */
  #lastError = new Error("it closes the connection");
  #lastRefresh = 0;

  /** @param deadline Of each call, in milliseconds */
  constructor(readonly target: RedisUrl, readonly deadline: number) {
    this.#hosts = target.hosts.map(({ host, port }) => `${host}:${port}`);
    this.#deadlines = new Deadlines(deadline);
    this.#client = connect(target, deadline);
    const { redis } = this.#client;
    this.redis = redis;
    this.#beforeCommand = gatherCommands(redis);
    this.#timer = unref(setInterval(() => this.#lookAround(), deadline / 10));
    redis.on("error", (error) => this.#note(error));
    redis.on("ready", () => this.#check());
    for (const event of ["close", "end"]) redis.on(event, () => this.#ended());
    redis.on("node error", (error: Error, address: string) => this.#noteServer(error, address));
    redis.on("+node", (server: Redis) => server.once("ready", () => this.#forgetError()));
  }

  /** Keeps the reason for which calls fail until there is a connection. */
  #note(error: Error & { command?: { name: string }; lastNodeError?: Error }): void {
    // ioredis would go on with database 0.
    if (error.command?.name === "select") this.redis.disconnect(true);
    const reason = error.lastNodeError ?? error;
    if (!hasNoConnection(reason)) this.#lastError = reason;
    this.#attempt.resolve();
  }

  #noteServer(error: Error, address: string): void {
    let { message } = error;
    if (message.startsWith("connect ") && !this.#hosts.includes(address)) {
      message = `the Cluster announces ${address}, which cannot be reached: ${message}`;
    } else if (!message.includes(address)) message += ` (${address})`;
    this.#note(hasNoConnection(error) ? error : new Error(message, { cause: error }));
  }

  #forgetError(): void {
    this.#lastError = new Error("the connection was lost");
  }

  /** Checks what answers: one server of a Cluster has only some keys, and a replica may be behind. */
  async #check(): Promise<void> {
    try {
      const { mode, role } = this.redis instanceof Cluster ? {} : await facts(this.redis);
      const { kind } = this.target;
      if (kind === "alone" && mode === "cluster") {
        throw new Error("it is one server of a Cluster: expected redis+cluster: in the URL");
      }
      if (kind === "alone" && mode === "sentinel") {
        throw new Error("it is a Sentinel: expected redis+sentinel://host:port/name in the URL");
      }
      if (kind === "sentinel" && role === "replica") {
        this.redis.disconnect(true);
        throw new Error("the Sentinels name a server that is not a master");
      }
      this.#isChecked = this.#wasChecked = true;
      this.#forgetError();
      this.#attempt.resolve();
    } catch (error) {
      this.#note(error as Error);
    }
  }

  #ended(): void {
    // Wait for the next attempt: a server or a proxy may only have closed an idle connection.
    if (this.#isChecked) this.#attempt = Promise.withResolvers();
    else if (!this.#isLeaving) this.#attempt.resolve();
    this.#isChecked = this.#isLeaving = false;
  }

  get #isReady(): boolean {
    return this.#isChecked && this.redis.status === "ready";
  }

  /**
   * Runs a call to its end, or to the deadline.
   *
   * @param run Gets a function that sends a command
   * @param outcome Of a call whose command was sent and not answered
   * @param before What to wait for first
   */
  call<T>(
    run: (send: Send) => Promise<T>,
    outcome: StoreUnavailable["outcome"],
    before?: Promise<unknown>,
  ): Promise<T> {
    // ioredis may keep a command until a server of a Cluster is connected, or redirect it.
    let state: "waiting" | "kept" | "written" = "waiting";
    const send: Send = (name, args) => {
      const command = new Command(name, args, { replyEncoding: "utf8" });
      const { toWritable, reject } = command;
      command.toWritable = (socket) => {
        state = "written";
        return toWritable.call(command, socket);
      };
      command.reject = (error) => {
        if (isRefusal(error)) state = "kept"; // it was not executed
        reject.call(command, error);
      };
      state = "kept";
      this.#beforeCommand();
      return this.redis.sendCommand(command) as Promise<unknown>;
    };
    return this.#deadlines.run(async (isLate) => {
      try {
        if (!this.#isReady) await this.#attempt.promise;
        if (before) await before;
        if (!this.#isReady) throw this.#lastError;
        // The caller already got an error that says that nothing is changed.
        if (isLate()) throw new Error("too late");
        return await run(send);
      } catch (error) {
        this.#react(error as Error);
        throw this.failure(error, state === "written" ? outcome : "unchanged");
      }
    }, () => {
      const error = new Error(`no answer within ${this.deadline} ms`);
      return this.failure(error, state === "waiting" ? "unchanged" : outcome);
    });
  }

  /** Looks for another server if this one answers that it cannot do this. */
  #react(error: Error): void {
    if (isRefusal(error, "CLUSTERDOWN")) this.#refresh();
    if (isRefusal(error) && /\bREADONLY\b/.test(error.message)) this.#leave(error);
  }

  /** Connects again, once for all calls: the name, or the Sentinels, may lead to another server by now. */
  #leave(reason: Error): void {
    if (!this.#isReady || performance.now() - this.#lastLeave < MIN_LEAVE) return;
    this.#lastLeave = performance.now();
    this.#lastError = reason;
    this.#ended();
    this.#isLeaving = true;
    this.redis.disconnect(true);
  }

  /** Looks for another server if one does not answer, and regularly. */
  #lookAround(): void {
    const isLate = this.#deadlines.waits(this.deadline / 10);
    if (isLate || performance.now() - this.#lastRefresh > this.deadline / 2) this.#refresh();
  }

  /** Asks which servers of a Cluster have which slots: ioredis learns that from redirections only. */
  #refresh(): void {
    const { redis } = this;
    if (!(redis instanceof Cluster) || !this.#isReady) return;
    if (performance.now() - this.#lastRefresh < MIN_REFRESH) return;
    this.#lastRefresh = performance.now();
    redis.refreshSlotsCache();
  }

  /** Returns the store's error for a failed call. */
  failure(cause: unknown, outcome: StoreUnavailable["outcome"]): Error {
    if (cause instanceof InvalidArgument) return cause;
    // A Cluster's error contains that of the last server.
    const failed = ((cause as { lastNodeError?: unknown }).lastNodeError ?? cause) as Error;
    let error: Error & { command?: unknown } = hasNoConnection(failed) ? this.#lastError : failed;
    if (QUOTED.test(error.message)) error = new Error(error.message.replace(QUOTED, ""));
    // ioredis attaches the command to its error: a password, or the values of a session.
    delete error.command;
    if (isRefusal(failed, "WRONGTYPE")) {
      return new StoreUnavailable(FOREIGN, { cause: error, outcome: "unchanged" });
    }
    const reason = error.message.slice(0, MAX_REASON).replace(/ script: [\da-f]{40}, on @.*$/, "");
    const advice = this.#wasChecked ? "" : adviceOnTls(reason, this.target.tls);
    const address = this.target.path ?? this.#hosts.join(",");
    // The server's own sentence is about its protocol.
    const shown = isRefusal(failed, "NOAUTH") ? NO_PASSWORD : reason + advice;
    const message = `Cannot use Redis at "${address}": ${shown}`;
    if (!isRefusal(failed)) return new StoreUnavailable(message, { cause: error, outcome });
    // The server refused. A script writes only after everything that can be refused.
    return /\bOOM\b/.test(reason)
      ? new StoreFull(message, { cause: error })
      : new StoreUnavailable(message, { cause: error, outcome: "unchanged" });
  }

  /** Waits for the calls that are under way, and closes the connection. */
  async close(): Promise<void> {
    await this.#deadlines.close();
    clearInterval(this.#timer);
    await this.#client.close();
  }
}

/** What to try if a server has never answered: it may use TLS where the URL does not, or the reverse. */
function adviceOnTls(reason: string, tls: boolean): string {
  if (tls) {
    return /ETIMEDOUT|no answer/.test(reason) ? "; if it has no TLS, write redis, not rediss" : "";
  }
  return /ECONNRESET/.test(reason) ? "; if it uses TLS, write rediss, not redis" : "";
}

/**
 * Returns what a server says about itself, by a command that every user may send; nothing if the
 * server, or a proxy, does not know it.
 */
export async function facts(redis: Redis): Promise<{ mode?: unknown; role?: unknown }> {
  try {
    const reply = await redis.hello();
    const valueOf = (name: string) => reply[reply.indexOf(name) + 1];
    return { mode: valueOf("mode"), role: valueOf("role") };
  } catch (error) {
    if (isRefusal(error)) return {};
    throw error;
  }
}
