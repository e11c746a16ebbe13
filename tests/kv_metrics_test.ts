/** Health and metrics of the service. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import parsePrometheus from "parse-prometheus-text-format";
import { kv } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json/text.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { readProblem } from "./helpers/kv_app.ts";
import { scoped } from "./helpers/scoped.ts";
import { replaced } from "./helpers/replaced.ts";

Deno.test("kv() reports its own health and its store's", async () => {
  const store = memoryStore();
  const app = kv(store);
  const well = await app.request("/?health");
  assertEquals(well.status, 200);
  assertEquals(well.headers.get("Cache-Control"), "no-store");
  assertEquals(await well.json(), { status: "ok" });
  const odd = await app.request("/?health=1");
  assertEquals(odd.status, 400);
  assertMatch((await readProblem(odd)).detail, /health: expected no value/);
  await store.close();
  const log = await logged(async () => {
    const ill = await app.request("/?health");
    assertEquals(ill.status, 503);
    assertEquals(ill.headers.get("Retry-After"), "1");
  });
  assertMatch(log, /closed/);
});

/** The type of each metric in Prometheus' text format, as an independent parser reads it. */
function typesOf(text: string): Record<string, string> {
  const families: { name: string; type: string }[] = parsePrometheus(text);
  return Object.fromEntries(families.map(({ name, type }) => [name, type]));
}

/** The samples of a text in Prometheus' format, each under its name and labels. */
function samples(text: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of text.trimEnd().split("\n")) {
    if (line === "" || /^# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))$/.test(line)) {
      continue;
    }
    const [, name, value] =
      /^([a-z_]+(?:\{(?:[a-z]+="[^"\\\n]*",?)+\})?) ([\d.e+-]+)$/.exec(line) ?? [];
    assert(name !== undefined && !values.has(name), line);
    values.set(name, Number(value));
  }
  return values;
}

Deno.test("kv() counts requests and store operations for Prometheus", async () => {
  const memory = memoryStore();
  let isBroken = false;
  const store: Store = {
    ...memory,
    async get(key) {
      if (isBroken) throw new StoreUnavailable("It is gone", { outcome: "unchanged" });
      return await memory.get(key);
    },
    async check() {
      if (isBroken) throw new StoreUnavailable("It is gone", { outcome: "unchanged" });
    },
    async count() {
      if (isBroken) throw new StoreUnavailable("It is gone", { outcome: "unchanged" });
      return await memory.count?.() ?? 0;
    },
  };
  await store.set("b", json(1));
  const app = kv(store);
  const before = await app.request("/?metrics");
  assertMatch(before.headers.get("Content-Type") ?? "", /^text\/plain; version=0\.0\.4/);
  const text = await before.text();
  assertEquals(typesOf(text), {
    kv_entries: "GAUGE",
    kv_held_bytes: "GAUGE",
    kv_request_duration_seconds: "HISTOGRAM",
    kv_requests_total: "COUNTER",
    kv_store_operations_total: "COUNTER",
    kv_store_up: "GAUGE",
    kv_watchers: "GAUGE",
  });
  assertEquals(samples(text).get("kv_store_up"), 1);
  assertEquals(samples(text).get("kv_entries"), 1);

  const set = { method: "PUT", body: "1", headers: { "Content-Type": "application/json" } };
  await app.request("/a", set);
  await app.request("/a", set);
  await app.request("/a", { ...set, headers: { ...set.headers, "If-None-Match": "*" } });
  await app.request("/a");
  await app.request("/a", { method: "BREW" });
  isBroken = true;
  await logged(async () => void await app.request("/a"));
  const after = samples(await (await app.request("/?metrics")).text());
  for (
    const [name, value] of [
      ['kv_requests_total{method="PUT",status="201"}', 1],
      ['kv_requests_total{method="PUT",status="200"}', 1],
      ['kv_requests_total{method="PUT",status="412"}', 1],
      ['kv_requests_total{method="GET",status="503"}', 1],
      ['kv_requests_total{method="other",status="405"}', 1],
      ['kv_store_operations_total{operation="set",outcome="ok"}', 2],
      ['kv_store_operations_total{operation="get",outcome="unavailable"}', 1],
      ['kv_request_duration_seconds_count{method="PUT"}', 3],
      ["kv_watchers", 0],
      ["kv_store_up", 0],
      ["kv_entries", undefined],
    ] as const
  ) assertEquals(after.get(name), value, name);
  await store.close();
});

Deno.test("kv() measures how long requests take, in seconds", async () => {
  let passed = 0;
  await using memory = scoped(memoryStore());
  const app = kv({
    ...memory,
    get(key) {
      passed += 50;
      return memory.get(key);
    },
  });
  using _now = replaced(performance, { now: () => passed });
  await app.request("/a", { method: "HEAD" });
  const text = await (await app.request("/?metrics")).text();
  const sum = /^kv_request_duration_seconds_sum\{method="HEAD"\} (\S+)$/m.exec(text)?.[1];
  assertEquals(sum, "0.05");
});
