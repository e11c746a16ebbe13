/** Sessions over Redis: the conformance suite, and counters in several processes. */
import { assert, assertEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { KeyValueSessionStore } from "../sessions.ts";
import { redisStore } from "../stores/redis/store.ts";
import { sessionsConformance } from "./conformance/sessions.ts";
import { Browser, testApp } from "./helpers/session_app.ts";
import { isInstalled, startScript, testWith } from "./helpers/programs.ts";
import { REDIS, type Server, startRedis } from "./helpers/redis_servers.ts";

const UPDATES = 1000;
const PROCESSES = 4;
const AT_ONCE = 16;

let server: Server;
const url = (prefix: string) => `redis://127.0.0.1:${server.port}/?prefix=${prefix}:`;
const open = () => redisStore(url("sessions"), { deadline: 30_000 });

Deno.test.beforeAll(async () => {
  if (REDIS.every(isInstalled)) server = await startRedis();
});
Deno.test.afterAll(async () => await server?.[Symbol.asyncDispose]());

sessionsConformance("KeyValueSessionStore over Redis", {
  needs: REDIS,
  clock: false,
  open: ({ now: _, ...lifetimes }) => {
    const redis = open();
    return { store: new KeyValueSessionStore(redis, lifetimes), close: () => redis.close() };
  },
});

testWith(REDIS, "KeyValueSessionStore over Redis ends an idle session", async () => {
  const redis = open();
  const browser = new Browser(testApp({ store: new KeyValueSessionStore(redis, { lifetime: 2 }) }));
  assertEquals(await browser.post("/count"), { count: 1 });
  await delay(2100);
  assertEquals(await browser.get("/read"), { count: 0 });
  assertEquals((await redis.list("")).keys.includes(browser.cookie ?? ""), false);
  await redis.close();
});

testWith(
  REDIS,
  `${UPDATES} loads of one session over ${PROCESSES} counters on one Redis count ${UPDATES}`,
  async () => {
    const env = { PORT: "0", USE_SESSION_STORE: "true", KV_URL: url("counters") };
    const counters = Array.from(
      { length: PROCESSES },
      () => startScript("counter.ts", [], { env }),
    );
    const urls = await Promise.all(
      counters.map(async (it) => (await it.printed(/counter: (http\S+)/))[1] ?? ""),
    );
    // On a busy machine the store may not answer in time: a load with a 503 may have counted or not.
    const load = async (i: number, cookie = "") => {
      const response = await fetch(urls[i % PROCESSES] ?? "", { headers: { Cookie: cookie } });
      const page = await response.text();
      if (response.status === 503) return null;
      assertEquals(response.status, 200, page);
      const id = response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
      return { id, count: Number(/Count: (\d+)/.exec(page)?.[1]) };
    };

    const { id } = await load(0) ?? await load(1) ?? { id: "" };
    const counts = new Set<number>();
    let next = 0;
    let unanswered = 0;
    await Promise.all(Array.from({ length: AT_ONCE }, async () => {
      while (next < UPDATES) {
        const loaded = await load(next++, id);
        if (loaded === null) unanswered++;
        else {
          assertEquals(loaded.id, id);
          counts.add(loaded.count);
        }
      }
    }));
    assertEquals(counts.size, UPDATES - unanswered, "each load has seen a count of its own");
    const last = await load(0, id) ?? await load(1, id);
    const least = counts.size + 2;
    const count = last?.count ?? 0;
    assert(count >= least && count <= least + unanswered, `${count}, ${unanswered} unanswered`);
    for (const counter of counters) assertEquals(await counter.stop(), 0);
  },
);
