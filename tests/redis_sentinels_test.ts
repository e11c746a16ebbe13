/** Sentinels that answer what a test says: which of their answers a Redis store believes. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { json } from "../stores/json/text.ts";
import { StoreUnavailable } from "../stores/store.ts";
import { eventually } from "./helpers/programs.ts";
import { open, Proxy, works } from "./helpers/redis_faults.ts";
import { cli, startRedis, test } from "./helpers/redis_servers.ts";

/** A Sentinel without servers of its own: it names any master, with any epoch. */
class FakeSentinel implements AsyncDisposable {
  /** What it was asked since the test set this to 0. */
  questions = 0;
  /** How often it was asked to report another master. */
  subscriptions = 0;
  /** What it answers to SUBSCRIBE, or null: it closes the connection. */
  subscribed: string | null = ">3\r\n+subscribe\r\n+switch-master\r\n:1\r\n";
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((socket) => this.#serve(socket));
  #port = 0;

  private constructor(public names: { port: number; epoch: number }) {}

  static async start(port: number, epoch: number): Promise<FakeSentinel> {
    const sentinel = new FakeSentinel({ port, epoch });
    await sentinel.begin();
    return sentinel;
  }

  get host(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Listens, also again after `stop`, on the same port. */
  async begin(): Promise<void> {
    await once(this.#server.listen(this.#port, "127.0.0.1"), "listening");
    this.#port = (this.#server.address() as { port: number }).port;
  }

  /** Closes its connections, and refuses others. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {}); // "close" follows
    socket.on("close", () => this.#sockets.delete(socket));
    let unread = "";
    socket.on("data", (bytes) => {
      unread += bytes.toString("latin1");
      for (let match; (match = COMMAND.exec(unread)); unread = unread.slice(match[0].length)) {
        const words = match[0].split("\r\n").filter((_, i) => i > 0 && i % 2 === 0);
        const answer = this.#answer(words.join(" ").toUpperCase());
        if (answer === null) socket.destroy();
        else socket.write(answer);
      }
    });
  }

  #answer(command: string): string | null {
    const { port, epoch } = this.names;
    if (command.startsWith("HELLO")) return "%2\r\n+proto\r\n:3\r\n+mode\r\n+sentinel\r\n";
    if (command.startsWith("SUBSCRIBE")) {
      this.subscriptions++;
      return this.subscribed;
    }
    if (command.startsWith("SENTINEL GET-MASTER-ADDR-BY-NAME")) {
      this.questions++;
      return `*2\r\n+127.0.0.1\r\n+${port}\r\n`;
    }
    if (command.startsWith("SENTINEL MASTER")) return `*2\r\n+config-epoch\r\n+${epoch}\r\n`;
    return "+OK\r\n";
  }
}

/** A command of short words: `*<words>\r\n`, and each as `$<length>\r\n<word>\r\n`. */
const COMMAND = /^\*\d+\r\n(?:\$\d+\r\n[^\r\n]*\r\n)+?(?=\*|$)/;

test("redisStore() does not return to an old master with its Sentinel", async () => {
  await using old = await startRedis();
  await using master = await startRedis();
  await using proxy = new Proxy(master.port);
  await using behind = await FakeSentinel.start(old.port, 1);
  await using current = await FakeSentinel.start(proxy.port, 2);
  await using store = open(`redis+sentinel://${behind.host},${current.host}/mymaster`);
  await store.set("a", json(1)); // both answer, and the higher epoch counts
  assertEquals(await cli(old, "DBSIZE"), "0\n");

  // The Sentinel with the new epoch is gone when the connection to its master is lost.
  await current.stop();
  proxy.cutAll();
  await eventually("a reason", async () => {
    const { message } = await assertRejects(() => store.set("b", json(1)), StoreUnavailable);
    return message.includes("only Sentinels that name an old master answer");
  });
  behind.questions = 0;
  await eventually("more attempts", () => Promise.resolve(behind.questions > 2));
  const error = await assertRejects(() => store.set("b", json(1)), StoreUnavailable);
  assertMatch(error.message, /: only Sentinels that name an old master answer: .*ECONNREFUSED/);
  assertEquals(error.outcome, "unchanged");
  assertEquals(await cli(old, "DBSIZE"), "0\n");

  // It is back.
  await current.begin();
  await eventually("the same master", works(store));
  assertEquals((await store.get("a"))?.value, "1");
  assertEquals(await cli(old, "DBSIZE"), "0\n");

  // All answer with a lower epoch: they were set up again.
  behind.names = current.names = { port: old.port, epoch: 0 };
  const isNew = () => store.get("a").then((entry) => entry === null, () => false);
  await eventually("the master of new Sentinels", isNew);
  await eventually("writes to it", works(store));
  assert(await cli(old, "DBSIZE") !== "0\n");
});

test("redisStore() survives a Sentinel that no longer allows a subscription", async () => {
  await using master = await startRedis();
  for (const subscribed of ["-NOPERM no permissions to access a channel\r\n", null]) {
    await using sentinel = await FakeSentinel.start(master.port, 1);
    await using store = open(`redis+sentinel://${sentinel.host}/mymaster`);
    await store.set("a", json(1));
    await sentinel.stop();
    sentinel.subscribed = subscribed;
    sentinel.subscriptions = 0;
    await sentinel.begin();
    // A rejection that nobody handles would end the process, and fails the test.
    await eventually("another subscription", () => Promise.resolve(sentinel.subscriptions > 0));
    assertEquals((await store.get("a"))?.value, "1");
  }
});
