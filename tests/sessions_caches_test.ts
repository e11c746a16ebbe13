/** Session stores with caches of any size beside what they would do without. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { CookieSessionStore } from "../sessions/cookie_store.ts";
import { KeyValueSessionStore } from "../sessions/key_value_store.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { testClock } from "./helpers/clock.ts";
import { scoped } from "./helpers/scoped.ts";

Deno.test("KeyValueSessionStore counts exactly, for any calls of two apps with any caches", async () => {
  const happened = { cached: 0, evicted: 0, outdated: 0, ended: 0 };
  const call = fc.record({
    op: fc.constantFrom("create", "update", "update", "update", "keep", "load", "destroy"),
    app: fc.nat({ max: 1 }),
    session: fc.nat(),
  });
  // An entry takes about 300 bytes.
  const caches = fc.tuple(fc.integer({ min: 1, max: 1500 }), fc.integer({ min: 1, max: 1500 }));
  await fc.assert(
    fc.asyncProperty(
      caches,
      fc.array(call, { maxLength: 60, size: "max" }),
      async (caches, calls) => {
        await using memory = scoped(memoryStore());
        let [gets, sets] = [0, 0];
        const store: Store = {
          ...memory,
          get: (key) => (gets++, memory.get(key)),
          set: (...args) => (sets++, memory.set(...args)),
        };
        const apps = caches.map((cacheBytes) =>
          new KeyValueSessionStore(store, { lifetime: 60 }, { cacheBytes })
        );
        const ids: string[] = [];
        const model = new Map<string, { count: number; writer: number }>();
        for (const { op, app, session } of calls) {
          const sessions = apps[app];
          const id = ids[session % ids.length];
          const current = id === undefined ? undefined : model.get(id);
          [gets, sets] = [0, 0];
          if (op === "create") {
            const created = await sessions?.create({ count: 0 });
            ids.push(created?.cookie ?? "");
            model.set(created?.cookie ?? "", { count: 0, writer: app });
          } else if (id === undefined) continue;
          else if (op === "load") {
            const data = current && { count: current.count };
            assertEquals((await sessions?.load(id))?.data, data);
          } else if (op === "destroy") {
            await sessions?.destroy(id);
            if (model.delete(id)) happened.ended++;
          } else {
            const change = async (data: unknown) => {
              return op === "keep" ? null : { count: (data as { count: number }).count + 1 };
            };
            const updated = await sessions?.update(id, change);
            if (current && op === "update") {
              current.count++;
              if (sets > 1) happened.outdated++;
              else if (gets === 0) happened.cached++;
              else if (current.writer === app) happened.evicted++;
              current.writer = app;
            }
            assertEquals(updated?.data, current && { count: current.count });
          }
        }
        for (const id of ids) {
          const { count } = model.get(id) ?? {};
          const data = count === undefined ? undefined : { count };
          for (const app of apps) assertEquals((await app.load(id))?.data, data);
        }
      },
    ),
    { numRuns: 300 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

Deno.test("CookieSessionStore reads a cookie as if it had not seen it before, however many it remembers", async () => {
  const happened = { remembered: 0, forgotten: 0, "too old": 0, forged: 0 };
  const call = fc.record({
    op: fc.constantFrom("create", "load", "load", "load", "forge", "pass"),
    n: fc.nat(),
  });
  const secret = "a secret key of 16 characters or more";
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(call, { maxLength: 60, size: "max" }),
      async (remembered, calls) => {
        const { now, pass } = testClock();
        const options = { lifetime: 60, now };
        const store = new CookieSessionStore(secret, options, { remembered });
        const cookies: string[] = [];
        let recent: string[] = [];
        for (const { op, n } of calls) {
          if (op === "create") cookies.push((await store.create({ n })).cookie);
          else if (op === "pass") pass(n % 40);
          const made = cookies[n % cookies.length];
          if (op === "create" || op === "pass" || made === undefined) continue;
          const cookie = op === "forge" ? made.replace(/.$/, n % 2 ? "_" : "-") : made;
          const expected = await new CookieSessionStore(secret, options).load(cookie);
          assertEquals(await store.load(cookie), expected);
          if (op === "forge") happened.forged++;
          else if (expected === null) happened["too old"]++;
          else happened[recent.includes(cookie) ? "remembered" : "forgotten"]++;
          recent = [cookie, ...recent.filter((it) => it !== cookie)].slice(0, remembered);
        }
      },
    ),
    { numRuns: 300 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});
