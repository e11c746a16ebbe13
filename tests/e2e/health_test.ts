/** What health checks say while a store is full, from the store to the counter. */
import { assertEquals } from "@std/assert";
import { httpStore } from "../../stores/http/store.ts";
import { json } from "../../stores/json/text.ts";
import { redisStore } from "../../stores/redis/store.ts";
import { StoreFull } from "../../stores/store.ts";
import { startServer, testWith } from "../helpers/programs.ts";
import { cli, REDIS, startRedis } from "../helpers/redis_servers.ts";
import { scoped } from "../helpers/scoped.ts";

testWith(REDIS, "a full Redis fails the checks of the service and of the counter", async () => {
  await using redis = await startRedis();
  const url = `redis://127.0.0.1:${redis.port}`;
  await using store = scoped(redisStore(url));
  await using kv = await startServer("kv.ts", { env: { DBM: url } });
  const env = { USE_SESSION_STORE: "true", KV_URL: kv.url };
  await using counter = await startServer("counter.ts", { env });
  await using service = scoped(httpStore(kv.url));
  const checks = async () => [
    await nameOfError(store.check()),
    (await answerOf(`${kv.url}/?health`)).status,
    await nameOfError(service.check()),
    await answerOf(`${counter.url}/health`),
    (await answerOf(counter.url)).status,
  ];
  const well = [null, 200, null, { status: 200, text: '{"status":"ok"}' }, 200];
  assertEquals(await checks(), well);

  for (let i = 0; i < 2; i++) await store.set(`big${i}`, json("x".repeat(1_000_000)));
  await cli(redis.port, "CONFIG", "SET", "maxmemory", "1mb");
  const full = { status: 503, text: '{"status":"full"}' };
  assertEquals(await checks(), [StoreFull.name, 507, StoreFull.name, full, 503]);

  await cli(redis.port, "CONFIG", "SET", "maxmemory", "0");
  assertEquals(await checks(), well);
});

async function nameOfError(call: Promise<unknown>): Promise<string | null> {
  return await call.then(() => null, (error) => error.constructor.name);
}

async function answerOf(url: string) {
  const response = await fetch(url);
  return { status: response.status, text: await response.text() };
}
