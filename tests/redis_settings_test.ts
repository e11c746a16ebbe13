/** A Redis store whose server, user or URL is not set up as it needs: a sentence that says so, soon. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { once } from "node:events";
import { createServer } from "node:net";
import { inspect } from "node:util";
import { json } from "../stores/json/text.ts";
import { slotOf } from "../stores/redis/cluster.ts";
import { redisStore } from "../stores/redis/store.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { freePort, PROJECT, runToEnd } from "./helpers/programs.ts";
import { SLACK, SteadyClock } from "./helpers/redis_faults.ts";
import {
  cli,
  type Server,
  startClusterOn,
  startRedis,
  startSentinels,
  test,
} from "./helpers/redis_servers.ts";
import { scoped } from "./helpers/scoped.ts";

/** How soon an operator gets to know what is wrong, in milliseconds. */
const SOON = 2000;

/** Returns the sentence with which a call fails, which has to come soon. */
async function problemOf(url: string): Promise<string> {
  using clock = new SteadyClock();
  const store = redisStore(url);
  try {
    const error = await assertRejects(() => store.list(""), StoreUnavailable);
    assert(clock.now() < SOON + SLACK, `it took ${clock.now()} ms`);
    assertEquals(error.outcome, "unchanged");
    return error.message.replace(/^Cannot use Redis at "[^"]*": /, "");
  } finally {
    await store.close();
  }
}

test("redisStore() says what is wrong with Sentinels", async () => {
  await using sentinels = await startSentinels("secret1", "secret2");
  const open = (path: string) => problemOf(`redis+sentinel://:secret1@${sentinels.hosts}/${path}`);
  assertMatch(
    await open("mymaster"),
    /^the Sentinels .*"mymaster": they require a password: expected \?sentinelPassword= in the URL$/,
  );
  assertMatch(await open("mymaster?sentinelPassword=wrong"), /: WRONGPASS /);
  assertMatch(
    await open("other?sentinelPassword=secret2"),
    /^the Sentinels name no master "other": ERR No such master with that name$/,
  );
  const [master] = sentinels.servers as [Server];
  assertMatch(
    await problemOf(
      `redis+sentinel://${master.host}:${master.port}/mymaster?sentinelPassword=secret1`,
    ),
    /^the Sentinels name no master "mymaster": ERR unknown command/,
  );
  assertMatch(
    await problemOf(`redis+sentinel://${sentinels.hosts}/mymaster?sentinelPassword=secret2`),
    /^it requires a password: expected user:password@ in the URL$/,
  );
  const [, , sentinel] = sentinels.servers as [Server, Server, Server];
  assertMatch(
    await problemOf(`redis://:secret2@${sentinel.host}:${sentinel.port}`),
    /^it is a Sentinel: expected redis\+sentinel:/,
  );
});

test("redisStore() takes no server of a Cluster for all of it", async () => {
  await using cluster = await startClusterOn({ masters: [undefined, undefined, undefined] });
  const store = redisStore(`redis+cluster://${cluster.hosts}`);
  for (const key of ["a", "b", "c", "d"]) await store.set(key, json(1));
  await store.close();
  const [server] = cluster.servers as [Server];
  const url = `redis://${server.host}:${server.port}`;
  assertEquals(
    await problemOf(url),
    "it is one server of a Cluster: expected redis+cluster: in the URL",
  );
  const args = ["run", "--quiet", "--allow-all", "dump.ts", url];
  const { code, stdout, stderr } = await runToEnd(Deno.execPath(), args, { cwd: PROJECT });
  assertEquals({ code, stdout }, { code: 1, stdout: "" });
  assertMatch(stderr, /^Cannot use Redis at .*: expected redis\+cluster: in the URL\n$/);
});

test("redisStore() names an address that a Cluster announces and nobody reaches", async () => {
  const port = freePort();
  await using cluster = await startClusterOn({
    masters: [undefined],
    settings: ["cluster-announce-ip 127.0.0.1", `cluster-announce-port ${port}`],
  });
  assertEquals(
    await problemOf(`redis+cluster://${cluster.hosts}`),
    `the Cluster announces 127.0.0.1:${port}, which cannot be reached: ` +
      `connect ECONNREFUSED 127.0.0.1:${port}`,
  );
  await using nowhere = await startClusterOn({ masters: [undefined] });
  assertEquals(
    await problemOf(`redis+cluster://${nowhere.hosts}`),
    "it announces no address: expected cluster-announce-ip",
  );
  await using alone = await startRedis();
  const problem = await problemOf(`redis+cluster://${alone.host}:${alone.port}`);
  assertEquals(problem, "ERR This instance has cluster support disabled");
});

test("redisStore() shows nothing that a server quotes of a command", async () => {
  const settings = ["hello", "auth", "evalsha"].map((name) => `rename-command ${name} ""`);
  await using alone = await startRedis({ settings });
  await using cluster = await startClusterOn({ masters: [undefined, undefined], settings });
  for (const hosts of [`redis://${alone.host}:${alone.port}`, `redis+cluster://${cluster.hosts}`]) {
    for (const [url, name] of [[hosts, "evalsha"], [hosts.replace("//", "//:secret@"), "auth"]]) {
      await using store = scoped(redisStore(`${url}`));
      const error = await assertRejects(
        () => store.set("secret", json("secret")),
        StoreUnavailable,
      );
      assertMatch(error.message, new RegExp(`: ERR unknown command .${name}.$`));
      assert(!/secret/.test(inspect(error, { depth: 9 })), inspect(error, { depth: 9 }));
    }
  }
});

test("redisStore() watches on a server that does not know HELLO", async () => {
  const settings = ['rename-command hello ""'];
  await using server = await startRedis({ settings });
  const store = redisStore(`redis://${server.host}:${server.port}`);
  const { changes } = await store.watch("");
  const again = await store.watch(""); // over the same connection, which is tested
  await store.set("a", json(1));
  for (const reader of [changes.getReader(), again.changes.getReader()]) {
    assertEquals((await reader.read()).value?.key, "a");
    await reader.cancel();
  }
  await store.close();
  await using cluster = await startClusterOn({ masters: [undefined, undefined], settings });
  await using other = scoped(redisStore(`redis+cluster://${cluster.hosts}`));
  await other.set("a", json(1));
  const error = await assertRejects(() => other.watch(""), StoreUnavailable);
  assertMatch(error.message, /: a watch in a Cluster needs HELLO, which its servers do not know$/);
});

Deno.test("redisStore() says that a server closes each connection", async () => {
  for (const isAtOnce of [true, false]) {
    const server = createServer((socket) => {
      socket.on("error", () => {}); // "close" follows
      socket.on("data", () => socket.end()); // without a reset, since all is read
      if (isAtOnce) socket.end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    for (const scheme of ["redis", "redis+cluster"]) {
      assertEquals(await problemOf(`${scheme}://127.0.0.1:${port}`), "it closes the connection");
    }
    assertEquals(
      await problemOf(`redis+sentinel://127.0.0.1:${port}/mymaster`),
      'the Sentinels name no master "mymaster": they close the connection',
    );
    const closed = once(server, "close");
    server.close();
    await closed;
  }
});

/** Returns the rule that docs/SCALING.md gives for a user, of the kind that it is for. */
async function documentedRule(): Promise<string> {
  const page = await Deno.readTextFile(new URL("../docs/SCALING.md", import.meta.url));
  const [rule] = /^user counter on .*(\n {2}.*)*/m.exec(page) ?? [];
  assert(rule !== undefined);
  return rule.replaceAll(/\s+/g, " ");
}

/** Does all that a store can do. */
async function useAll(store: Store): Promise<void> {
  const { changes } = await store.watch("");
  const reader = changes.getReader();
  const { revision } = await store.set("a", json(1), { ttl: 60, ifRevision: null });
  assertEquals((await reader.read()).value?.entry?.value, "1");
  await store.set("a", json(2), { ifRevision: revision });
  await store.setAll(new Map([["{x}b", json(1)], ["{x}c", json(1)]]));
  assertEquals(await store.get("nothing"), null);
  await store.check();
  assertEquals((await store.list("")).keys.sort(), ["a", "{x}b", "{x}c"]);
  const { next } = await store.list("", { limit: 1 });
  if (next !== null) await store.list("", { after: next });
  for (const key of ["a", "{x}b", "{x}c"]) assert(await store.delete(key));
  await reader.cancel();
}

/** Uses a key whose slot moves from the second master of a Cluster to the first. */
async function useMovingSlot(store: Store, [to, from]: [Server, Server]): Promise<void> {
  const idOf = async (server: Server) => (await cli(server, "CLUSTER", "MYID")).trim();
  const setSlot = (server: Server, ...state: string[]) =>
    cli(server, "CLUSTER", "SETSLOT", `${slotOf("counter:{y}")}`, ...state);
  assertEquals(await setSlot(to, "IMPORTING", await idOf(from)), "OK\n");
  assertEquals(await setSlot(from, "MIGRATING", await idOf(to)), "OK\n");
  try {
    await store.set("{y}", json(1));
    assertEquals((await store.get("{y}"))?.value, "1");
    assert(await store.delete("{y}"));
  } finally {
    for (const server of [from, to]) await setSlot(server, "STABLE");
  }
}

test("redisStore() needs no more rights than docs/SCALING.md gives its user", async () => {
  const rule = await documentedRule();
  await using alone = await startRedis({ settings: [rule] });
  await using cluster = await startClusterOn({
    masters: [undefined, undefined],
    settings: [rule],
  });
  const masters = cluster.servers as [Server, Server];
  const printed: unknown[] = [];
  const { warn, error } = console;
  console.warn = console.error = (...values) => printed.push(values);
  const [, password] = />(\S+)/.exec(rule) ?? [];
  const urls = [
    `redis://counter:${password}@${alone.host}:${alone.port}/0?prefix=counter:`,
    `redis+cluster://counter:${password}@${cluster.hosts}?prefix=counter:`,
  ];
  const useStore = async (url: string, use: (store: Store) => Promise<void>) => {
    const store = redisStore(url, { deadline: 5000 });
    try {
      await use(store);
    } finally {
      await store.close();
    }
  };
  const works = (url: string) =>
    useStore(url, async (store) => {
      await useAll(store);
      if (url === urls[1]) await useMovingSlot(store, masters);
    });
  try {
    for (const url of urls) await works(url);
    for (const [right] of rule.matchAll(/[+~&]\S+/g)) {
      const [servers, url = ""] = /asking|cluster\|/.test(right)
        ? [masters, urls[1]]
        : [[alone], urls[0]];
      for (const words of [["FLUSHALL"], ["SCRIPT", "FLUSH"], without(rule, right)]) {
        for (const server of servers) await cli(server, ...words);
      }
      await assertRejects(() => works(url), StoreUnavailable, undefined, `without ${right}`);
      if (/scan|subscribe|cluster/.test(right)) continue; // for listings and watches
      const check = () => useStore(url, (store) => store.check());
      await assertRejects(check, StoreUnavailable, undefined, `a check without ${right}`);
    }
  } finally {
    Object.assign(console, { warn, error });
  }
  assertEquals(printed, []);
});

/** Returns the command that gives the user a rule without one right. */
function without(rule: string, right: string): string[] {
  const [, name = "", ...words] = rule.split(" ");
  return ["ACL", "SETUSER", name, "reset", ...words.filter((word) => word !== right)];
}
