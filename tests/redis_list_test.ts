/** Pages of the keys in Redis, of a server whose table grows and shrinks between two steps of SCAN. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import type { Redis } from "ioredis";
import { listPage } from "../stores/redis/list.ts";
import { InvalidArgument } from "../stores/store.ts";

/** What the server does in one step: how many keys it gives, and how far it then goes back. */
const step = fc.record({ given: fc.nat({ max: 25 }), back: fc.nat({ max: 40 }) });

Deno.test("listPage() gives each key once, however SCAN gives them", async () => {
  const happened = { "went back": 0, "did not fit": 0, "gave nothing": 0, "next page": 0 };
  const runs = fc.record({
    count: fc.nat({ max: 200 }),
    limit: fc.integer({ min: 1, max: 12 }),
    removals: fc.nat({ max: 2 }),
    steps: fc.array(step, { minLength: 1, maxLength: 50, size: "max" }),
  });
  await fc.assert(
    fc.asyncProperty(runs, async ({ count, limit, removals, steps }) => {
      const keys = Array.from({ length: count }, (_, i) => `p:${i}`);
      let calls = 0;
      let furthest = 0;
      const server = {
        info: () => Promise.resolve("run_id:abc\r\n"),
        scan(cursor: string) {
          const { given, back } = steps[calls % steps.length] ?? { given: 0, back: 0 };
          const from = Math.max(Number(cursor) - 1, 0);
          // It comes to an end whatever the steps are.
          const to = from + Math.max(given, ++calls % 4 === 0 ? 1 : 0);
          const again = to > furthest ? Math.min(back, to) : 0;
          furthest = Math.max(furthest, to);
          if (given === 0) happened["gave nothing"]++;
          if (given > limit) happened["did not fit"]++;
          happened["went back"] += again;
          const some = keys.slice(from, to).filter((key) => !removed.has(key));
          return Promise.resolve([String(to < count ? to - again + 1 : 0), some]);
        },
        exists: (key: string) => Promise.resolve(removed.has(key) ? 0 : 1),
      };
      const removed = new Set<string>();
      const found: string[] = [];
      let after: string | undefined;
      do {
        const page = await listPage(server as unknown as Redis, "p:", after, limit, 1000);
        assert(page.keys.length <= limit);
        assertEquals(page.keys.filter((key) => removed.has(key)), []);
        if (page.next !== null) happened["next page"]++;
        found.push(...page.keys);
        after = page.next ?? undefined;
        // Other programs remove keys that are still to come.
        for (const key of keys.slice(found.length + 1, found.length + 1 + removals)) {
          removed.add(key);
        }
      } while (after !== undefined);
      assertEquals(found, keys.filter((key) => found.includes(key) || !removed.has(key)));
    }),
    { numRuns: 200 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 20, `${what}: ${times}`);
});

Deno.test("listPage() gives cursors that fit into a URL, however long the keys are", async () => {
  // Most keys of the server are another program's, so that the next page cannot be foreseen.
  const all = Array.from({ length: 3000 }, (_, i) => {
    const isOurs = i > 1000 && (i < 1500 || i % 10 === 0);
    return isOurs ? `p:${i}`.padEnd(1000, "\x01") : `other:${i}`;
  });
  const keys = all.filter((key) => key.startsWith("p:"));
  const server = {
    exists: () => Promise.resolve(1),
    info: () => Promise.resolve("run_id:abc\r\n"),
    scan(cursor: string, _match: string, _pattern: string, _count: string, count: number) {
      const to = Number(cursor) + count;
      const names = all.slice(Number(cursor), to).filter((key) => key.startsWith("p:"));
      return Promise.resolve([String(to < all.length ? to : 0), names]);
    },
  };
  const found: string[] = [];
  let after: string | undefined;
  do {
    const page = await listPage(server as unknown as Redis, "p:", after, 50, 1000);
    found.push(...page.keys);
    after = page.next ?? undefined;
    assert((after?.length ?? 0) < 10_000, `a cursor of ${after?.length} characters`);
  } while (after !== undefined);
  assertEquals(found, keys);
});

Deno.test("listPage() rejects a cursor with keys of a client, outside the prefix or thousands", async () => {
  const server = {
    exists: () => Promise.resolve(1),
    info: () => Promise.resolve("run_id:abc\r\n"),
    scan: () => Promise.resolve(["0", ["p:1", "p:2", "p:3"]]),
  };
  const list = (after?: string) => listPage(server as unknown as Redis, "p:", after, 2, 1000);
  const { next } = await list();
  const put = (ahead: unknown) =>
    next?.replace(/[^.]*$/, Buffer.from(JSON.stringify(ahead)).toString("base64url"));
  assertEquals((await list(put(["p:3"]))).keys, ["p:3"]);
  for (const ahead of [["other:1"], ["p:3", "other:1"], ["p"], Array(2000).fill("p:3"), [1], {}]) {
    await assertRejects(() => list(put(ahead)), InvalidArgument, 'expected the "next"');
  }
});
