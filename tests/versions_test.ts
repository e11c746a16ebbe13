/**
 * What cookies, entries and Redis hold, as it was written before: two versions that run at once share
 * them (docs/DEPLOY.md). Who changes a text here breaks that, and says so in CHANGELOG.md.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { CookieSessionStore, KeyValueSessionStore } from "../sessions.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { redisStore } from "../stores/redis/store.ts";
import { testWith } from "./helpers/programs.ts";
import { cli, REDIS, startRedis } from "./helpers/redis_servers.ts";
import { scoped } from "./helpers/scoped.ts";
import { UUID4 } from "./helpers/http.ts";

const KEY = "a secret key of both versions";
const NOW = 1_800_000_000_000;
const now = () => NOW;
const DATA = { count: 1 };

Deno.test("two versions read and write the same signed and encrypted cookies", async () => {
  const signed = new CookieSessionStore(KEY, { now });
  const cookies = [
    [signed, "eyJjb3VudCI6MX0.a0nSAA.oAHLZzcLJDWJ-FjkHRZ06cDKOmR81ZjHpt1y2vXSyXE"],
    [signed.named("prefs"), "eyJjb3VudCI6MX0.a0nSAA.pR46sUzD6JL9YavD8nWEe_fuoY3LTsPGZODeAnM_GXw"],
  ] as const;
  for (const [store, cookie] of cookies) {
    assertEquals((await store.create(DATA)).cookie, cookie);
    assertEquals((await store.load(cookie))?.data, DATA);
  }
  const encrypted = new CookieSessionStore(KEY, { now, encrypt: true });
  const cookie = "AABrSdIA9BcJoyblzk1DyVMMf2lJFs6WecwIcSg3XIOqaorndzF4m-J6RDEqrNLEt2ZaFskPPLNO";
  assertEquals((await encrypted.load(cookie))?.data, DATA);
  const fresh = (await encrypted.create(DATA)).cookie;
  assertEquals([fresh.slice(0, 7), fresh.length], [cookie.slice(0, 7), cookie.length]);
});

Deno.test("two versions find the same entries of sessions", async () => {
  await using memory = scoped(memoryStore({ now }));
  const id = "2eb8d128-fbc6-4830-ad63-c12653a55203";
  const key = "d1802a48231d75083d129e699f770c9f26458bdc7058fddbcf6aae54eb83bf8c";
  const text = json({ ...DATA, _created: NOW / 1000 });
  const options = { now, absoluteLifetime: 1_000_000 };
  const hashed = new KeyValueSessionStore(memory, { ...options, hashIds: true });
  await memory.set(key, text);
  assertEquals((await hashed.load(id))?.data, DATA);
  await hashed.rotate(id);
  const { keys } = await memory.list("");
  const moved = keys.filter((it) => !it.startsWith(key));
  assertEquals([keys.length, moved.length], [2, 1]);
  assertEquals((await memory.get(`${key}.rotated`))?.value, "true");
  assertEquals((await memory.get(moved[0] ?? ""))?.value, text);

  const plain = new KeyValueSessionStore(memory, options).named("prefs");
  const { cookie } = await plain.create(DATA);
  assertMatch(cookie, new RegExp(`^${UUID4}$`));
  assertEquals((await memory.get(`prefs:${cookie}`))?.value, text);
});

testWith(REDIS, "two versions read and write the same entries of Redis", async () => {
  await using redis = await startRedis();
  await using store = scoped(redisStore(`redis://127.0.0.1:${redis.port}/0?prefix=p:`));
  await cli(redis.port, "SET", "p:old", '0f6b2c1e-6d0e-4a57-9f55-d2f7e1b0a001 - {"count":1}');
  await cli(
    redis.port,
    "SET",
    "p:late",
    '0f6b2c1e-6d0e-4a57-9f55-d2f7e1b0a002 4102444800000 {"count":2}',
    "PXAT",
    "4102444800000",
  );
  const old = {
    key: "old",
    value: json(DATA),
    revision: "0f6b2c1e-6d0e-4a57-9f55-d2f7e1b0a001",
    expires: null,
  };
  assertEquals(await store.get("old"), old);
  assertEquals((await store.get("late"))?.expires, 4102444800000);
  await store.set("new", json(DATA));
  await store.set("brief", json(DATA), { ttl: 60 });
  assertMatch(await cli(redis.port, "GET", "p:new"), /^[\w-]{36} - \{"count":1\}\n$/);
  assertMatch(await cli(redis.port, "GET", "p:brief"), /^[\w-]{36} \d{13} \{"count":1\}\n$/);
});
