/**
 * A Redis store while servers are cut off from the others and still reach the app, which is when
 * they go on as if nothing had happened.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { json } from "../stores/json/text.ts";
import { type Change, type Store, StoreUnavailable } from "../stores/store.ts";
import { allPages } from "./conformance/store.ts";
import { hasNamespaces, type Machine, Network } from "./helpers/network.ts";
import { eventually, isInstalled, testWith } from "./helpers/programs.ts";
import { open, works } from "./helpers/redis_faults.ts";
import {
  cli,
  REDIS,
  type Server,
  startClusterOn,
  startSentinels,
} from "./helpers/redis_servers.ts";

/** Registers a test with machines: where there cannot be any, it is ignored, even with `CI=true`. */
function testApart(name: string, run: () => Promise<void>): void {
  if (!isInstalled("ip") || hasNamespaces) return testWith([...REDIS, "ip"], name, run);
  Deno.test.ignore(`${name} (needs network namespaces, as root)`, run);
}

const KEYS = Array.from({ length: 60 }, (_, i) => `k${i}`);

/** Waits until all keys can be written. */
async function writesAll(store: Store): Promise<void> {
  await eventually("a store that writes every key", async () => {
    const writes = await Promise.allSettled(KEYS.map((key) => store.set(key, json(1))));
    return writes.every(({ status }) => status === "fulfilled");
  });
}

/** A watch, read to its end. */
class Watcher {
  readonly seen = new Set<string>();
  /** Why it ended. */
  error: unknown;
  readonly #changes: ReadableStream<Change>;
  readonly #over: Promise<void>;

  private constructor(changes: ReadableStream<Change>) {
    this.#changes = changes;
    this.#over = this.#read().catch((error) => this.error = error);
  }

  static async start(store: Store): Promise<Watcher> {
    return new Watcher((await store.watch("")).changes);
  }

  async #read(): Promise<void> {
    for await (const { key } of this.#changes) this.seen.add(key);
  }

  /** Whether it has seen all keys, or has ended with an error. */
  readonly knows = async (): Promise<boolean> => {
    return this.error instanceof StoreUnavailable || KEYS.every((key) => this.seen.has(key));
  };
}

/** Stores with a watch each: some of them listen on the first server. */
async function openWatched(url: string) {
  const stores = Array.from({ length: 10 }, () => open(url));
  for (const store of stores) await writesAll(store);
  const watchers = await Promise.all(stores.map((store) => Watcher.start(store)));
  return { stores, watchers };
}

/** Writes all keys, which each watch has to report unless it ends with an error; so has a new one. */
async function watchesKnow(
  store: Store,
  { stores, watchers }: Awaited<ReturnType<typeof openWatched>>,
) {
  await writesAll(store);
  for (const watcher of watchers) await eventually("a watch that knows", watcher.knows, 30);
  for (const it of stores) {
    let again: Watcher | undefined;
    await eventually("a new watch", async () => {
      again = await Watcher.start(it).catch(() => undefined);
      return again !== undefined;
    });
    await writesAll(it);
    await eventually("a new watch that knows", async () => again?.knows() ?? false, 30);
    assertEquals(again?.error, undefined);
  }
  await Promise.all(stores.map((it) => it.close()));
}

/**
 * Writes one entry after another, in the first third of a Cluster's slots, until `replica` has the
 * last one. Prints what is lost: what the old master acknowledged after the cut.
 */
async function measureLoss(
  name: string,
  store: Store,
  replica: Server,
  cut: () => Promise<void>,
  isSucceeded: () => Promise<boolean>,
): Promise<void> {
  const acknowledged: { at: number; key: string }[] = [];
  let isOver = false;
  const load = (async () => {
    for (let i = 0; !isOver; i++) {
      const key = `{b}w${i}`;
      await store.set(key, json(i)).then(
        () => acknowledged.push({ at: performance.now(), key }),
        () => delay(5),
      );
    }
  })();
  await delay(200);
  const begun = performance.now();
  let succeeded = Infinity;
  try {
    await cut();
    await eventually("another master", isSucceeded);
    succeeded = performance.now();
    await eventually("a write to the new master", async () => {
      const written = acknowledged.at(-1)?.key ?? "none";
      return (await cli(replica, "EXISTS", written)) === "1\n";
    });
  } finally {
    isOver = true;
    await load;
  }
  const kept = new Set((await cli(replica, "KEYS", "*w*")).split("\n"));
  const lost = acknowledged.filter(({ key }) => !kept.has(key));
  const last = Math.max(begun, ...lost.map(({ at }) => at));
  const seconds = (time: number) => ((time - begun) / 1000).toFixed(1);
  console.log(
    `${name}: another master ${seconds(succeeded)} s after the cut; ${lost.length} of ` +
      `${acknowledged.length} acknowledged writes are lost, the last ${
        seconds(last)
      } s after the cut`,
  );
  assert(last < succeeded + 1000, "it stayed with the old master");
}

testApart("redisStore() leaves a master that is cut off from its Cluster", async () => {
  await using network = await Network.start(4);
  const [cut, ...others] = network.machines as [Machine, Machine, Machine, Machine];
  const [replica, ...masters] = others;
  await using cluster = await startClusterOn({ masters: [cut, ...masters], replicas: [replica] });
  await using store = open(`redis+cluster://${cluster.hosts}`);
  await writesAll(store);
  const watched = await openWatched(`redis+cluster://${cluster.hosts}`);
  const successor = cluster.servers[3] as Server;
  await measureLoss("Cluster", store, successor, () => network.cut(cut), async () => {
    return /^master/.test(await cli(successor, "ROLE"));
  });
  await writesAll(store);
  await watchesKnow(store, watched);
  assert((await allPages(store, "")).flat().length >= KEYS.length);
});

testWith(REDIS, "redisStore() leaves a server that was removed from its Cluster", async () => {
  await using cluster = await startClusterOn({
    masters: [undefined, undefined, undefined],
    slots: 300,
  });
  const [removed, other] = cluster.servers as [Server, Server];
  const id = (await cli(removed, "CLUSTER", "MYID")).trim();
  await using store = open(`redis+cluster://${cluster.hosts}`);
  await writesAll(store);
  const watched = await openWatched(`redis+cluster://${cluster.hosts}`);
  const address = `${other.host}:${other.port}`;
  await cli("--cluster", "rebalance", address, "--cluster-weight", `${id}=0`);
  assert(/CLUSTER RESET/.test(await cli("--cluster", "del-node", address, id)));
  await writesAll(store);
  await watchesKnow(store, watched);
});

testApart(
  "redisStore() leaves a master that the Sentinels no longer name, though it answers",
  async () => {
    await using network = await Network.start(3);
    const [cut] = network.machines as [Machine];
    await using sentinels = await startSentinels(undefined, undefined, network.machines);
    const [old, replica, ...all] = sentinels.servers as [Server, Server, Server, Server, Server];
    await using store = open(`redis+sentinel://${sentinels.hosts}/mymaster`);
    await eventually("a store that works", works(store));
    const watcher = await Watcher.start(store);

    // The Sentinel beside the old master names that for as long as the cut lasts.
    await measureLoss("Sentinels", store, replica, () => network.cut(cut), async () => {
      const named = await Promise.all(
        all.slice(1).map((it) => cli(it, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")),
      );
      return named.every((it) => it.startsWith(replica.host));
    });
    assert(/^slave|^master/.test(await cli(old, "ROLE")), "the old one answers");
    await eventually("the end of the watch", watcher.knows);
    assert(watcher.error instanceof StoreUnavailable);
  },
);

testApart(
  "redisStore() waits for no machine that is gone when another has taken over",
  async () => {
    const lose = async (network: Network, url: string) => {
      await using store = open(url, 10_000);
      await eventually("a store that works", works(store));
      await network.lose(network.machines[0] as Machine);
      const errors: string[] = [];
      for (let done = 0; done < 20; done++) {
        await store.set(`{b}w${done}`, json(1)).catch((error) => {
          errors.push(error.message);
          done = 0;
          return delay(20);
        });
      }
      assert(errors.length > 0);
      assertEquals(errors.filter((it) => it.includes("no answer within 10000 ms")), []);
    };
    const cases = [
      async () => {
        await using network = await Network.start(4);
        const masters = network.machines.slice(0, 3);
        await using cluster = await startClusterOn({
          masters,
          replicas: network.machines.slice(3),
        });
        await lose(network, `redis+cluster://${cluster.hosts}`);
      },
      async () => {
        await using network = await Network.start(3);
        await using sentinels = await startSentinels(undefined, undefined, network.machines);
        await lose(network, `redis+sentinel://${sentinels.hosts}/mymaster`);
      },
    ];
    await Promise.all(cases.map((run) => run()));
  },
);

testWith(REDIS, "redisStore() lists no part of a Cluster that has lost a master", async () => {
  const masters = [undefined, undefined, undefined];
  const settings = ["cluster-require-full-coverage no"];
  await using cluster = await startClusterOn({ masters, settings });
  const [dead, ...others] = cluster.servers as [Server, Server, Server];
  const id = (await cli(dead, "CLUSTER", "MYID")).trim();
  await using store = open(`redis+cluster://${cluster.hosts}`);
  await writesAll(store);
  assertEquals((await allPages(store, "k")).flat().length, KEYS.length);
  await dead.program.stop("SIGKILL");
  for (
    const forget of [
      async () => {},
      async (it: Server) => void await cli(it, "CLUSTER", "FORGET", id),
    ]
  ) {
    await Promise.all(others.map(forget));
    await eventually("a Cluster that works without it", async () => {
      return /cluster_state:ok/.test(await cli(others[0] as Server, "CLUSTER", "INFO"));
    });
    for (let i = 0; i < 10; i++) {
      await assertRejects(() => store.list("k"), StoreUnavailable);
      await delay(100);
    }
  }
});

testApart("redisStore() soon names an announced address that does not answer", async () => {
  await using network = await Network.start(1);
  const [machine] = network.machines as [Machine];
  const nobody = machine.address.replace(/\d+$/, "250");
  await using cluster = await startClusterOn({
    masters: [machine],
    settings: [`cluster-announce-ip ${nobody}`],
  });
  await using store = open(`redis+cluster://${cluster.hosts}`, 10_000);
  await assertRejects(
    () => store.get("a"),
    StoreUnavailable,
    `the Cluster announces ${nobody}:6379, which cannot be reached`,
  );
});
