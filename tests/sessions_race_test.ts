/** Requests of several processes that meet in one session, in every order that fast-check finds. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { KeyValueSessionStore } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { Browser, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";

const PROCESSES = 3;
const step = fc.record({
  process: fc.nat({ max: PROCESSES - 1 }),
  path: fc.constantFrom("/count", "/count", "/count", "/rotate", "/destroy"),
});

/** A store whose calls begin, and whose answers arrive, when the scheduler says so. */
function scheduledStore(store: Store, scheduler: fc.Scheduler): Store {
  const turn = () => scheduler.schedule(Promise.resolve());
  return {
    ...store,
    async get(...args) {
      await turn();
      const entry = await store.get(...args);
      await turn();
      return entry;
    },
    async set(...args) {
      await turn();
      const written = await store.set(...args);
      await turn();
      return written;
    },
    async delete(...args) {
      await turn();
      const removed = await store.delete(...args);
      await turn();
      return removed;
    },
  };
}

Deno.test("no order of updates, rotations and resets loses an update or brings a session back", async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.array(step, { maxLength: 8 }), async (scheduler, steps) => {
      await using memory = scoped(memoryStore());
      const first = new Browser(testApp({ store: new KeyValueSessionStore(memory) }));
      await first.post("/count");
      const id = first.cookie ?? "";
      const store = scheduledStore(memory, scheduler);
      const apps = Array.from(
        { length: PROCESSES },
        () => testApp({ store: new KeyValueSessionStore(store) }),
      );

      const answers = await scheduler.waitFor(Promise.all(steps.map(async ({ process, path }) => {
        const browser = new Browser(apps[process] as ReturnType<typeof testApp>);
        browser.cookie = id;
        const response = await browser.request("POST", path);
        const count = path === "/count" && response.status === 200
          ? (await response.json() as { count: number }).count
          : null;
        return { path, status: response.status, cookie: browser.cookie, count };
      })));

      const rotated = answers.filter(({ path, cookie }) => path === "/rotate" && cookie !== id);
      const destroyed = answers.some(({ path, status }) => path === "/destroy" && status === 303);
      assert(rotated.length <= 1, "one rotation succeeds");
      assert(!(rotated.length === 1 && destroyed), "of a rotation and a reset one succeeds");
      // Every update that was acknowledged under the id is in the session, and no other.
      const kept = answers.filter(({ cookie, count }) => cookie === id && count !== null);
      assertEquals(new Set(kept.map(({ count }) => count)).size, kept.length);
      const living = rotated[0]?.cookie ?? id;
      const entry = await memory.get(living);
      if (destroyed) assertEquals(entry, null, "a reset session does not come back");
      else assertEquals(entry?.value, `{"count":${kept.length + 1}}`);
      // An update that found no session has begun one of its own.
      for (const { cookie, count } of answers) {
        if (count !== null && cookie !== id) assertEquals(count, 1);
      }
    }),
    { numRuns: 300, interruptAfterTimeLimit: 60_000 },
  );
});
