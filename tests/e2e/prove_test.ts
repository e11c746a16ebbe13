/** A minute of `deno task prove`: clients and browsers while services are killed, frozen and cut off. */
import { assert, assertEquals } from "@std/assert";
import { DISK } from "../helpers/disk.ts";
import { REDIS } from "../helpers/redis_servers.ts";
import { testWith } from "../helpers/programs.ts";
import { prove } from "../prove/main.ts";
import { clusterSetup, redisSetup, sqliteSetup } from "../prove/setups.ts";

const SECONDS = 12;

for (
  const [name, programs, start] of [
    ["one SQLite file", DISK, sqliteSetup],
    ["one Redis", REDIS, redisSetup],
    ["a Redis Cluster", REDIS, clusterSetup],
  ] as const
) {
  testWith(
    [...programs],
    `two services on ${name} keep every promise while they fail`,
    async () => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      await using setup = await start();
      const { violations, calls, pages, faults } = await prove(setup, SECONDS, seed);
      assertEquals(violations, [], `seed ${seed}: ${faults.join(", ")}`);
      assert(calls > 100 && pages > 10 && faults.length > 2, `${calls} calls, ${pages} pages`);
    },
  );
}
