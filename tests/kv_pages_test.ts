/** The service over pages of any length: lists, dumps, backups and deletes beside a sorted Map. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import type { JsonText, Store } from "../stores/store.ts";
import { scoped } from "./helpers/scoped.ts";

const KEYS = ["a", "b", "ab", "b/"].flatMap((start) =>
  Array.from({ length: 8 }, (_, i) => `${start}${"é".repeat(i % 2)}${i}`)
);
const NDJSON = { Accept: "application/x-ndjson" };

Deno.test("kv() lists, dumps and deletes as a sorted Map does, for pages of any length", async () => {
  const happened = { pages: 0, listed: 0, dumped: 0, deleted: 0, "restored lines": 0 };
  const key = fc.constantFrom(...KEYS);
  const call = fc.record({
    op: fc.constantFrom("set", "list", "page", "dump", "backup", "delete", "restore"),
    keys: fc.uniqueArray(key, { minLength: 1, maxLength: KEYS.length, size: "max" }),
    prefix: fc.constantFrom("a", "b", "ab", "b/", "z", ""),
    limit: fc.integer({ min: 1, max: 9 }),
  });
  const calls = fc.array(call, { maxLength: 12, size: "max" });
  await fc.assert(
    fc.asyncProperty(calls, fc.integer({ min: 1, max: 7 }), async (calls, longest) => {
      await using memory = scoped(memoryStore());
      const store: Store = {
        ...memory,
        list(prefix, { after, limit = longest } = {}) {
          if (after !== undefined) happened.pages++;
          return memory.list(prefix, { after, limit: Math.min(limit, longest) });
        },
      };
      const app = kv(store);
      const model = new Map<string, JsonText>();
      const request = async (path: string, init: RequestInit = {}) => {
        const response = await app.request(path, init);
        const text = await response.text();
        assertEquals(response.status, 200, text);
        return text;
      };
      for (const [i, { op, keys, prefix, limit }] of calls.entries()) {
        const under = [...model.keys()].filter((key) => key.startsWith(prefix)).sort();
        const query = `prefix=${encodeURIComponent(prefix)}`;
        if (op === "set" || op === "restore") {
          const members = keys.map((key) => `${JSON.stringify(key)}:${i}`);
          for (const key of keys) model.set(key, json(i));
          const isLines = op === "restore";
          const body = isLines ? members.map((it) => `{${it}}`).join("\n") : `{${members}}`;
          const type = isLines ? "application/x-ndjson" : "application/json";
          await request("/", { method: "POST", body, headers: { "Content-Type": type } });
          if (isLines) happened["restored lines"] += keys.length;
        } else if (op === "list") {
          assertEquals(JSON.parse(await request(`/?${query}`)), { keys: under });
          happened.listed += under.length;
        } else if (op === "page") {
          const found: string[] = [];
          for (let next: string | null = ""; next !== null;) {
            const after: string = next && `&after=${encodeURIComponent(next)}`;
            const page = JSON.parse(await request(`/?${query}&limit=${limit}${after}`));
            assert(page.keys.length <= limit);
            found.push(...page.keys);
            next = page.next;
          }
          assertEquals(found, under);
        } else if (op === "dump") {
          const lines = under.map((key) => `{${JSON.stringify(key)}: ${model.get(key)}}\n`);
          assertEquals(await request(`/?${query}`, { headers: NDJSON }), lines.join(""));
          happened.dumped += under.length;
        } else if (op === "backup") {
          const lines = (await request(`/?${query}&backup`)).split("\n").slice(0, -1);
          const expected = under.map((key) => {
            return { key, value: Number(model.get(key)), expires: null };
          });
          assertEquals(lines.map((line) => JSON.parse(line)), expected);
        } else {
          const deleted = JSON.parse(await request(`/?${query}&all`, { method: "DELETE" }));
          assertEquals(deleted, { deleted: under.length });
          for (const key of under) model.delete(key);
          happened.deleted += under.length;
        }
      }
      assertEquals((await memory.list("")).keys, [...model.keys()].sort());
    }),
    { numRuns: 150 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 200, `${what}: ${times}`);
});
