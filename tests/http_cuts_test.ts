/** A service whose connection is cut at any moment: no write is done twice, and no outcome is wrong. */
import { assert, assertEquals } from "@std/assert";
import { kv } from "../kv.ts";
import { KeyValueSessionStore } from "../sessions.ts";
import { httpStore } from "../stores/http/store.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { CUTS, CuttingProxy } from "./helpers/cutting_proxy.ts";
import { CALLS, PATIENT, READS } from "./helpers/http_store.ts";
import { runToEnd } from "./helpers/programs.ts";
import { Browser, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";

/** A service behind a proxy that cuts, and how many calls its store has executed. */
async function cuttable() {
  const below = memoryStore();
  const executed = { get: 0, set: 0, setAll: 0, delete: 0, list: 0 };
  const counting: Store = { ...below };
  for (const name of Object.keys(executed) as (keyof typeof executed)[]) {
    Object.assign(counting, {
      [name]: (...args: never[]) => {
        executed[name]++;
        return (below[name] as (...args: never[]) => unknown)(...args);
      },
    });
  }
  const server = serve(kv(counting).fetch);
  const proxy = await CuttingProxy.start(server.addr.port);
  return {
    below,
    executed,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await server.shutdown();
      await below.close();
    },
  };
}

/** The ways to send: by connections of our own, and by a `fetch`, as in a worker. */
const TRANSPORTS = { connections: {}, fetch: { fetch: globalThis.fetch } };

for (const [transport, options] of Object.entries(TRANSPORTS)) {
  for (const [name, call] of CALLS) {
    Deno.test(`httpStore() over ${transport} executes a ${name} that is cut at most once`, async () => {
      await using service = await cuttable();
      const { proxy, executed, below } = service;
      for (const cut of CUTS) {
        for (const isReused of [false, true]) {
          await using store = scoped(httpStore(proxy.url, { ...options, deadline: PATIENT }));
          await below.set("a", json(0));
          if (isReused) await store.list("");
          const before = executed[name as keyof typeof executed];
          proxy.cut(cut);
          const error = await call(store).then(() => null, (error) => error);
          const where = `cut ${cut}, ${isReused ? "reused" : "new"}: ${error}`;
          assert(proxy.hasCut);
          const isRead = READS.some(([read]) => read === name);
          const count = executed[name as keyof typeof executed] - before;
          const wasSent = cut === "before the answer" || cut === "within the answer";
          if (isRead) {
            // A fetch may send a GET again.
            assert(error === null || error.outcome === "unchanged", where);
          } else {
            assert(error instanceof StoreUnavailable, where);
            assertEquals(count, wasSent ? 1 : 0, where);
            assertEquals(error.outcome, "unknown", where);
          }
          for (const [, other] of CALLS) await other(store);
        }
      }
    });
  }
}

Deno.test("a session that is updated while the connection is cut counts once or not at all", async () => {
  await using service = await cuttable();
  const { proxy, below } = service;
  for (const isCached of [false, true]) {
    for (const cut of CUTS) {
      for (let n = 1;; n++) {
        const store = httpStore(proxy.url, { deadline: PATIENT });
        const own = new KeyValueSessionStore(store);
        const { cookie } = await own.create({ count: 0 });
        const sessions = isCached ? own : new KeyValueSessionStore(store);
        proxy.cut(cut, n);
        const add = async (data: unknown) => ({ count: (data as { count: number }).count + 1 });
        const error = await sessions.update(cookie, add).then(() => null, (error) => error);
        const { count } = JSON.parse((await below.get(cookie))?.value ?? "{}");
        const where = `request ${n}, cut ${cut}: count ${count}, ${error}`;
        if (error === null) assertEquals(count, 1, where);
        else if (error.outcome === "unchanged") assertEquals(count, 0, where);
        else assert(count === 0 || count === 1, where);
        const isOver = !proxy.hasCut;
        while (!proxy.hasCut) await store.get("a").catch(() => null);
        await store.close();
        if (isOver) break;
      }
    }
  }
});

Deno.test("a session whose rotation is cut at any step is still there for its browser", async () => {
  await using service = await cuttable();
  const { proxy } = service;
  for (const cut of CUTS) {
    const steps = [];
    for (let n = 1;; n++) {
      const store = httpStore(proxy.url, { deadline: PATIENT });
      const browser = new Browser(testApp({ store: new KeyValueSessionStore(store) }));
      await browser.post("/set", { count: 7 });
      proxy.cut(cut, n);
      const { status } = await browser.request("POST", "/rotate");
      const isOver = !proxy.hasCut;
      while (!proxy.hasCut) await store.get("a").catch(() => null);
      const where = `request ${n}, cut ${cut}: ${status}`;
      assertEquals(await browser.get("/read"), { count: 7 }, where);
      assertEquals(await browser.post("/count"), { count: 8 }, where);
      steps.push(status);
      await store.close();
      if (isOver) break;
    }
    assert(steps.length > 4, `${steps}`);
    assertEquals(steps.at(-1), 200);
  }
});

Deno.test("dump.ts --restore writes no line twice if the connection is cut, and says so", async () => {
  await using service = await cuttable();
  const { proxy, below, executed } = service;
  const file = await Deno.makeTempFile();
  const lines = Array.from({ length: 2500 }, (_, i) => `{"k${i}":${i}}`);
  await Deno.writeTextFile(file, lines.join("\n"));
  const restore = () =>
    runToEnd(Deno.execPath(), ["run", "--quiet", "-A", "dump.ts", "--restore", file, proxy.url]);
  for (const cut of CUTS) {
    for (let n = 1; n <= 3; n++) {
      executed.setAll = 0;
      proxy.cut(cut, n);
      const { code, stderr } = await restore();
      const where = `request ${n}, cut ${cut}: ${stderr}`;
      assert(proxy.hasCut, where);
      assertEquals(code, 1, where);
      const wasSent = cut === "before the answer" || cut === "within the answer";
      assertEquals(executed.setAll, wasSent ? n : n - 1, where);
    }
  }
  assertEquals((await restore()).code, 0);
  assertEquals(await below.count?.(), 2500);
  await Deno.remove(file);
});
