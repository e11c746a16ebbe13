/** The Redis store: the conformance suite, and what only Redis has. Faults are in redis_faults_test.ts. */
import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import { redisStore } from "../stores/redis/store.ts";
import { json } from "../stores/json/text.ts";
import { InvalidArgument, type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import {
  allPages,
  AWKWARD_KEYS,
  servedStore,
  storeConformance,
  type TestStore,
} from "./conformance/store.ts";
import {
  eventually,
  freePort,
  isInstalled,
  runToEnd,
  temporaryDirectory,
  testWith,
} from "./helpers/programs.ts";
import { works } from "./helpers/redis_faults.ts";
import {
  cli,
  REDIS,
  type Server,
  type Servers,
  startCluster,
  startClusterOn,
  startRedis,
  startSentinels,
  test,
} from "./helpers/redis_servers.ts";
import { scoped } from "./helpers/scoped.ts";

let alone: Server, cluster: Servers;
let prefixes = 0;
// For a busy machine.
const patient = { deadline: 30_000 };

// One server of each kind for all tests, each of which has its own prefix.
Deno.test.beforeAll(async () => {
  if (!REDIS.every(isInstalled)) return;
  [alone, cluster] = await Promise.all([startRedis(), startCluster()]);
});
Deno.test.afterAll(async () => {
  await Promise.all([alone, cluster].map((it) => it?.[Symbol.asyncDispose]()));
});

const aloneUrl = () => `redis://127.0.0.1:${alone.port}/`;
const clusterUrl = () => `redis+cluster://${cluster.hosts}`;

for (
  const [name, url] of [["Redis alone", aloneUrl], ["a Redis Cluster", clusterUrl]] as const
) {
  storeConformance(`redisStore on ${name}`, {
    ordered: false,
    needs: REDIS,
    open: () => openTestStore(url()),
  });

  storeConformance(`httpStore over kv() on ${name}`, {
    ordered: false,
    needs: REDIS,
    open: async () => {
      const { store: below, pass } = await openTestStore(url());
      const store = servedStore(below);
      return { store, pass, [Symbol.asyncDispose]: () => store.close() };
    },
  });
}

function openTestStore(url: string, query = ""): Promise<TestStore> {
  const store = redisStore(`${url}?prefix=test${prefixes++}:&${query}`, patient);
  return Promise.resolve({
    store,
    pass: (seconds) => delay(seconds * 1000),
    [Symbol.asyncDispose]: () => store.close(),
  });
}

test("redisStore() follows the Sentinels through a failover, with passwords", async () => {
  await using sentinels = await startSentinels("secret1", "s%cret2");
  const url = `redis+sentinel://:secret1@${sentinels.hosts}/mymaster/1`;
  const query = `sentinelPassword=${encodeURIComponent("s%cret2")}`;
  await using opened = await openTestStore(url, query);
  const { store } = opened;
  const { revision } = await store.set("a", json(1), { ttl: 60 });
  await store.set("a", json(2), { ifRevision: revision });
  assertEquals((await store.list("")).keys, ["a"]);
  const { changes } = await store.watch("");
  const [, replica, sentinel] = sentinels.servers;
  const login = ["-a", "secret1", "--no-auth-warning"];
  const key = `test${prefixes - 1}:a`;
  await eventually("a replica that has the entry", async () => {
    return (await cli(replica?.port ?? 0, ...login, "-n", "1", "GET", key)).endsWith(" 2\n");
  });
  // Sentinels on a machine that stalled do nothing for half a minute.
  await eventually("a failover", async () => {
    if ((await cli(replica?.port ?? 0, ...login, "ROLE")).startsWith("master")) return true;
    const sentinelLogin = ["-a", "s%cret2", "--no-auth-warning"];
    await cli(sentinel?.port ?? 0, ...sentinelLogin, "SENTINEL", "FAILOVER", "mymaster");
    await delay(1000);
    return false;
  }, 300);
  await assertRejects(
    () => changes.getReader().read(),
    StoreUnavailable,
    undefined,
    "changes may be missed",
  );
  await eventually("a store that works", async () => {
    return await store.set("b", json(3)).then(() => true, () => false);
  }, 120);
  assertEquals((await store.delete("a"))?.value, "2");
  const again = (await store.watch("")).changes.getReader();
  await store.set("c", json(4));
  assertEquals((await again.read()).value?.key, "c");
});

test("redisStore() reports what any client writes in its database and prefix", async () => {
  const open = (path: string) => redisStore(`redis://127.0.0.1:${alone.port}/${path}`, patient);
  const stores = ["4?prefix=x:", "4?prefix=x:", "5?prefix=x:", "4?prefix=x", "4"].map(open);
  const [watcher, other, ...foreign] = stores as [Store, Store, ...Store[]];
  const { changes } = await watcher.watch("");
  for (const store of foreign) await store.set("changes@4", json(1));
  // Whoever may publish can send what is no key under the prefix.
  for (const name of ["else", "y:a", "x:", "x:.."]) {
    await cli(alone.port, "PUBLISH", "x:changes@4", name);
  }
  await other.delete("nothing");
  await other.set("a", json(2));
  await watcher.set("b", json(3));
  await other.setAll(new Map([["c", json(4)]]));
  await assertRejects(() => other.set("d", json(5), { ifRevision: "x" }));
  await other.delete("a");
  const seen: unknown[] = [];
  for await (const { key, entry } of changes) {
    seen.push([key, entry?.value]);
    if (seen.length === 4) break;
  }
  assertEquals(seen.sort(), [["a", undefined], ["a", undefined], ["b", "3"], ["c", "4"]]);
  for (const store of stores) await store.close();
});

test("redisStore() reports what is written on any server of the Cluster", async () => {
  await using writing = await openTestStore(clusterUrl());
  await using watcher = scoped(redisStore(`${clusterUrl()}?prefix=test${prefixes - 1}:`, patient));
  const { changes } = await watcher.watch("");
  const keys = Array.from({ length: 100 }, (_, i) => `k${i}`);
  await writing.store.setAll(new Map(keys.map((key) => [key, json(1)])));
  const left = new Set(keys);
  for await (const { key } of changes) {
    left.delete(key);
    if (left.size === 0) break;
  }
});

test("redisStore() keeps writes in order when the server has forgotten a script", async () => {
  await using opened = await openTestStore(aloneUrl());
  const { store } = opened;
  await store.delete("a");
  for (let i = 0; i < 3; i++) {
    await cli(alone.port, "SCRIPT", "FLUSH");
    await store.set("a", json("old"));
    await Promise.all([store.delete("a"), store.set("a", json("new"))]);
    assertEquals((await store.get("a"))?.value, '"new"');
    await cli(alone.port, "SCRIPT", "FLUSH");
    await store.delete("a");
    await Promise.all([store.set("a", json("old"), { ifRevision: null }), store.delete("a")]);
    assertEquals(await store.get("a"), null);
  }
});

test("redisStore() reaches a server by the path of its socket", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "a redis.sock");
  await using server = await startRedis({
    settings: [`unixsocket "${path}"`, "requirepass secret1"],
  });
  const url = `redis+unix://:secret1@${encodeURI(path)}?db=3&prefix=a:`;
  const store = redisStore(url, patient);
  await store.set("k", json(1));
  const login = ["-a", "secret1", "--no-auth-warning", "-n", "3"];
  assertEquals(await cli(server.port, ...login, "KEYS", "*"), "a:k\n");
  await store.close();
  await using missing = scoped(redisStore(`redis+unix://${encodeURI(path)}x`, patient));
  const error = await assertRejects(() => missing.get("k"), StoreUnavailable);
  assert(error.message.startsWith(`Cannot use Redis at "${path}x": `), error.message);
});

test("redisStore() closed while it connects leaves no timer behind", async () => {
  for (const url of [aloneUrl(), clusterUrl()]) {
    for (let i = 0; i < 10; i++) await redisStore(url, patient).close();
  }
});

test("redisStore() ends a watch that begins while it closes without an error", async () => {
  const url = `${aloneUrl()}?prefix=test${prefixes++}:`;
  const writer = redisStore(url, patient);
  let isOver = false;
  const writing = (async () => {
    while (!isOver) await writer.set("a", json(1));
  })();
  try {
    for (let i = 0; i < 20; i++) {
      const store = redisStore(url, patient);
      const watch = store.watch("");
      const closed = store.close();
      for await (const { key } of (await watch).changes) assertEquals(key, "a");
      await closed;
    }
  } finally {
    isOver = true;
    await writing;
    await writer.close();
  }
});

test("redisStore() uses no other database if it cannot select its own", async () => {
  await using server = await startRedis({ settings: ["user ann on >pw ~* &* +@all -select"] });
  const host = `127.0.0.1:${server.port}`;
  for (
    const [url, reason] of [[`${host}/99`, /DB index/], [`ann:pw@${host}/3`, /permission/]] as const
  ) {
    await using store = scoped(redisStore(`redis://${url}`, patient));
    for (let i = 0; i < 3; i++) {
      const error = await assertRejects(() => store.set("a", json(1)), StoreUnavailable);
      assertEquals(error.outcome, "unchanged");
      assertMatch(error.message, reason);
      await delay(100);
    }
    await assertRejects(() => store.watch(""), StoreUnavailable);
  }
  assertEquals(await cli(server.port, "DBSIZE"), "0\n");
});

test("redisStore() writes nothing that it may not publish", async () => {
  await using server = await startRedis({ settings: ["user ann on >pw ~* +@all resetchannels"] });
  await using opened = await openTestStore(`redis://ann:pw@127.0.0.1:${server.port}/`);
  const { store } = opened;
  const calls = [
    () => store.set("a", json(1)),
    () => store.setAll(new Map([["a", json(1)]])),
    () => store.watch(""),
  ];
  for (const call of calls) {
    const error = await assertRejects(call, StoreUnavailable);
    assertEquals(error.outcome, "unchanged");
    assertMatch(error.message, /NOPERM|access|channel/i);
  }
  assertEquals(await store.get("a"), null);
});

testWith(
  [...REDIS, "openssl"],
  "redisStore() requires a certificate that it can trust, and tells TLS from its absence",
  async () => {
    await using directory = await temporaryDirectory();
    const [certificate, key] = ["cert.pem", "key.pem"].map((name) => join(directory.path, name));
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    const { code, stderr } = await runToEnd("openssl", [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...["-days", "2", ...subject, "-addext", "basicConstraints=critical,CA:FALSE"],
      ...["-keyout", `${key}`, "-out", `${certificate}`],
    ]);
    assertEquals(code, 0, stderr);
    const port = freePort();
    const tls = [`tls-port ${port}`, `tls-cert-file ${certificate}`, `tls-key-file ${key}`];
    const settings = [...tls, `tls-ca-cert-file ${certificate}`, "tls-auth-clients no"];
    await using plain = await startRedis({ settings });
    const store = redisStore(`redis://127.0.0.1:${plain.port}`, patient);
    await store.set("a", json(1));
    await store.close();
    const dump = (env: Record<string, string>) =>
      runToEnd(
        Deno.execPath(),
        ["run", "--quiet", "--allow-all", "dump.ts", `rediss://localhost:${port}`],
        { env },
      );
    assertEquals((await dump({ DENO_CERT: `${certificate}` })).stdout, '{"a": 1}\n');
    const refused = await dump({});
    assertMatch(refused.stderr, /^Cannot use Redis at "localhost:\d+": .*certificate/);
    assertEquals(refused.code, 1);
    const mixedUp = {
      [`redis://127.0.0.1:${port}`]: /: read ECONNRESET; if it uses TLS, write rediss, not redis$/,
      [`rediss://127.0.0.1:${plain.port}`]: /TIMEDOUT; if it has no TLS, write redis, not rediss$/,
    };
    for (const [url, expected] of Object.entries(mixedUp)) {
      await using store = scoped(redisStore(url));
      const error = await assertRejects(() => store.get("a"), StoreUnavailable);
      assertMatch(error.message, expected);
    }
  },
);

test("redisStore() lets entries expire by the server's clock", async () => {
  await using opened = await openTestStore(aloneUrl());
  const { expires } = await opened.store.set("a", json(1), { ttl: 100 });
  await opened.store.setAll(new Map([["b", json(1)]]), { ttl: 100 });
  const name = `test${prefixes - 1}:`;
  assertEquals(Number(await cli(alone.port, "PEXPIRETIME", `${name}a`)), expires);
  const all = Number(await cli(alone.port, "PEXPIRETIME", `${name}b`));
  assertEquals((await opened.store.get("b"))?.expires, all);
});

test("redisStore() keeps to its prefix, whatever characters are in it", async () => {
  const odd = "{a}*[b]?\\^ü:";
  const stores = [`?prefix=${encodeURIComponent(odd)}`, "?prefix=%7Ba%7Dxbxc:", ""].map((query) =>
    redisStore(`redis://127.0.0.1:${alone.port}/3${query}`, patient)
  );
  const [first, second, whole] = stores as [Store, Store, Store];
  for (const key of ["x*", "xy", "x?", "x[y]", "x\\y"]) await first.set(key, json(1));
  await second.set("x*", json(2));
  await whole.set(odd, json(3)); // has no name in the first
  assertEquals((await first.list("x*")).keys, ["x*"]);
  assertEquals((await first.list("x[")).keys, ["x[y]"]);
  assertEquals((await first.list("x\\")).keys, ["x\\y"]);
  assertEquals((await first.list("")).keys.length, 5);
  assertEquals((await second.list("")).keys, ["x*"]);
  assertEquals((await whole.list("")).keys.length, 7);
  assertEquals((await whole.get(`${odd}x*`))?.value, "1");
  for (const store of stores) await store.close();
});

test("redisStore() does not take another program's key for an entry", async () => {
  await using opened = await openTestStore(aloneUrl());
  const name = `test${prefixes - 1}:`;
  await cli(alone.port, "SET", `${name}text`, "hello");
  await cli(alone.port, "SET", `${name}empty`, "");
  await cli(alone.port, "HSET", `${name}hash`, "a", "1");
  for (const key of ["text", "empty", "hash"]) {
    const { message } = await assertRejects(() => opened.store.get(key), StoreUnavailable);
    assertMatch(message, /^Cannot read an entry: another program wrote it;/);
    const create = () => opened.store.set(key, json(1), { ifRevision: null });
    assertEquals((await assertRejects(create, StoreUnavailable)).outcome, "unchanged", key);
  }
  assertEquals(await cli(alone.port, "GET", `${name}empty`), "\n");
  assertEquals((await opened.store.set("empty", json(1))).created, false);
  const error = await assertRejects(() => opened.store.set("hash", json(1)), StoreUnavailable);
  assertEquals(error.outcome, "unchanged");
});

test("redisStore() sets more entries at once than a function takes arguments", async () => {
  await using opened = await openTestStore(aloneUrl());
  await opened.store.setAll(new Map(Array.from({ length: 45_000 }, (_, i) => [`k${i}`, json(i)])));
  assertEquals((await opened.store.get("k44999"))?.value, "44999");
});

test("redisStore() reads no more of another program's value than an entry has", async () => {
  await using opened = await openTestStore(aloneUrl());
  const { store } = opened;
  const entry = json("é".repeat(512 * 1024 - 1));
  const { revision } = await store.set("largest", entry, { ttl: 1000 });
  assertEquals((await store.get("largest"))?.value, entry);
  const name = `test${prefixes - 1}:long`;
  await cli(alone.port, "SET", name, `${revision} - "a"`);
  await cli(alone.port, "SETRANGE", name, String(100 * 1024 * 1024), "a");
  const sent = async () =>
    Number(/total_net_output_bytes:(\d+)/.exec(await cli(alone.port, "INFO", "stats"))?.[1]);
  const before = await sent();
  const calls = [
    () => store.get("long"),
    () => store.set("long", json(1), { ifRevision: null }),
    () => store.delete("long", { ifRevision: null }),
    () => store.delete("long"),
  ];
  for (const call of calls) {
    await assertRejects(call as () => Promise<unknown>, StoreUnavailable, "another program");
  }
  assert(await sent() - before < 8 * 1024 * 1024, `${await sent() - before} bytes`);
});

test("redisStore() says that the server has become a replica, and reads on", async () => {
  await using server = await startRedis();
  await using opened = await openTestStore(`redis://127.0.0.1:${server.port}/`);
  const { store } = opened;
  await store.set("a", json(1));
  const { changes } = await store.watch("");
  const reader = changes.getReader();
  await store.set("a", json(2));
  assertEquals((await reader.read()).value?.entry?.value, "2");
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on("warning", warn);
  await cli(server.port, "REPLICAOF", "127.0.0.1", String(alone.port));
  await eventually("the entries of its master", () => {
    return store.get("a").then((entry) => entry === null, () => false);
  });
  for (let round = 0; round < 3; round++) {
    const writes = Array.from({ length: 20 }, () => store.set("a", json(3)));
    for (const write of await Promise.allSettled(writes)) {
      assert(write.status === "rejected" && write.reason instanceof StoreUnavailable);
      assertMatch(write.reason.message, /READONLY/);
      assertEquals(write.reason.outcome, "unchanged");
    }
    assertEquals(await store.get("a"), null);
  }
  const connections = async () => {
    const stats = await cli(server.port, "INFO", "stats");
    return Number(/^total_connections_received:(\d+)/m.exec(stats)?.[1]);
  };
  const before = await connections();
  for (let i = 0; i < 100; i++) {
    await assertRejects(() => store.set("a", json(3)), StoreUnavailable, "READONLY");
  }
  assert(await connections() - before < 50, "a connection for each write");
  process.off("warning", warn);
  assertEquals(warnings, []);
  await assertRejects(() => store.watch(""), StoreUnavailable, "replica");
  await assertRejects(() => reader.read(), StoreUnavailable);
  await cli(server.port, "REPLICAOF", "NO", "ONE");
  await eventually(
    "a store that writes",
    () => store.set("a", json(4)).then(() => true, () => false),
  );
});

test("redisStore() says that Redis is full, and writes nothing", async () => {
  await using server = await startRedis({ settings: ["maxmemory 3mb"] });
  await using opened = await openTestStore(`redis://127.0.0.1:${server.port}/`);
  const { store } = opened;
  const big = json("x".repeat(500_000));
  await store.set("small", json(1));
  await assertRejects(async () => {
    for (let i = 0; i < 50; i++) await store.set(`big${i}`, big);
  }, StoreFull);
  await assertRejects(() => store.setAll(new Map([["small", big], ["b", json(1)]])), StoreFull);
  assertEquals((await store.get("small"))?.value, "1");
  assertEquals(await store.get("b"), null);
  await cli(server.port, "CONFIG", "SET", "maxmemory", "1mb");
  await assertRejects(() => store.check(), StoreFull);
  for (let i = 0; i < 50; i++) await store.delete(`big${i}`);
  await cli(server.port, "CONFIG", "SET", "maxmemory", "3mb");
  await store.check();
  assertEquals((await store.list("")).keys, ["small"], "a check writes nothing");
});

test("redisStore() fails its check if any master of the Cluster is full", async () => {
  await using opened = await openTestStore(clusterUrl());
  const { store } = opened;
  let full = 0;
  for (const { port } of cluster.servers) {
    if (!(await cli(port, "ROLE")).startsWith("master")) continue;
    await cli(port, "CONFIG", "SET", "maxmemory", "1");
    await assertRejects(() => store.check(), StoreFull);
    await cli(port, "CONFIG", "SET", "maxmemory", "0");
    await store.check();
    full++;
  }
  assertEquals(full, 3);
});

test("redisStore() logs in, or says why it cannot, without the password", async () => {
  const settings = ["requirepass secret1", "user ann on >p%40ss ~* &* +@all"];
  await using server = await startRedis({ settings });
  const host = `127.0.0.1:${server.port}`;
  for (const login of [":secret1@", "ann:p%2540ss@"]) {
    await using store = scoped(redisStore(`redis://${login}${host}/2`, patient));
    await store.set("a", json(1));
  }
  assertEquals(
    await cli(server.port, "-a", "secret1", "--no-auth-warning", "-n", "2", "DBSIZE"),
    "1\n",
  );
  for (const login of ["", ":wrong-one@", "ann:wrong-one@"]) {
    for (const scheme of ["redis", "redis+cluster"]) {
      await using store = scoped(redisStore(`${scheme}://${login}${host}`, patient));
      const error = await assertRejects(() => store.get("a"));
      assert(error instanceof StoreUnavailable);
      const reason = login === ""
        ? /": it requires a password: expected user:password@ in the URL$/
        : /^Cannot use Redis at "127.0.0.1:\d+": WRONGPASS/;
      assertMatch(error.message, reason);
      assert(!inspect(error, { depth: 9 }).includes("wrong-one"), inspect(error, { depth: 9 }));
    }
  }
});

test("redisStore() sets entries in any slots of the Cluster", async () => {
  await using opened = await openTestStore(clusterUrl());
  const { store } = opened;
  const keys = ["{}a}", "{}{a}", "{{a}}", "{a", "a}", "{a}b", "}{a}", "é{ü}", "{\u{1f600}}"];
  const values = new Map([...keys, ...AWKWARD_KEYS].map((key, i) => [key, json(i)]));
  await store.setAll(values);
  for (const [key, value] of values) assertEquals((await store.get(key))?.value, value, key);
});

test("redisStore() reports setAll as unknown if only some slots were written", async () => {
  await using opened = await openTestStore(clusterUrl());
  const { store } = opened;
  const name = `test${prefixes - 1}:`;
  const port = Number(cluster.hosts.split(",")[0]?.split(":")[1]);
  // Other programs' keys, which the script cannot read.
  for (const key of ["{a}", "{b}"]) await cli("-c", port, "HSET", name + key, "field", "1");
  const outcomeOf = async (...keys: string[]) => {
    const values = new Map(keys.map((key) => [key, json(1)]));
    return (await assertRejects(() => store.setAll(values), StoreUnavailable)).outcome;
  };
  assertEquals(await outcomeOf("{a}"), "unchanged");
  assertEquals(await outcomeOf("{a}", "{b}"), "unchanged");
  assertEquals(await outcomeOf("{a}", "{c}"), "unknown");
  assertEquals((await store.get("{c}"))?.value, "1");
});

test("redisStore() continues another process's listing, and rejects an invalid cursor", async () => {
  for (const url of [aloneUrl(), clusterUrl()]) {
    await using opened = await openTestStore(url);
    await using same = scoped(redisStore(`${url}?prefix=test${prefixes - 1}:`, patient));
    await opened.store.setAll(new Map(Array.from({ length: 40 }, (_, i) => [`k${i}`, json(i)])));
    const first = await opened.store.list("k", { limit: 15 });
    assert(first.next);
    const rest = await same.list("k", { after: first.next ?? undefined });
    assertEquals(new Set([...first.keys, ...rest.keys]).size, 40);
    const [listing] = first.next.split(".");
    const ahead = btoa('{"a":1}').replaceAll("=", "");
    for (
      const after of [
        "",
        "k1",
        "0",
        `${listing}.0.x..`,
        `${listing}.0.0..${ahead}`,
        `${listing}.0.0..e`,
      ]
        .concat(`${listing}.0.${"9".repeat(20)}..`, `${listing}.0.0.short.`, first.next + " ")
    ) {
      const error = await assertRejects(() => same.list("k", { after }), InvalidArgument);
      assertEquals(error.argument, "after");
    }
    await assertRejects(
      () => same.list("", { after: first.next ?? undefined }),
      InvalidArgument,
      undefined,
      "another prefix",
    );
  }
});

test("redisStore() lists no part of a Cluster whose slots move", async () => {
  await using moving = await startClusterOn({ masters: [undefined, undefined, undefined] });
  await using store = scoped(redisStore(`redis+cluster://${moving.hosts}`, patient));
  await store.setAll(new Map(Array.from({ length: 1000 }, (_, i) => [`k${i}`, json(i)])));
  const [from, to] = moving.servers as [Server, Server];
  const [fromId, toId] = await Promise.all(
    [from, to].map(async (it) => (await cli(it, "CLUSTER", "MYID")).trim()),
  ) as [string, string];
  const first = await store.list("", { limit: 10 });
  await cli(to, "CLUSTER", "SETSLOT", "0", "IMPORTING", fromId);
  await cli(from, "CLUSTER", "SETSLOT", "0", "MIGRATING", toId);
  const error = await assertRejects(() => store.list(""), StoreUnavailable);
  assertMatch(error.message, /: the Cluster is moving slots from one master to another$/);
  assertEquals(error.outcome, "unchanged");
  for (const server of [from, to]) await cli(server, "CLUSTER", "SETSLOT", "0", "STABLE");
  let isMoving = true;
  const ids = ["--cluster-from", fromId, "--cluster-to", toId];
  const slots = ["--cluster-slots", "500", "--cluster-yes"];
  const moved = cli("--cluster", "reshard", `${from.host}:${from.port}`, ...ids, ...slots)
    .finally(() => isMoving = false);
  while (isMoving) {
    try {
      assertEquals(
        (await allPages(store, "", 50)).flat().sort(),
        Array.from(Array(1000), (_, i) => `k${i}`).sort(),
      );
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) assertInstanceOf(error, InvalidArgument);
    }
  }
  await moved;
  await assertRejects(() => store.list("", { after: first.next ?? "" }), InvalidArgument);
  assertEquals((await allPages(store, "", 50)).flat().length, 1000);
});

test("redisStore() lists no key twice while the server's table shrinks", async () => {
  await using opened = await openTestStore(aloneUrl());
  const { store } = opened;
  const keys = Array.from({ length: 4000 }, (_, i) => `k${i}`);
  const stay = keys.filter((_, i) => i % 50 === 0);
  const gone = keys.filter((_, i) => i % 50 !== 0);
  const name = `test${prefixes - 1}:`;
  let repeated = 0;
  for (let round = 0; round < 8; round++) {
    await store.setAll(new Map(keys.map((key) => [key, json(1)])));
    const seen: string[] = [];
    let after: string | undefined;
    for (let page = 0; page === 0 || after !== undefined; page++) {
      const { keys, next } = await store.list("", { after, limit: 200 });
      seen.push(...keys);
      after = next ?? undefined;
      if (page !== round) continue;
      await cli(alone.port, "DEL", ...gone.map((key) => name + key));
      await delay(100);
    }
    const met = seen.filter((key) => stay.includes(key));
    repeated += met.length - new Set(met).size;
    assertEquals(new Set(met).size, stay.length, "none is missed");
  }
  assertEquals(repeated, 0);
});

test("redisStore() leaves nothing open that asks a Cluster for its slots", async () => {
  const deadline = 800;
  const store = redisStore(clusterUrl(), { deadline });
  await eventually("a store that works", works(store));
  for (const { program } of cluster.servers) program.signal("SIGSTOP");
  await delay(deadline / 2 + 200); // it has asked again, by a connection of its own
  await store.close();
  for (const { program } of cluster.servers) program.signal("SIGCONT");
});
