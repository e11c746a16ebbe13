/** A Redis store whose server or connection fails: it never hangs, and never reports a false success. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { redisStore } from "../stores/redis/store.ts";
import { json } from "../stores/json_text.ts";
import { ChangesLost, InvalidArgument, type Store, StoreUnavailable } from "../stores/store.ts";
import { eventually, freePort, startServer, testWith } from "./helpers/programs.ts";
import { cli, REDIS, startCluster, startRedis, startSentinels } from "./helpers/redis_servers.ts";

/** The stores' deadline, in milliseconds. */
const DEADLINE = 2000;
/** How much later than its deadline a call may end, in milliseconds. */
const SLACK = 1000;

/** A TCP proxy in front of a server that a test makes fail. */
class Proxy implements AsyncDisposable {
  /** How late answers are, in milliseconds; Infinity: they never come. */
  late = 0;
  /** When to cut the connection, once: before or after a request is passed on. */
  cut: "before" | "after" | null = null;
  readonly port = freePort();
  readonly #sockets = new Set<Socket>();
  readonly #ended = new AbortController();
  readonly #server = createServer((client) => this.#accept(client)).listen(this.port, "127.0.0.1");

  constructor(readonly to: number) {}

  #accept(client: Socket): void {
    const server = connect(this.to, "127.0.0.1");
    const ends = [client, server];
    for (const end of ends) {
      this.#sockets.add(end);
      end.on("error", () => {}); // "close" follows
      end.on("close", () => {
        this.#sockets.delete(end);
        for (const other of ends) other.destroy();
      });
    }
    client.on("data", (chunk) => {
      const { cut } = this;
      if (cut === "before") client.destroy();
      else server.write(chunk);
      if (cut === "after") this.#later(20, () => client.destroy());
      if (cut !== null) this.late = Infinity;
    });
    server.on("data", (chunk) => {
      if (this.late === 0) client.write(chunk);
      else if (this.late < Infinity) this.#later(this.late, () => client.write(chunk));
    });
  }

  #later(milliseconds: number, run: () => void): void {
    delay(milliseconds, undefined, { signal: this.#ended.signal }).then(run, () => {}); // the end came first
  }

  /** Cuts all connections. */
  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  heal(): void {
    this.late = 0;
    this.cut = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#ended.abort();
    this.#server.close();
    this.cutAll();
    await closed;
  }
}

/** Opens a store that closes at the end of the scope. */
function open(url: string, deadline = DEADLINE): Store & AsyncDisposable {
  const store = redisStore(url, { deadline });
  return { ...store, [Symbol.asyncDispose]: () => store.close() };
}

/**
 * A clock in milliseconds from 0. A busy machine may stall: of the time between two ticks at most
 * 50 ms are counted.
 */
class SteadyClock implements Disposable {
  #time = 0;
  #last = performance.now();
  readonly #timer = setInterval(() => this.now(), 10);

  now(): number {
    const real = performance.now();
    this.#time += Math.min(real - this.#last, 50);
    this.#last = real;
    return this.#time;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Returns how long a call takes, in milliseconds, whether it succeeds or not. */
async function timeOf(call: Promise<unknown>): Promise<number> {
  using clock = new SteadyClock();
  await call.catch(() => {});
  return clock.now();
}

/** Returns the outcome of a call that must fail with StoreUnavailable within `limit` milliseconds. */
async function outcome(call: Promise<unknown>, limit = DEADLINE): Promise<string> {
  const took = await timeOf(call);
  assert(took < limit + SLACK, `it took ${took} ms`);
  const error: unknown = await call.then(() => "it was done", (error) => error);
  assert(error instanceof StoreUnavailable, String(error));
  return error.outcome;
}

const works = (store: Store) => () => store.set("probe", json(1)).then(() => true, () => false);

testWith(
  REDIS,
  "redisStore() ends a call whose answer is late, as unknown for a write",
  async () => {
    await using server = await startRedis();
    await using proxy = new Proxy(server.port);
    await using store = open(`redis://127.0.0.1:${proxy.port}`);
    await store.set("a", json(1));
    proxy.late = 3000;
    const calls = [store.set("a", json(2)), store.delete("b"), store.get("a"), store.list("")];
    const outcomes = await Promise.all(calls.map((call) => outcome(call)));
    assertEquals(outcomes, ["unknown", "unknown", "unchanged", "unchanged"]);
    proxy.heal();
    await eventually("a store that works", works(store));
    assertEquals((await store.get("a"))?.value, "2", "unknown: it was done");
  },
);

testWith(
  REDIS,
  "redisStore() reports a write whose connection is cut as unknown",
  async () => {
    await using server = await startRedis();
    await using proxy = new Proxy(server.port);
    await using store = open(`redis://127.0.0.1:${proxy.port}`);
    for (const [cut, value] of [["before", "1"], ["after", "2"]] as const) {
      await eventually("a store that works", works(store));
      await store.set("a", json(1));
      proxy.cut = cut;
      assertEquals(await outcome(store.set("a", json(2))), "unknown", cut);
      assertEquals(
        await outcome(store.set("a", json(3)), 0),
        "unchanged",
        "there is no connection",
      );
      proxy.heal();
      await eventually("a store that works", works(store));
      assertEquals(String((await store.get("a"))?.value), value, cut);
    }
  },
);

testWith(
  REDIS,
  "redisStore() loses no update over a connection that is cut repeatedly",
  async () => {
    await using server = await startRedis();
    await using proxy = new Proxy(server.port);
    await using store = open(`redis://127.0.0.1:${proxy.port}`);
    let done = 0;
    let unknown = 0;
    for (let i = 0; i < 30; i++) {
      if (i % 6 === 0) proxy.cut = i % 12 === 0 ? "before" : "after";
      try {
        const current = await store.get("count");
        const next = json(current === null ? 1 : Number(current.value) + 1);
        await store.set("count", next, { ifRevision: current?.revision ?? null });
        done++;
      } catch (error) {
        assert(error instanceof StoreUnavailable, String(error));
        if (error.outcome === "unknown") unknown++;
        proxy.heal();
        await eventually("a store that works", works(store));
      }
      if (i % 6 === 1 && i % 4 === 1) proxy.cut = "after";
    }
    const count = Number((await store.get("count"))?.value);
    assert(count >= done && count <= done + unknown, `${count} of ${done} and ${unknown} unknown`);
    assert(done > 15);
  },
);

testWith(
  REDIS,
  "redisStore() does not hang on a server that accepts and never answers",
  async () => {
    await using server = await startRedis();
    await using proxy = new Proxy(server.port);
    proxy.late = Infinity;
    await using store = open(`redis://127.0.0.1:${proxy.port}`);
    assertEquals(await outcome(store.set("a", json(1))), "unchanged");
    proxy.heal();
    await eventually("a store that works", works(store));
    assertEquals(await store.get("a"), null);
  },
);

testWith(
  REDIS,
  "redisStore() does not hang on a server that stalls, and works again after",
  async () => {
    await using server = await startRedis();
    await using store = open(`redis://127.0.0.1:${server.port}`);
    await store.set("a", json(1));
    server.program.signal("SIGSTOP");
    const first = store.set("a", json(2));
    assertEquals(await outcome(first), "unknown");
    for (let i = 0; i < 20; i++) assert(await outcome(store.get("a")));
    server.program.signal("SIGCONT");
    await eventually("a store that works", works(store));
    assertMatch((await store.get("a"))?.value ?? "", /^[12]$/);
  },
);

testWith(
  REDIS,
  "redisStore() connects to a server that starts later or restarts",
  async () => {
    const port = freePort();
    await using store = open(`redis://127.0.0.1:${port}`);
    assertEquals(await outcome(store.set("a", json(1))), "unchanged");
    const settings = ["appendonly yes", "appendfsync always"];
    const directory = await Deno.makeTempDir();
    let next: string | null;
    {
      await using _server = await startRedis({ port, directory, settings });
      await eventually("a store that works", works(store));
      await store.setAll(new Map(Array.from({ length: 50 }, (_, i) => [`k${i}`, json(i)])));
      next = (await store.list("k", { limit: 10 })).next;
      assert(next);
    }
    assertEquals(await outcome(store.get("k1"), 200), "unchanged");
    {
      await using _server = await startRedis({ port, directory, settings });
      await eventually("a store that works", works(store));
      assertEquals((await store.get("k49"))?.value, "49");
      // The new process has another order of the keys: continuing would miss some.
      await assertRejects(() => store.list("k", { after: next }), InvalidArgument);
    }
    await Deno.remove(directory, { recursive: true });
  },
);

testWith(REDIS, "redisStore() fails at once while the server is loading its data", async () => {
  const directory = await Deno.makeTempDir();
  const port = freePort();
  {
    await using server = await startRedis({ port, directory });
    await using store = open(`redis://127.0.0.1:${server.port}`);
    await store.setAll(new Map(Array.from({ length: 2000 }, (_, i) => [`k${i}`, json(i)])));
    await cli(port, "SAVE");
  }
  // Microseconds for each key: four seconds.
  const settings = ["key-load-delay 2000", "loading-process-events-interval-bytes 1024"];
  {
    await using _server = await startRedis({ port, directory, settings, until: /LOADING/ });
    await using store = open(`redis://127.0.0.1:${port}`);
    const write = store.set("a", json(1));
    assertEquals(await outcome(write, 0), "unchanged");
    assertMatch(String(await write.catch((error) => error)), /loading/);
    await eventually("a store that works", works(store));
    assertEquals((await store.get("k1999"))?.value, "1999");
  }
  await Deno.remove(directory, { recursive: true });
});

testWith(REDIS, "redisStore() closes in time, whatever the server does", async () => {
  await using server = await startRedis();
  await using store = open(`redis://127.0.0.1:${server.port}`);
  await store.set("a", json(1));
  server.program.signal("SIGSTOP");
  const write = outcome(store.set("a", json(2)));
  assert(await timeOf(store.close()) < DEADLINE + SLACK);
  assertEquals(await write, "unknown");
  server.program.signal("SIGCONT");
});

testWith(REDIS, "redisStore() ends its watches when changes may be missed", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  await using store = open(`redis://127.0.0.1:${proxy.port}`);
  await using other = open(`redis://127.0.0.1:${server.port}`);
  for (const fail of [() => proxy.cutAll(), () => (proxy.late = Infinity)]) {
    await eventually("a store that works", works(store));
    // The write that showed that the store works may still be on its way to the watch.
    const { since, changes } = await store.watch("seen:");
    const reader = changes.getReader();
    await other.set("seen:a", json(1));
    assertEquals((await reader.read()).value?.key, "seen:a");
    const next = reader.read();
    fail();
    assertEquals((await assertRejects(() => next, StoreUnavailable)).outcome, "unchanged");
    proxy.heal();
    await eventually("a store that works", works(store));
    await assertRejects(() => store.watch("seen:", { since }), ChangesLost);
    const again = (await store.watch("seen:")).changes.getReader();
    await other.set("seen:b", json(2));
    assertEquals((await again.read()).value?.key, "seen:b");
    await again.cancel();
  }
});

testWith(REDIS, "redisStore() rejects a watch if the server does not answer", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  await using store = open(`redis://127.0.0.1:${proxy.port}`);
  await eventually("a store that works", works(store));
  proxy.late = Infinity;
  assertEquals(await outcome(store.watch("")), "unchanged");
  proxy.heal();
  await eventually("a store that watches", () => {
    return store.watch("").then(({ changes }) => changes.cancel()).then(() => true, () => false);
  });
});

testWith(
  REDIS,
  "kv.ts over a failing Redis answers 503, and then works again",
  async () => {
    await using server = await startRedis();
    await using proxy = new Proxy(server.port);
    const DBM = `redis://127.0.0.1:${proxy.port}/`;
    await using service = await startServer("kv.ts", { env: { DBM } });
    const put = (value: number) =>
      fetch(`${service.url}/a`, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(value),
        // Far longer than the store's deadline.
        signal: AbortSignal.timeout(60_000),
      });
    const answers = async () => {
      const response = await put(1);
      await response.body?.cancel();
      return response.ok;
    };
    const faults = [
      () => (proxy.cut = "after"),
      () => (proxy.late = Infinity),
      () => server.program.signal("SIGSTOP"),
    ];
    for (const fail of faults) {
      await eventually("a service that works", answers);
      fail();
      for (const response of await Promise.all([put(2), fetch(`${service.url}/?prefix=a`)])) {
        assertEquals(response.status, 503);
        assertEquals(response.headers.get("Retry-After"), "1");
        assertEquals(response.headers.get("Content-Type"), "application/problem+json");
        assertEquals((await response.json()).detail, "The store is unavailable");
      }
      proxy.heal();
      server.program.signal("SIGCONT");
    }
    await eventually("a service that works", answers);
  },
);

/** Kills a master under a load of 40 writes at a time, and waits until none has failed for 2 s. */
async function loseMaster(name: string, store: Store, kill: () => Promise<unknown>) {
  using clock = new SteadyClock();
  const acknowledged: string[] = [];
  const failures = { unchanged: 0, unknown: 0 };
  let longest = 0;
  let lastFailure = 0;
  let quiet = Infinity;
  let end = Infinity;
  const isOver = () => Date.now() > Math.min(quiet, end);
  const load = Array.from({ length: 40 }, async (_, writer) => {
    for (let i = 0; !isOver(); i++) {
      const start = clock.now();
      try {
        await store.set(`${writer}-${i}`, json(i), { ifRevision: null });
        acknowledged.push(`${writer}-${i}`);
      } catch (error) {
        assert(error instanceof StoreUnavailable, String(error));
        failures[error.outcome]++;
        lastFailure = Date.now();
        quiet = Date.now() + 2000;
      }
      longest = Math.max(longest, clock.now() - start);
      await delay(100);
    }
  });
  await delay(1000);
  await kill();
  const killed = Date.now();
  quiet = Date.now() + 5000;
  end = Date.now() + 90_000;
  await Promise.all(load);
  // A stalled machine also has no failures.
  await eventually("a store that works", works(store), 90);
  let lost = 0;
  for (const key of acknowledged) if (await store.get(key) === null) lost++;
  const seconds = (lastFailure - killed) / 1000;
  console.log(
    `${name}: writes fail for ${seconds.toFixed(1)} s after the kill ` +
      `(${failures.unknown} unknown, ${failures.unchanged} unchanged), ` +
      `the longest call takes ${longest.toFixed()} ms, ` +
      `${lost} of ${acknowledged.length} acknowledged writes are lost`,
  );
  assert(longest < DEADLINE + SLACK, `a call took ${longest} ms`);
  assert(seconds > 0, "nothing failed: was it a master?");
  // The servers need some 5 s; Sentinels on a machine that stalled, 30 s more.
  assert(seconds < 60, `it still failed after ${seconds} s`);
  assert((await store.list("0-")).keys.length > 0);
}

testWith(REDIS, "redisStore() writes again soon after a Cluster lost a master", async () => {
  await using cluster = await startCluster();
  for (const { port } of cluster.servers) {
    await cli(port, "CONFIG", "SET", "cluster-node-timeout", "2000");
  }
  await using store = open(`redis+cluster://${cluster.hosts}`);
  await eventually("a store that works", works(store));
  await loseMaster("Cluster", store, async () => await cluster.servers[0]?.program.stop("SIGKILL"));
});

testWith(REDIS, "redisStore() follows the Sentinels to a new master", async () => {
  for (let attempt = 1;; attempt++) {
    await using sentinels = await startSentinels();
    await using store = open(`redis+sentinel://${sentinels.hosts}/mymaster`);
    await eventually("a store that works", works(store));
    const [master, , sentinel] = sentinels.servers;
    try {
      await loseMaster("Sentinel", store, async () => await master?.program.stop("SIGKILL"));
      return;
    } catch (error) {
      // Sentinels on a machine that stalled may reject every replica from then on.
      const named = await cli(sentinel?.port ?? 0, "SENTINEL", "MASTER", "mymaster");
      if (attempt === 3 || !named.includes(`\n${master?.port}\n`)) throw error;
      console.log("The Sentinels name no other master, so again with new ones");
    }
  }
});
