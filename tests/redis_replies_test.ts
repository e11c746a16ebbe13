/** A Redis store whose server answers anything: an error at once, and never a false result. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createServer, type Socket } from "node:net";
import { once } from "node:events";
import { json } from "../stores/json/text.ts";
import { StoreFull, StoreUnavailable } from "../stores/store.ts";
import { freePort } from "./helpers/programs.ts";
import { DEADLINE, open } from "./helpers/redis_faults.ts";

const INFO = "run_id:abc\r\ncluster_state:ok\r\n";
const ENTRY = "12345678-1234-1234-1234-123456789012 - 1";

/** Returns a bulk string. */
const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`;

/** The slots of a Cluster of one server. */
const slotsAt = (port: number | undefined) =>
  `*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${bulk("127.0.0.1")}:${port}\r\n`;

/** A server that connects as Redis does, and then sends one reply to each command. */
class FakeRedis implements AsyncDisposable {
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((socket) => this.#accept(socket)).listen(0, "127.0.0.1");

  constructor(readonly reply: string) {}

  async url(scheme = "redis"): Promise<string> {
    if (!this.#server.listening) await once(this.#server, "listening");
    const { port } = this.#server.address() as { port: number };
    return `${scheme}://127.0.0.1:${port}?prefix=p:`;
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {}); // "close" follows
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("data", (chunk) => {
      // No value here looks like the beginning of a command.
      for (const [, name] of String(chunk).matchAll(/\*\d+\r\n\$\d+\r\n(\w+)/g)) {
        if (name === "hello") socket.write("%1\r\n+proto\r\n:3\r\n");
        else if (/SLOTS/.test(String(chunk))) socket.write(slotsAt(socket.localPort));
        else socket.write(/^(info|cluster)$/.test(name ?? "") ? bulk(INFO) : this.reply);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

/** Replies that are right for no write. */
const UNEXPECTED = {
  "an integer": ":5\r\n",
  "nil": "_\r\n",
  "a text": "+OK\r\n",
  "an entry": bulk(ENTRY),
  "an empty array": "*0\r\n",
  "an array of integers": "*2\r\n:1\r\n:2\r\n",
  "an array of arrays": "*2\r\n*0\r\n*0\r\n",
  "a time that is no time": `*2\r\n:1\r\n${bulk("soon")}`,
  "a proxy's error": "-upstream failure\r\n",
  "a map": "%1\r\n:1\r\n:1\r\n",
};

for (const [name, reply] of Object.entries(UNEXPECTED)) {
  Deno.test(`redisStore() reports a write that is answered with ${name} as unknown`, async () => {
    await using server = new FakeRedis(reply);
    await using store = open(await server.url());
    const writes = [
      () => store.set("a", json(1)),
      () => store.setAll(new Map([["a", json(1)], ["b", json(2)]])),
      ...name === "an empty array" || !reply.startsWith("*") ? [() => store.delete("a")] : [],
    ];
    for (const write of writes) {
      assertEquals((await assertRejects(write, StoreUnavailable)).outcome, "unknown");
    }
  });
}

Deno.test("redisStore() reads only an entry as an entry", async () => {
  const replies = [":5\r\n", `*1\r\n${bulk(ENTRY)}`, "+OK\r\n"];
  replies.push(bulk(ENTRY.replace(" - ", ` ${"9".repeat(20)} `)));
  for (const reply of replies) {
    await using server = new FakeRedis(reply);
    await using store = open(await server.url());
    const error = await assertRejects(() => store.get("a"), StoreUnavailable, "Cannot read", reply);
    assertEquals(error.outcome, "unchanged");
  }
});

Deno.test("redisStore() reports a removed entry that it cannot read as unknown", async () => {
  await using server = new FakeRedis(`*1\r\n${bulk("of another program")}`);
  await using store = open(await server.url());
  const error = await assertRejects(() => store.delete("a"), StoreUnavailable);
  assertEquals(error.outcome, "unknown");
});

Deno.test("redisStore() lists only what a SCAN for the prefix can find", async () => {
  const pages = [":5\r\n", "*1\r\n:1\r\n", `*2\r\n${bulk("x")}*0\r\n`];
  pages.push(`*2\r\n${bulk("0")}*1\r\n:1\r\n`, `*2\r\n${bulk("0")}*1\r\n${bulk("other")}`);
  for (const reply of pages) {
    await using server = new FakeRedis(reply);
    await using store = open(await server.url());
    await assertRejects(() => store.list(""), StoreUnavailable, "unexpected", reply);
  }
});

Deno.test("redisStore() names the error that the server answers with", async () => {
  const errors = ["MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "LOADING", "BUSY", "NOSCRIPT no"];
  for (const error of [...errors, "OOM too much"]) {
    await using server = new FakeRedis(`-${error}\r\n`);
    await using store = open(await server.url());
    for (const call of [() => store.get("a"), () => store.set("a", json(1))]) {
      const type = error.startsWith("OOM") ? StoreFull : StoreUnavailable;
      await assertRejects(call as () => Promise<unknown>, type, error);
    }
  }
});

Deno.test("redisStore() passes on no more than 1,000 characters of an error", async () => {
  await using server = new FakeRedis(`-ERR ${"x".repeat(100_000)}\r\n`);
  await using store = open(await server.url());
  const error = await assertRejects(() => store.get("a"), StoreUnavailable);
  assert(error.message.length < 1100);
});

Deno.test("redisStore() ends each call in time, whatever bytes the server sends", async () => {
  const replies = ["$2000000000\r\nabc", "*99999999999\r\n", "*4294967295\r\n", "garbage\r\n"];
  for (const reply of [...replies, "$100\r\nabc", "*1\r\n".repeat(100_000), "|1\r\n+a\r\n:1\r\n"]) {
    await using server = new FakeRedis(reply);
    await using store = open(await server.url(), DEADLINE / 10);
    for (const call of [() => store.get("a"), () => store.set("a", json(1))]) {
      await assertRejects(call as () => Promise<unknown>, StoreUnavailable);
    }
  }
});

Deno.test("redisStore() survives replies that nothing asked for, and those of another type", async () => {
  const two = [
    "_\r\n_\r\n",
    ":1\r\n_\r\n_\r\n",
    ">1\r\n_\r\n_\r\n",
    ">2\r\n+subscribe\r\n_\r\n:1\r\n",
  ];
  for (
    const reply of [
      ...two,
      "_\r\n",
      ":1\r\n",
      "*0\r\n",
      "*1\r\n_\r\n",
      ">3\r\n+message\r\n_\r\n_\r\n",
    ]
  ) {
    await using server = new FakeRedis(reply);
    await using store = open(await server.url(), DEADLINE / 10);
    // An uncaught exception would fail the test, as it would end a program.
    await assertRejects(() => store.watch(""), StoreUnavailable);
    await assertRejects(() => store.set("a", json(1)), StoreUnavailable);
  }
});

// ioredis leaves a timer of 100 ms for each connection that could not be made.
const leaky = { sanitizeOps: false, sanitizeResources: false };

Deno.test(
  "redisStore() survives a Cluster that redirects to a server that is gone",
  leaky,
  async () => {
    for (const error of ["ASK", "MOVED"]) {
      await using server = new FakeRedis(`-${error} 1 127.0.0.1:${freePort()}\r\n`);
      await using store = open(await server.url("redis+cluster"));
      const calls = [store.get("a"), store.set("a", json(1)), store.delete("b")];
      // A rejection that nobody handles would end the process, and fails the test.
      for (const result of await Promise.allSettled(calls)) {
        assert(result.status === "rejected" && result.reason instanceof StoreUnavailable);
      }
    }
  },
);
