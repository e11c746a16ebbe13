/** kv.ts: the root's listings and its page. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Hono } from "hono";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import { StoreUnavailable } from "../stores/store.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { failingListing, JSON_TYPE, readProblem, test } from "./helpers/kv_app.ts";

test("lists the keys, or those under a prefix", async ({ app, store }) => {
  await store.setAll(new Map(["foo", "fa", "bar", 'a"b', "é"].map((key) => [key, json(1)])));
  const cases: [string, string[]][] = [
    ["/", ['a"b', "bar", "fa", "foo", "é"]],
    ["/?prefix=", ['a"b', "bar", "fa", "foo", "é"]],
    ["/?prefix=f", ["fa", "foo"]],
    ["/?prefix=%C3%A9", ["é"]],
    ["/?prefix=nothing", []],
  ];
  for (const [path, keys] of cases) {
    const response = await app.request(path);
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "application/json");
    assertEquals(await response.text(), JSON.stringify({ keys }));
  }
});

test("is served under a path by mount, and refuses route, which would change the key", async ({ app, store }) => {
  const init = { method: "PUT", headers: JSON_TYPE, body: "1" };
  const mounted = new Hono().mount("/kv", app.fetch);
  assertEquals(await (await mounted.request("/kv/key", init)).json(), { key: 1 });
  assertEquals(await (await mounted.request("/kv")).json(), { keys: ["key"] });
  const routed = new Hono().route("/kv", app);
  const errors = captureErrors();
  assertEquals((await routed.request("/kv/key", init)).status, 500);
  assertMatch(errors.end(), /Cannot route to kv\(\): expected app\.mount\(/);
  assertEquals((await store.list("")).keys, ["key"]);
});

test("lists page by page, by next and by Link", async ({ app, store }) => {
  const names = Array.from({ length: 25 }, (_, i) => `p&é ${String(i).padStart(2, "0")}`);
  await store.setAll(new Map(["o", ...names, "q"].map((key) => [key, json(1)])));
  const first = `/?${new URLSearchParams({ prefix: "p", limit: "10" })}`;
  const seen: string[] = [];
  const sizes: number[] = [];
  let path: string | undefined = first;
  while (path !== undefined) {
    const response: Response = await app.request(path);
    assertEquals(response.status, 200);
    const { keys, next } = await response.json() as { keys: string[]; next: string | null };
    // Relative to "/": a proxy may serve it under a path of its own.
    const link = /^<(\?[^>]*)>; rel="next"$/.exec(response.headers.get("Link") ?? "")?.[1];
    assertEquals(link !== undefined, next !== null);
    if (next !== null) {
      const byNext = await app.request(`${first}&after=${encodeURIComponent(next)}`);
      const byLink = await app.request(`/${link}`);
      assertEquals(await byNext.text(), await byLink.text());
    }
    seen.push(...keys);
    sizes.push(keys.length);
    path = link && `/${link}`;
  }
  assertEquals(sizes, [10, 10, 5]);
  assertEquals(seen, names);
});

test("leaves out a Link that a proxy would not pass on", async ({ store }) => {
  const linkTo = async (next: string) => {
    const app = kv({ ...store, list: () => Promise.resolve({ keys: ["a"], next }) });
    const response = await app.request("/?limit=1");
    assertEquals(await response.json(), { keys: ["a"], next });
    return response.headers.get("Link")?.length;
  };
  assertEquals(await linkTo("a".repeat(7000)), 7037);
  assertEquals(await linkTo("a".repeat(8000)), undefined);
});

test("says how many entries there are, with a page of all of them", async ({ app, store }) => {
  await store.setAll(new Map(["a", "b", "c"].map((key) => [key, json(1)])));
  const total = async (path: string) => (await app.request(path)).headers.get("X-Total-Count");
  assertEquals(await total("/?limit=2"), "3");
  assertEquals(await total("/?limit=2&prefix=a"), null);
  const { count: _, ...cannotCount } = store;
  const response = await kv(cannotCount).request("/?limit=2");
  assertEquals(response.headers.get("X-Total-Count"), null);
});

test("continues after a key without a limit, in pages of 1,000", async ({ app, store }) => {
  const names = Array.from({ length: 2500 }, (_, i) => `k${String(i).padStart(4, "0")}`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  const response = await app.request("/?after=k0099");
  assertEquals(response.status, 200);
  assertMatch(response.headers.get("Link") ?? "", /limit=1000&after=/);
  assertEquals((await response.json()).keys, names.slice(100, 1100));
});

test("lists all of 5,000 keys as one JSON text", async ({ app, store }) => {
  const names = Array.from({ length: 5000 }, (_, i) => `k"${String(i).padStart(4, "0")}\\é`);
  await store.setAll(new Map(names.map((key) => [key, json(1)])));
  await store.set("other", json(1));
  const response = await app.request("/?prefix=k");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  assertEquals(response.headers.get("Link"), null);
  assertEquals(await response.json(), { keys: names });
});

test("aborts the response when a long listing fails midway", async (t) => {
  await t.store.setAll(new Map(Array.from({ length: 2500 }, (_, i) => [`k${i}`, json(i)])));
  const response = await kv(failingListing(t.store)).request("/");
  assertEquals(response.status, 200);
  await assertRejects(() => response.text(), StoreUnavailable);
});

test("answers HEAD for a long listing without reading further pages", async ({ store }) => {
  await store.setAll(new Map(Array.from({ length: 2500 }, (_, i) => [`k${i}`, json(i)])));
  const head = await kv(failingListing(store)).request("/", { method: "HEAD" });
  assertEquals(head.status, 200);
  assertEquals(head.headers.get("Content-Type"), "application/json");
  assertEquals(head.headers.get("Content-Length"), null);
});

test("rejects an invalid limit", async ({ app }) => {
  for (const limit of ["0", "-1", "1.5", "1001", "abc", ""]) {
    const response = await app.request(`/?limit=${limit}`);
    assertEquals(response.status, 400, limit);
    assertMatch((await readProblem(response)).detail, /limit|Cannot list ".*" keys: expected/);
  }
});

test("ignores an Accept of over 2,048 characters", async ({ app }) => {
  const typeFor = async (accept: string) => {
    const response = await app.request("/", { headers: { Accept: accept } });
    await response.body?.cancel();
    return response.headers.get("Content-Type");
  };
  assertEquals(await typeFor("application/x-ndjson,text/x"), "application/x-ndjson");
  assertEquals(await typeFor(`application/x-ndjson${",text/x".repeat(300)}`), "application/json");
});

test("shows browsers a page that runs only its own script, and others the keys", async ({ app }) => {
  const accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
  const response = await app.request("/?prefix=a", { headers: { Accept: accept } });
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "text/html; charset=UTF-8");
  assertEquals(response.headers.get("Vary"), "Accept");
  assertMatch(
    response.headers.get("Content-Security-Policy") ?? "",
    /^default-src 'none'; .*script-src 'sha256-[^']+'; connect-src 'self'; require-trusted-types/,
  );
  const html = await response.text();
  assertMatch(html, /<h1>Key-value store<\/h1>/);
  assertMatch(html, /<script type="module">/);
  for (const other of ["*/*", "application/json", "text/plain"]) {
    const keys = await app.request("/?prefix=a", { headers: { Accept: other } });
    assertEquals(keys.headers.get("Content-Type"), "application/json", other);
    assertEquals(await keys.json(), { keys: [] });
  }
});
