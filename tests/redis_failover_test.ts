/** A Redis store whose master is killed under load, in a Cluster and with Sentinels. */
import { assert, assertEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { json } from "../stores/json/text.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { allPages } from "./conformance/store.ts";
import { eventually, testWith } from "./helpers/programs.ts";
import { DEADLINE, open, SLACK, SteadyClock, works } from "./helpers/redis_faults.ts";
import { cli, REDIS, startCluster, startSentinels } from "./helpers/redis_servers.ts";

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
  assert((await allPages(store, "0-")).flat().length > 0);
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

testWith(REDIS, "redisStore() follows the Sentinels to a new master, and no sooner", async () => {
  for (let attempt = 1;; attempt++) {
    await using sentinels = await startSentinels();
    await using store = open(`redis+sentinel://${sentinels.hosts}/mymaster`);
    await eventually("a store that works", works(store));
    const [master, , sentinel] = sentinels.servers;
    const before = await connectionOf(master?.port ?? 0);
    await delay(DEADLINE); // the Sentinels are asked twice in this time
    assertEquals(await connectionOf(master?.port ?? 0), before);
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

/** Returns the number of the connection by which a store has written to a server. */
async function connectionOf(port: number): Promise<string | undefined> {
  return /^id=(\d+) .* cmd=eval/m.exec(await cli(port, "CLIENT", "LIST"))?.[1];
}
