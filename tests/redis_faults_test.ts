/** A Redis store whose server or connection fails: it never hangs, and never reports a false success. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { httpStore } from "../stores/http/store.ts";
import { json } from "../stores/json/text.ts";
import { ChangesLost, InvalidArgument, StoreUnavailable } from "../stores/store.ts";
import { allPages } from "./conformance/store.ts";
import { PATIENT } from "./helpers/http_store.ts";
import { eventually, freePort, startServer, temporaryDirectory } from "./helpers/programs.ts";
import { DEADLINE, open, Proxy, SLACK, SteadyClock, works } from "./helpers/redis_faults.ts";
import { cli, startClusterOn, startRedis, test } from "./helpers/redis_servers.ts";

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

test("redisStore() ends a call whose answer is late, as unknown for a write", async () => {
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
});

test("a slow listing of a rare prefix goes on page by page, also through a service", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  await cli(server.port, "EVAL", "for i = 1, 100000 do redis.call('SET', 'o' .. i, 1) end", "0");
  const deadline = 2 * DEADLINE;
  await using store = open(`redis://127.0.0.1:${proxy.port}?prefix=mine:`, deadline);
  await store.setAll(new Map(["a", "b"].map((key) => [key, json(1)])));
  await using service = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    kv(store).fetch,
  );
  const client = httpStore(`http://127.0.0.1:${service.addr.port}`, { deadline: PATIENT });
  using clock = new SteadyClock();
  await client.check();
  proxy.late = 300;
  const keys: string[] = [];
  let after: string | undefined;
  do {
    const begun = clock.now();
    const page = await client.list("", { after });
    const took = clock.now() - begun;
    assert(took < deadline / 2, `a client with this deadline waits half of it, not ${took} ms`);
    keys.push(...page.keys);
    after = page.next ?? undefined;
  } while (after !== undefined);
  assertEquals(keys.sort(), ["a", "b"]);
  proxy.heal();
  await client.close();
});

test("redisStore() reports a write whose connection is cut as unknown", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  await using store = open(`redis://127.0.0.1:${proxy.port}`);
  for (const [cut, value] of [["before", "1"], ["after", "2"]] as const) {
    await eventually("a store that works", works(store));
    await store.set("a", json(1));
    proxy.cut = cut;
    assertEquals(await outcome(store.set("a", json(2))), "unknown", cut);
    assertEquals(await outcome(store.set("a", json(3)), 0), "unchanged", "there is no connection");
    proxy.heal();
    await eventually("a store that works", works(store));
    assertEquals(String((await store.get("a"))?.value), value, cut);
  }
});

test("redisStore() loses no update over a connection that is cut repeatedly", async () => {
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
});

test("redisStore() does not hang on a server that accepts and never answers", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  proxy.late = Infinity;
  await using store = open(`redis://127.0.0.1:${proxy.port}`);
  assertEquals(await outcome(store.set("a", json(1))), "unchanged");
  proxy.heal();
  await eventually("a store that works", works(store));
  assertEquals(await store.get("a"), null);
});

test("redisStore() does not hang on a server that stalls, and works again after", async () => {
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
});

test("redisStore() fails no call because a quiet connection was closed", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  await using store = open(`redis://127.0.0.1:${proxy.port}`);
  let failed = 0;
  for (let i = 0; i < 20; i++) {
    await eventually("a store that works", works(store));
    proxy.cutAll();
    await delay(10);
    await store.set("a", json(i)).catch(() => failed++);
  }
  // On a busy machine the end of the connection may not have arrived yet.
  assert(failed < 5, `${failed} of 20 failed`);
});

test("redisStore() lists all of a Cluster that closed its connections", async () => {
  const masters = [undefined, undefined, undefined];
  await using cluster = await startClusterOn({ masters, replicas: masters });
  await using store = open(`redis+cluster://${cluster.hosts}?prefix=k:`);
  const keys = Array.from({ length: 20 }, (_, i) => `${i}`).sort();
  await store.setAll(new Map(keys.map((key) => [key, json(1)])));
  let failed = 0;
  /** Whether a listing succeeds, which then has to be whole. */
  const lists = async () => {
    // After a stall a page is short, or empty.
    const pages = await allPages(store, "").catch(() => null);
    if (pages !== null) assertEquals(pages.flat().sort(), keys);
    return pages !== null;
  };
  for (let i = 0; i < 20; i++) {
    await eventually("a listing", lists); // it connects to every master
    const closing = i % 2 === 0 ? cluster.servers : cluster.servers.slice(0, 1);
    await Promise.all(closing.map((it) => cli(it, "CLIENT", "KILL", "TYPE", "normal")));
    await delay(10);
    if (!await lists()) failed++;
  }
  // On a busy machine the end of the connections may not have arrived yet.
  assert(failed < 5, `${failed} of 20 failed`);
});

test("redisStore() lists nothing of a server that was a master and takes its keys anew", async () => {
  const masters = [undefined, undefined, undefined];
  await using cluster = await startClusterOn({ masters, replicas: [undefined] });
  const [old, , , successor] = cluster.servers.map(({ port }) => port) as [number, 0, 0, number];
  await using store = open(`redis+cluster://${cluster.hosts}?prefix=k:`);
  const keys = Array.from({ length: 20 }, (_, i) => `${i}`).sort();
  await store.setAll(new Map(keys.map((key) => [key, json(1)])));
  assertEquals((await allPages(store, "")).flat().sort(), keys);
  await cli(successor, "CLUSTER", "FAILOVER");
  await eventually("a failover", async () => {
    return /^master/.test(await cli(successor, "ROLE")) && /^slave/.test(await cli(old, "ROLE"));
  });
  // As while it loads what its new master sends.
  await cli(old, "CONFIG", "SET", "replica-read-only", "no");
  await cli(old, "FLUSHALL");
  assertEquals((await allPages(store, "")).flat().sort(), keys);
});

test("redisStore() connects to a server that starts later or restarts", async () => {
  const port = freePort();
  await using store = open(`redis://127.0.0.1:${port}`);
  assertEquals(await outcome(store.set("a", json(1))), "unchanged");
  const settings = ["appendonly yes", "appendfsync always"];
  await using directory = await temporaryDirectory();
  let next: string | null;
  {
    await using _server = await startRedis({ port, directory: directory.path, settings });
    await eventually("a store that works", works(store));
    await store.setAll(new Map(Array.from({ length: 50 }, (_, i) => [`k${i}`, json(i)])));
    next = (await store.list("k", { limit: 10 })).next;
    assert(next);
  }
  assertEquals(await outcome(store.get("k1"), 200), "unchanged");
  {
    await using _server = await startRedis({ port, directory: directory.path, settings });
    await eventually("a store that works", works(store));
    assertEquals((await store.get("k49"))?.value, "49");
    // The new process has another order of the keys: continuing would miss some.
    await assertRejects(() => store.list("k", { after: next }), InvalidArgument);
  }
});

test("redisStore() fails at once while the server is loading its data", async () => {
  await using directory = await temporaryDirectory();
  const port = freePort();
  {
    await using server = await startRedis({ port, directory: directory.path });
    await using store = open(`redis://127.0.0.1:${server.port}`);
    await store.setAll(new Map(Array.from({ length: 2000 }, (_, i) => [`k${i}`, json(i)])));
    await cli(port, "SAVE");
  }
  // Microseconds for each key: four seconds.
  const settings = ["key-load-delay 2000", "loading-process-events-interval-bytes 1024"];
  {
    await using _server = await startRedis({
      port,
      directory: directory.path,
      settings,
      until: /LOADING/,
    });
    await using store = open(`redis://127.0.0.1:${port}`);
    const write = store.set("a", json(1));
    assertEquals(await outcome(write, 0), "unchanged");
    assertMatch(String(await write.catch((error) => error)), /loading/);
    await eventually("a store that works", works(store));
    assertEquals((await store.get("k1999"))?.value, "1999");
  }
});

test("redisStore() closes in time, whatever the server does", async () => {
  await using server = await startRedis();
  await using store = open(`redis://127.0.0.1:${server.port}`);
  await store.set("a", json(1));
  server.program.signal("SIGSTOP");
  const write = outcome(store.set("a", json(2)));
  assert(await timeOf(store.close()) < DEADLINE + SLACK);
  assertEquals(await write, "unknown");
  server.program.signal("SIGCONT");
});

test("redisStore() closes without a connection that nobody needs", async () => {
  await using server = await startRedis();
  await using store = open(`redis://127.0.0.1:${server.port}`);
  await store.set("a", json(1));
  server.program.signal("SIGSTOP");
  assertEquals(await outcome(store.set("a", json(2))), "unknown");
  await delay(200); // it is connecting again
  assert(await timeOf(store.close()) < SLACK);
  server.program.signal("SIGCONT");
});

test("redisStore() closes without a watch whose caller has its error", async () => {
  await using server = await startRedis();
  const deadline = 2 * DEADLINE;
  await using store = open(`redis://127.0.0.1:${server.port}`, deadline);
  await store.watch("");
  server.program.signal("SIGSTOP");
  assertEquals(await outcome(store.watch(""), deadline), "unchanged");
  assert(await timeOf(store.close()) < SLACK);
  server.program.signal("SIGCONT");
});

test("redisStore() closes while it looks for a server to watch", async () => {
  await using cluster = await startClusterOn({ masters: [undefined, undefined, undefined] });
  await using store = open(`redis+cluster://${cluster.hosts}`);
  await store.set("a", json(1));
  for (const { program } of cluster.servers) program.signal("SIGSTOP");
  const watch = outcome(store.watch(""));
  assert(await timeOf(store.close()) < DEADLINE + SLACK);
  assertEquals(await watch, "unchanged");
});

test("redisStore() watches on the server of a Cluster that allows it", async () => {
  await using cluster = await startClusterOn({ masters: [undefined, undefined, undefined] });
  for (const server of cluster.servers.slice(1)) {
    assertEquals(await cli(server, "ACL", "SETUSER", "default", "resetchannels"), "OK\n");
  }
  // It asks them in random order.
  for (let i = 0; i < 10; i++) {
    await using store = open(`redis+cluster://${cluster.hosts}`);
    await Promise.all(["a", "b", "c", "d", "e"].map((key) => store.get(key)));
    const { changes } = await store.watch("");
    await changes.cancel();
  }
});

test("redisStore() ends its watches when changes may be missed", async () => {
  await using server = await startRedis();
  await using proxy = new Proxy(server.port);
  await using store = open(`redis://127.0.0.1:${proxy.port}`);
  await using other = open(`redis://127.0.0.1:${server.port}`);
  for (const fail of [() => proxy.cutAll(), () => (proxy.late = Infinity)]) {
    await eventually("a store that works", works(store));
    // The write that showed that the store works may still be on its way to the watch.
    const { position, changes } = await store.watch("seen:");
    const reader = changes.getReader();
    await other.set("seen:a", json(1));
    assertEquals((await reader.read()).value?.key, "seen:a");
    const next = reader.read();
    fail();
    assertEquals((await assertRejects(() => next, StoreUnavailable)).outcome, "unchanged");
    proxy.heal();
    await eventually("a store that works", works(store));
    await assertRejects(() => store.watch("seen:", { since: position() }), ChangesLost);
    const again = (await store.watch("seen:")).changes.getReader();
    await other.set("seen:b", json(2));
    assertEquals((await again.read()).value?.key, "seen:b");
    await again.cancel();
  }
});

test("redisStore() rejects a watch if the server does not answer", async () => {
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

test("kv.ts over a failing Redis answers 503, and then works again", async () => {
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
});
