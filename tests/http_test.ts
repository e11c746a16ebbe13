/** The store of a key-value service: the conformance suite, and what it sends and how it closes. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { httpStore } from "../stores/http/store.ts";
import { json, parseJson } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { InvalidArgument, RevisionConflict, StoreUnavailable } from "../stores/store.ts";
import { openWithClock, servedStore, storeConformance } from "./conformance/store.ts";
import { answeredBy, CALLS, gated, isUnavailable, PATIENT } from "./helpers/http_store.ts";
import { scoped } from "./helpers/scoped.ts";

storeConformance("httpStore over kv() in memory", {
  ordered: true,
  open: () => openWithClock((now) => servedStore(memoryStore({ now }))),
});

storeConformance("httpStore over kv() on SQLite", {
  ordered: true,
  open: () =>
    openWithClock((now) => {
      const below = sqliteStore(":memory:", { now });
      const app = kv(below);
      const store = httpStore("http://localhost", {
        fetch: async (input, init) => await app.request(String(input), init),
      });
      const close = async () => {
        await store.close();
        await below.close();
        // A stream of changes may still begin to pause, for a millisecond, though nobody reads it.
        await delay(5);
      };
      return { ...store, close };
    }),
});

Deno.test("httpStore() returns the current entry of a conflict, with every digit", async () => {
  const answer = '[{"status":412,"value":{"n":1.10},"revision":"r2","expires":1700000000000}]';
  const { store } = answeredBy(() => new Response(answer));
  const error = await assertRejects(() => store.set("a", json(1), { ifRevision: "r1" }), Error);
  assert(error instanceof RevisionConflict);
  assertEquals(error.current, {
    key: "a",
    value: json(parseJson('{"n":1.10}')),
    revision: "r2",
    expires: 1_700_000_000_000,
  });
  await store.close();
});

Deno.test("httpStore() sends nothing for an invalid argument", async () => {
  const { store, urls } = answeredBy(() => Response.json([]));
  await assertRejects(() => store.get(""), InvalidArgument);
  await assertRejects(() => store.set("a", json(1), { ttl: 0 }), InvalidArgument);
  await assertRejects(() => store.setAll(new Map([["..", json(1)]])), InvalidArgument);
  await assertRejects(() => store.delete("\ud800"), InvalidArgument);
  await assertRejects(() => store.list("", { limit: 0 }), InvalidArgument);
  assertEquals(urls.length, 0);
  await store.close();
});

Deno.test("httpStore() sends requests under the path of its URL", async () => {
  const urls: string[] = [];
  const fetch: typeof globalThis.fetch = (input) => {
    urls.push(String(input));
    return Promise.reject(new Error("not sent"));
  };
  for (const url of ["http://localhost/kv", "http://localhost/kv//"]) {
    await using store = scoped(httpStore(url, { fetch, deadline: PATIENT }));
    for (const [, call] of CALLS) await assertRejects(() => call(store), StoreUnavailable);
  }
  const expected = ["/", "/?prefix=&limit=1000", "/", "/", "/"];
  assertEquals(urls, [...expected, ...expected].map((path) => `http://localhost/kv${path}`));
});

Deno.test("httpStore() finishes pending writes before it closes", async () => {
  const { store, below, bodies, open } = gated();
  const first = store.set("a", json(1));
  while (bodies.length === 0) await delay(1);
  const waiting = [store.set("b", json(2)), store.setAll(new Map([["c", json(3)]]))];
  let closed = false;
  const close = store.close().then(() => {
    closed = true;
  });
  await isUnavailable(store.set("d", json(4)), "unchanged", /^The store is closed$/);
  await delay(20);
  assertEquals(closed, false);
  open();
  await close;
  assertEquals((await below.list("")).keys, ["a", "b", "c"]);
  await Promise.all([first, ...waiting, store.close()]);
  for (const [, call] of CALLS) {
    await isUnavailable(call(store), "unchanged", /^The store is closed$/);
  }
  await below.close();
});

Deno.test("httpStore() waits for every request under way before it closes", async () => {
  const gates: PromiseWithResolvers<void>[] = [];
  const { store } = answeredBy(async () => {
    const gate = Promise.withResolvers<void>();
    gates.push(gate);
    await gate.promise;
    return Response.json([{ status: 200, value: 1, revision: "r", expires: null }]);
  });
  const calls = [store.get("a")];
  while (gates.length < 1) await delay(1);
  calls.push(store.delete("b"));
  while (gates.length < 2) await delay(1);
  let closed = false;
  const close = store.close().then(() => {
    closed = true;
  });
  gates[0]?.resolve();
  await calls[0];
  await delay(20);
  assertEquals(closed, false);
  gates[1]?.resolve();
  await Promise.all([close, ...calls]);
});

Deno.test("httpStore() closes if pending writes fail", async () => {
  const { store } = answeredBy(() => Promise.reject(new TypeError("gone")));
  const write = isUnavailable(store.set("a", json(1)), "unknown", /cut the connection$/);
  await store.close();
  await write;
});
