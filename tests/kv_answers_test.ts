/** How answers are sent: what is there before the status, and what ends a body. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { post, put, readProblem, test } from "./helpers/kv_app.ts";
import { scoped } from "./helpers/scoped.ts";

const EVENTS = { Accept: "text/event-stream" };
const NDJSON = { Accept: "application/x-ndjson" };

/** A service over a store that counts the watches which are open, and the calls of each kind. */
function observed() {
  const memory = memoryStore();
  const seen = { watches: 0, gets: 0, lists: 0 };
  const store: Store = {
    ...memory,
    get(key) {
      seen.gets++;
      return memory.get(key);
    },
    list(...args) {
      seen.lists++;
      return memory.list(...args);
    },
    async watch(...args) {
      const watch = await memory.watch(...args);
      seen.watches++;
      const reader = watch.changes.getReader();
      const watched = new ReadableStream({
        async pull(controller) {
          const { value, done } = await reader.read();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        async cancel() {
          seen.watches--;
          await reader.cancel();
        },
      }, { highWaterMark: 0 });
      return { ...watch, changes: watched };
    },
  };
  return { store, app: kv(store), seen, [Symbol.asyncDispose]: () => memory.close() };
}

Deno.test("kv() ends a watch whose client leaves while no change comes", async () => {
  await using t = observed();
  const { body } = await t.app.request("/", { headers: EVENTS });
  const reader = body?.getReader();
  await reader?.read();
  const pending = reader?.read();
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(t.seen.watches, 1);
  await reader?.cancel();
  await pending;
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(t.seen.watches, 0);
});

Deno.test("kv() leaves nothing open and fetches nothing for a HEAD request", async () => {
  await using t = observed();
  await t.store.setAll(new Map(Array.from({ length: 2500 }, (_, i) => [`k${i}`, json(i)])));
  for (const headers of [EVENTS, EVENTS, EVENTS, NDJSON, {}]) {
    const head = await t.app.request("/", { method: "HEAD", headers });
    assertEquals([head.status, head.body], [200, null]);
    const type = "Accept" in headers ? headers.Accept : "application/json";
    assertEquals(head.headers.get("Content-Type"), type);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assertEquals(t.seen, { watches: 0, gets: 0, lists: 1 });
  assertMatch(await (await t.app.request("/?metrics")).text(), /^kv_watchers 0$/m);
});

Deno.test("kv() answers a failure of the first part of a body with its status", async () => {
  await using memory = scoped(memoryStore());
  await memory.setAll(new Map(["a", "b"].map((key) => [key, json(1)])));
  const fail = () => Promise.reject(new StoreUnavailable("gone", { outcome: "unchanged" }));
  const requests: [Partial<Store>, string, RequestInit][] = [
    [{ list: fail }, "/", { headers: NDJSON }],
    [{ get: fail }, "/", { headers: NDJSON }],
    [{ watch: fail }, "/", { headers: EVENTS }],
    [{ list: fail }, "/", {}],
  ];
  for (const [broken, path, init] of requests) {
    const log = await logged(async () => {
      const response = await kv({ ...memory, ...broken }).request(path, init);
      assertEquals(response.status, 503);
      assertEquals(response.headers.get("Retry-After"), "1");
      await readProblem(response);
    });
    assertEquals(log, "kv: gone");
  }
});

Deno.test("kv() sends a date of HTTP for an entry that lives longer than dates last", async () => {
  await using memory = scoped(memoryStore());
  await memory.set("a", json(1));
  for (const expires of [253402300800000, 9e18]) {
    const get = async () => ({ key: "a", value: json(1), revision: "r", expires });
    const { headers } = await kv({ ...memory, get }).request("/a");
    assertEquals(headers.get("Expires"), "Fri, 31 Dec 9999 23:59:59 GMT");
  }
});

test("takes any path but the root for a key, whatever its name", async ({ app }) => {
  const paths = [
    "/key",
    "/%0A",
    "/a%0D%0Ab",
    "/health",
    "/%3Fhealth",
    "//",
    "/a//b/",
    "/*",
    "/:key",
  ];
  for (const path of paths) {
    const key = decodeURIComponent(path.slice(1));
    assertEquals((await app.request(path, put("1"))).status, 201, path);
    assertEquals(await (await app.request(path)).json(), { [key]: 1 });
    assertEquals((await app.request(path, { method: "HEAD" })).status, 200);
    assertEquals((await app.request(`${path}?ttl=9`, { method: "PATCH" })).status, 200);
    assertEquals((await app.request(path, post("1"))).status, 405);
    assertEquals((await app.request(path, { method: "DELETE" })).status, 200);
  }
  assert((await (await app.request("/")).json()).keys.length === 0);
});

test("lets no cache keep an answer, but an entry that it asks for again", async ({ app, store }) => {
  const kept = async (path: string, init: RequestInit = {}) => {
    const response = await app.request(path, init);
    await response.body?.cancel();
    return response.headers.get("Cache-Control");
  };
  await store.set("a", json(1));
  for (const path of ["/", "/?limit=1", "/?backup", "/?health", "/?metrics", "/?openapi", "/?x"]) {
    for (const method of ["GET", "HEAD"]) {
      assertEquals(await kept(path, { method }), "no-store", path);
    }
  }
  const gone = { ...EVENTS, "Last-Event-ID": "unknown" };
  for (const headers of [NDJSON, { Accept: "text/html" }, EVENTS, gone]) {
    assertEquals(await kept("/", { headers }), "no-store");
  }
  assertEquals(await kept("/none", { headers: { Accept: "text/plain" } }), "no-store");
  assertEquals(await kept("/a", { method: "POST" }), "no-store");
  assertEquals(await kept("/a", { headers: { "If-Match": '"x"' } }), "no-store");
  // A proxy that compressed it would weaken its tag, with which no write succeeds.
  assertEquals(await kept("/a"), "no-cache, max-age=0, no-transform");
});
