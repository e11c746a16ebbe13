import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { MAX_BODY_BYTES, MAX_OPERATIONS } from "../stores/wire.ts";
import { type HttpOptions, httpStore } from "../stores/http.ts";
import { memoryStore } from "../stores/memory.ts";
import { sqliteStore } from "../stores/sqlite.ts";
import { json, parseJson } from "../stores/json_text.ts";
import {
  ChangesLost,
  InvalidArgument,
  MAX_VALUE_BYTES,
  RevisionConflict,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";
import { openWithClock, servedStore, storeConformance } from "./conformance/store.ts";
import { eventually, freePort } from "./helpers/programs.ts";

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
      return { ...store, close: () => store.close().then(() => below.close()) };
    }),
});

/** A deadline, in milliseconds, that is longer than any stall of the machine. */
const PATIENT = 240_000;

/** A deadline that a test waits for; half of it is longer than most stalls of the machine. */
const HANG_DEADLINE = 8000;

const READS: [string, (store: Store) => Promise<unknown>][] = [
  ["get", (store) => store.get("a")],
  ["list", (store) => store.list("")],
];
const WRITES: [string, (store: Store) => Promise<unknown>][] = [
  ["set", (store) => store.set("a", json(1))],
  ["setAll", (store) => store.setAll(new Map([["a", json(1)]]))],
  ["delete", (store) => store.delete("a")],
];
const CALLS = [...READS, ...WRITES];

/** Checks that a call rejects with StoreUnavailable. */
async function isUnavailable(
  call: Promise<unknown>,
  outcome: "unchanged" | "unknown",
  message: RegExp,
): Promise<void> {
  const error = await assertRejects(() => call, Error);
  assert(error instanceof StoreUnavailable, String(error));
  assertMatch(error.message, message);
  assertEquals(error.outcome, outcome, error.message);
}

/** A store whose requests a function answers, and their URLs and bodies. */
function answeredBy(
  answer: (url: string, init: RequestInit) => Response | Promise<Response>,
  { deadline = PATIENT, ...options }: HttpOptions = {},
) {
  const urls: string[] = [];
  const bodies: string[] = [];
  const fetch: typeof globalThis.fetch = async (input, init = {}) => {
    urls.push(String(input));
    bodies.push(typeof init.body === "string" ? init.body : "");
    return await answer(String(input), init);
  };
  return {
    store: httpStore("http://localhost:5100", { deadline, ...options, fetch }),
    urls,
    bodies,
  };
}

/** A store over a service in memory, whose requests wait until `open` was called. */
function gated() {
  const below = memoryStore();
  const app = kv(below);
  const gate = Promise.withResolvers<void>();
  const answered = answeredBy(async (url, init) => {
    await gate.promise;
    return await app.request(url, init);
  });
  return { ...answered, below, open: gate.resolve };
}

/** Never answers; rejects when the request's signal aborts. */
function hang(_url: string, { signal }: RequestInit): Promise<Response> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

/** A listener that reads one request from each connection, sends a text and closes it. */
function rawServer(text: string) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const done = (async () => {
    for await (const connection of listener) {
      const decoder = new TextDecoder();
      const buffer = new Uint8Array(4096);
      let request = "";
      while (!isWhole(request)) {
        const count = await connection.read(buffer);
        if (count === null) break;
        request += decoder.decode(buffer.subarray(0, count));
      }
      await connection.write(new TextEncoder().encode(text));
      connection.close();
    }
  })();
  return {
    url: `http://127.0.0.1:${listener.addr.port}`,
    async [Symbol.asyncDispose]() {
      listener.close();
      await done;
    },
  };
}

function isWhole(request: string): boolean {
  const [head = "", body] = request.split("\r\n\r\n");
  const length = /content-length: (\d+)/i.exec(head)?.[1] ?? "0";
  return body !== undefined && body.length >= Number(length);
}

function problem(status: number, members: Record<string, unknown> = {}): Response {
  const body = JSON.stringify({ title: "Error", status, detail: "a detail", ...members });
  return new Response(body, {
    status,
    headers: { "Content-Type": "application/problem+json" },
  });
}

/** A store over a service that sends these events and then ends the stream or keeps it open. */
function eventsOf(text: string, { ends = true, ...options }: EventsOptions = {}) {
  return answeredBy((_url, { signal }) => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        if (ends) controller.close();
        else signal?.addEventListener("abort", () => controller.error(signal.reason));
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }, options);
}

interface EventsOptions extends HttpOptions {
  ends?: boolean;
}

// ---- A service that is not there -----------------------------------------------------------

Deno.test("httpStore() says that a stopped service cannot be reached", async () => {
  const url = `http://127.0.0.1:${freePort()}`;
  const store = httpStore(url, { deadline: PATIENT });
  for (const [, call] of CALLS) {
    await isUnavailable(
      call(store),
      "unchanged",
      new RegExp(`^${url} cannot be reached: .*refused`),
    );
  }
  await store.close();
  const blocked = httpStore("http://127.0.0.1:1");
  await isUnavailable(blocked.set("a", json(1)), "unchanged", /: Requests to port 1 are blocked$/);
  await blocked.close();
});

Deno.test("httpStore() ends calls to a hanging service within the deadline", async () => {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    await request.text();
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode('[{"status":200,')),
    });
    return new Response(body, { headers: { "Content-Type": "application/json" } });
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  const open = [
    () => answeredBy(hang, { deadline: HANG_DEADLINE }).store,
    () => httpStore(url, { deadline: HANG_DEADLINE }),
  ];
  // A store for each call, so that they all hang at once.
  await Promise.all(open.flatMap((openStore) =>
    CALLS.map(async ([name, call]) => {
      const store = openStore();
      const outcome = READS.some(([read]) => read === name) ? "unchanged" : "unknown";
      await isUnavailable(call(store), outcome, /did not answer in time$/);
      await store.close();
    })
  ));
  await server.shutdown();
});

Deno.test("httpStore() does not know the outcome of a write whose connection is cut", async () => {
  const halves = ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "no HTTP at all\r\n\r\n"];
  for (const text of halves) {
    await using server = rawServer(text);
    const store = httpStore(server.url, { deadline: PATIENT });
    for (const [, call] of READS) {
      await isUnavailable(call(store), "unchanged", /cut the connection$/);
    }
    for (const [, call] of WRITES) {
      await isUnavailable(call(store), "unknown", /cut the connection$/);
    }
    await store.close();
  }
});

// ---- Something else that answers -----------------------------------------------------------

Deno.test("httpStore() says that another server is not a key-value service", async () => {
  const html = { headers: { "Content-Type": "text/html" } };
  const location = { Location: "http://localhost:5100/elsewhere" };
  const answers: [() => Response, RegExp][] = [
    [() => new Response("<h1>It works</h1>", html), /it answered no JSON$/],
    [() => new Response(""), /it answered no JSON$/],
    [() => new Response("[{]"), /it answered no JSON$/],
    [
      () => new Response(`[{"value":${"[".repeat(1e5)}1.10${"]".repeat(1e5)}}]`),
      /it answered no JSON$/,
    ],
    [() => Response.json({ ok: true }), /it answered other JSON$/],
    [() => Response.json("text"), /it answered other JSON$/],
    [() => Response.json(null), /it answered other JSON$/],
    [() => Response.json([1]), /it answered other JSON$/],
    [() => Response.json([{ status: "ok" }]), /it answered other JSON$/],
    [() => new Response(null, { status: 204 }), /it answered status 204$/],
    [() => new Response(null, { status: 302, headers: location }), /it answered status 302$/],
    [() => new Response(null, { status: 307, headers: location }), /it answered status 307$/],
    [() => new Response("<h1>Not Found</h1>", { status: 404 }), /it answered status 404$/],
    [() => new Response("<h1>Bad Gateway</h1>", { status: 502 }), /it answered status 502$/],
  ];
  for (const [answer, message] of answers) {
    const { store, urls } = answeredBy(answer);
    for (const [, call] of READS) await isUnavailable(call(store), "unchanged", message);
    for (const [, call] of WRITES) await isUnavailable(call(store), "unknown", message);
    assertEquals(urls.length, CALLS.length);
    await store.close();
  }
});

Deno.test("httpStore() follows no redirect, so that no token goes elsewhere", async () => {
  const below = memoryStore();
  const service = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, kv(below).fetch);
  const { port } = service.addr;
  const redirecting = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => Response.redirect(`http://127.0.0.1:${port}/`, 307),
  );
  const store = httpStore(`http://127.0.0.1:${redirecting.addr.port}`, {
    token: "secret-token",
    deadline: PATIENT,
  });
  for (const [, call] of READS) {
    await isUnavailable(call(store), "unchanged", /is not a key-value service: .* status 307$/);
  }
  for (const [, call] of WRITES) {
    await isUnavailable(call(store), "unknown", /is not a key-value service: .* status 307$/);
  }
  assertEquals((await below.list("")).keys, []);
  await store.close();
  await redirecting.shutdown();
  await service.shutdown();
  await below.close();
});

Deno.test("httpStore() gives no call the answer to another", async () => {
  const one = { status: 200, value: 1, revision: "r", expires: null };
  for (const answers of [[], [one], [one, one, one]]) {
    const { store } = answeredBy(() => Response.json(answers));
    const message = new RegExp(
      `is not a key-value service: it answered ${answers.length} answers$`,
    );
    await Promise.all([
      isUnavailable(store.get("a"), "unchanged", message),
      isUnavailable(store.set("b", json(1)), "unknown", message),
    ]);
    await store.close();
  }
});

Deno.test("httpStore() does not take an answer without a revision for a missing key", async () => {
  const answers = [{ status: 200 }, { status: 200, value: 1 }, { status: 200, revision: "r" }];
  for (const answer of answers) {
    const { store } = answeredBy(() => Response.json([answer]));
    const message = /is not a key-value service: it answered other JSON$/;
    await isUnavailable(store.get("a"), "unchanged", message);
    await isUnavailable(store.set("a", json(1)), "unknown", message);
    await isUnavailable(store.delete("a"), "unknown", message);
    await store.close();
  }
});

// ---- A service that refuses ----------------------------------------------------------------

Deno.test("httpStore() reports a cursor that the service rejects as the caller's mistake", async () => {
  const detail = 'Cannot list after "x": expected the "next" of this listing';
  const problem = { title: "Bad Request", status: 400, detail };
  const { store } = answeredBy(() => Response.json(problem, { status: 400 }));
  const error = await assertRejects(() => store.list("", { after: "x" }), InvalidArgument);
  assertEquals([error.argument, error.message], ["after", detail]);
  await store.close();
});

Deno.test("httpStore() names KV_TOKEN where the service requires another token", async () => {
  const below = memoryStore();
  const app = kv(below, { tokens: ["secret-token"] });
  const answer = async (url: string, init: RequestInit) => await app.request(url, init);
  for (const token of [undefined, "wrong"]) {
    const { store } = answeredBy(answer, { token });
    for (const [, call] of CALLS) {
      await isUnavailable(call(store), "unchanged", /requires another token: set KV_TOKEN$/);
    }
    await store.close();
  }
  const { store } = answeredBy(answer, { token: "secret-token" });
  for (const [, call] of CALLS) await call(store);
  await store.close();
  await below.close();
});

Deno.test("httpStore() passes on the outcome that a 503 states", async () => {
  for (const outcome of ["unchanged", "unknown"] as const) {
    const operation = { status: 503, detail: "a detail", outcome };
    const { store } = answeredBy(() => problem(503, { outcome }));
    const single = answeredBy((url) =>
      new URL(url).search ? problem(503, { outcome }) : Response.json([operation])
    );
    for (const [, call] of READS) {
      await isUnavailable(call(store), "unchanged", /answered 503: a detail$/);
      await isUnavailable(call(single.store), "unchanged", /answered 503: a detail$/);
    }
    for (const [name, call] of WRITES) {
      await isUnavailable(call(store), outcome, /answered 503: a detail$/);
      if (name === "setAll") continue;
      await isUnavailable(call(single.store), outcome, /answered 503: a detail$/);
    }
    await store.close();
    await single.store.close();
  }
});

Deno.test("httpStore() does not know the outcome of an internal error", async () => {
  const whole = answeredBy(() => problem(500)).store;
  for (const [, call] of READS) await isUnavailable(call(whole), "unchanged", /answered 500: /);
  for (const [, call] of WRITES) await isUnavailable(call(whole), "unknown", /answered 500: /);
  const single = answeredBy(() => Response.json([{ status: 500, detail: "a detail" }])).store;
  await isUnavailable(single.get("a"), "unchanged", /answered 500: a detail$/);
  await isUnavailable(single.set("a", json(1)), "unknown", /answered 500: a detail$/);
  await isUnavailable(single.delete("a"), "unknown", /answered 500: a detail$/);
  await whole.close();
  await single.close();
});

Deno.test("httpStore() knows that a rejected write changed nothing", async () => {
  for (const status of [400, 403, 405, 415]) {
    const { store } = answeredBy(() => problem(status));
    for (const [, call] of CALLS) {
      await isUnavailable(call(store), "unchanged", new RegExp(`answered ${status}: a detail$`));
    }
    await store.close();
  }
});

Deno.test("httpStore() tells a full store from a body that is too large", async () => {
  const full = answeredBy(() => problem(507)).store;
  for (const [, call] of WRITES) await assertRejects(() => call(full), StoreFull);
  const single = answeredBy(() => Response.json([{ status: 507, detail: "a detail" }])).store;
  await assertRejects(() => single.set("a", json(1)), StoreFull);
  const large = answeredBy(() => problem(413)).store;
  await assertRejects(() => large.setAll(new Map([["a", json(1)]])), InvalidArgument);
  for (const store of [full, single, large]) await store.close();
});

Deno.test("httpStore() is unavailable if the service answers garbage", async () => {
  const entry = { status: 200, value: 1, revision: "r", expires: null };
  const deep = JSON.parse(`${"[".repeat(600)}${"]".repeat(600)}`);
  const answers: unknown[] = [
    { ...entry, value: deep },
    { ...entry, value: "x".repeat(2 * MAX_VALUE_BYTES) },
    { ...entry, value: undefined },
    { ...entry, revision: 7 },
    ...["", "\u4e00", "a\r\nX: y", 'a"b', "x".repeat(1000)].map((revision) => ({
      ...entry,
      revision,
    })),
    { ...entry, expires: "soon" },
    { ...entry, expires: 1e308 },
    { ...entry, status: "200" },
    { ...entry, status: 299 },
    { status: 200, detail: "done" },
    { status: 413, detail: "too large" },
    { status: 412, detail: "stale" },
    null,
    [],
  ];
  const unavailable = async (call: Promise<unknown>) => {
    const error = await call.then(() => "it was done", (error) => error);
    assert(error instanceof StoreUnavailable, String(error));
  };
  for (const answer of answers) {
    const { store } = answeredBy(() => Response.json([answer]));
    await unavailable(store.get("a"));
    await unavailable(store.delete("a"));
    await store.close();
  }
  for (const answer of answers.slice(3)) {
    const { store } = answeredBy(() => Response.json([answer]));
    await unavailable(store.set("a", json(1)));
    await store.close();
  }
  const conflict = answeredBy(() => Response.json([{ ...entry, status: 412 }])).store;
  await unavailable(conflict.get("a"));
  const large = answeredBy(() => problem(413)).store;
  for (const [, call] of READS) await unavailable(call(large));
  await unavailable(large.set("a", json(1)));
  for (const store of [conflict, large]) await store.close();
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
    const store = httpStore(url, { fetch, deadline: PATIENT });
    for (const [, call] of CALLS) await assertRejects(() => call(store), StoreUnavailable);
    await store.close();
  }
  const expected = ["/", "/?prefix=&limit=1000", "/", "/", "/"];
  assertEquals(urls, [...expected, ...expected].map((path) => `http://localhost/kv${path}`));
});

// ---- How calls travel ----------------------------------------------------------------------

Deno.test("httpStore() sends the calls of one turn as one request", async () => {
  const { store, below, bodies, open } = gated();
  open();
  const [set, got, removed, ...others] = await Promise.all([
    store.set("a", json(parseJson("1.10")), { ttl: 60 }),
    store.get("a"),
    store.delete("b"),
    ...Array.from({ length: 50 }, (_, i) => store.set(`k${i}`, json(i), { ifRevision: null })),
  ]);
  assertEquals(bodies.length, 1);
  assertMatch(bodies[0] ?? "", /^\[\{"op":"put","key":"a","ttl":60,"value":1\.10\},/);
  assertEquals(set.created, true);
  const { created: _, ...entry } = set;
  assertEquals(got, entry);
  assertEquals(removed, null);
  assertEquals(others.map(({ value }) => value), others.map((_, i) => String(i)));
  await store.close();
  await below.close();
});

Deno.test("httpStore() gathers the calls made while a request is under way", async () => {
  const { store, below, bodies, open } = gated();
  const calls = [store.set("a", json(0))];
  while (bodies.length === 0) await delay(1);
  for (let i = 1; i < 10; i++) {
    calls.push(store.set("a", json(i)));
    await delay(1);
  }
  assertEquals(bodies.length, 1);
  open();
  await Promise.all(calls);
  assertEquals(bodies.map((body) => JSON.parse(body).length), [1, 9]);
  assertEquals((await below.get("a"))?.value, "9");
  await store.close();
  await below.close();
});

Deno.test("httpStore() keeps the order of all calls to a key", async () => {
  const { store, below, bodies, open } = gated();
  const calls = [
    store.set("a", json(1)),
    store.setAll(new Map([["a", json(2)]]), { ttl: 60 }),
    store.get("a"),
    store.delete("a"),
    store.set("a", json(3)),
    store.setAll(new Map([["a", json(4)]])),
    store.setAll(new Map([["a", json(5)]])),
    store.get("a"),
  ];
  open();
  const [first, , second, removed, third, , , last] = await Promise.all(calls);
  assertEquals([first, second, removed, third, last].map((entry) => String(entry?.value)), [
    "1",
    "2",
    "2",
    "3",
    "5",
  ]);
  assertEquals(bodies.length, 6);
  await store.close();
  await below.close();
});

Deno.test("httpStore() puts no more operations into a request than the service takes", async () => {
  const { store, below, bodies, open } = gated();
  open();
  await Promise.all(Array.from({ length: 2500 }, (_, i) => store.set(`k${i}`, json(i))));
  const counts = bodies.map((body) => JSON.parse(body).length);
  assertEquals(counts.reduce((sum, count) => sum + count), 2500);
  assert(Math.max(...counts) <= MAX_OPERATIONS, String(counts));
  await store.close();
  await below.close();
});

Deno.test("httpStore() has up to four requests under way, and never two for one key", async () => {
  const { store, below, bodies, open } = gated();
  const calls: Promise<unknown>[] = [];
  const keysOf = (body: string | undefined) =>
    JSON.parse(body ?? "[]").map(({ key }: { key: string }) => key);
  for (const key of ["a", "b", "a", "c", "d", "e"]) {
    calls.push(store.set(key, json(calls.length)));
    await delay(5);
  }
  assertEquals(bodies.map(keysOf), [["a"], ["b"], ["c"], ["d"]]);
  open();
  await Promise.all(calls);
  assertEquals(bodies.slice(4).flatMap(keysOf).sort(), ["a", "e"]);
  assertEquals((await below.get("a"))?.value, "2");
  await store.close();
  await below.close();
});

Deno.test("httpStore() reads no more of an answer than its longest possible length", async () => {
  let sent = 0;
  const chunk = new Uint8Array(64 * 1024).fill(0x20);
  const endless = () =>
    new ReadableStream({ pull: (c) => (sent += chunk.length, c.enqueue(chunk)) });
  for (
    const [status, headers] of [[200, {}], [503, {}], [200, { "Content-Length": "1e12" }]] as const
  ) {
    for (const [, call] of CALLS) {
      sent = 0;
      const { store } = answeredBy(() => new Response(endless(), { status, headers }));
      const error = await assertRejects(() => call(store), StoreUnavailable);
      assertMatch(error.message, /it answered more than \d+ bytes$/);
      assert(sent < 64 * 1024 * 1024, `${sent} bytes`);
      await store.close();
    }
  }
  const { store } = answeredBy(() => new Response(endless(), { status: 503 }));
  await assertRejects(() => store.watch(""), StoreUnavailable, "more than");
  await store.close();
});

Deno.test("httpStore() makes no request longer than the service takes", async () => {
  const answer = { status: 200, value: null, revision: "r", expires: null };
  const { store, bodies } = answeredBy((_url, { body }) => {
    const operations = String(body).split('{"op":"put"').length - 1;
    return Response.json(Array(operations).fill(answer));
  });
  const large = json("\uffff".repeat(MAX_VALUE_BYTES / 3 - 1));
  await Promise.all(Array.from({ length: 30 }, (_, i) => store.set(`k${i}`, large)));
  const lengths = bodies.map((body) => new TextEncoder().encode(body).length);
  assert(lengths.every((length) => length < MAX_BODY_BYTES), String(lengths));
  assert(lengths.length < 10, String(lengths));
  await store.close();
});

Deno.test("httpStore() does not send a call that has waited too long", async () => {
  const { store, urls } = answeredBy(hang, { deadline: HANG_DEADLINE });
  await Promise.all([
    isUnavailable(store.setAll(new Map([["a", json(1)]])), "unknown", /did not answer in time$/),
    isUnavailable(store.get("a"), "unchanged", /did not answer in time$/),
    isUnavailable(store.set("a", json(2)), "unchanged", /did not answer in time$/),
    isUnavailable(store.setAll(new Map()), "unchanged", /did not answer in time$/),
  ]);
  assertEquals(urls.length, 1);
  await store.close();
});

Deno.test("httpStore() works again as soon as the service does", async () => {
  const below = memoryStore();
  const app = kv(below);
  let up = false;
  const { store } = answeredBy(async (url, init) =>
    up ? await app.request(url, init) : problem(503, { outcome: "unchanged" })
  );
  for (const [, call] of CALLS) await isUnavailable(call(store), "unchanged", /answered 503/);
  up = true;
  for (const [, call] of CALLS) await call(store);
  await store.close();
  await below.close();
});

// ---- Its end -------------------------------------------------------------------------------

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
    return Response.json([{ status: 201, revision: "r", expires: null }]);
  });
  const writes = [store.set("a", json(1))];
  while (gates.length < 1) await delay(1);
  writes.push(store.set("b", json(2)));
  while (gates.length < 2) await delay(1);
  let closed = false;
  const close = store.close().then(() => {
    closed = true;
  });
  gates[0]?.resolve();
  await writes[0];
  await delay(20);
  assertEquals(closed, false);
  gates[1]?.resolve();
  await Promise.all([close, ...writes]);
});

Deno.test("httpStore() closes if pending writes fail", async () => {
  const { store } = answeredBy(() => Promise.reject(new TypeError("gone")));
  const write = isUnavailable(store.set("a", json(1)), "unknown", /cut the connection$/);
  await store.close();
  await write;
});

// ---- Changes -------------------------------------------------------------------------------

const READY = "event: ready\nid: x-1\ndata: {}\n\n";

Deno.test("httpStore() says why it cannot watch", async () => {
  const gone = httpStore(`http://127.0.0.1:${freePort()}`);
  await isUnavailable(gone.watch(""), "unchanged", /cannot be reached: .*refused/);
  await gone.close();
  const answers: [() => Response, RegExp][] = [
    [() => problem(401), /requires another token: set KV_TOKEN$/],
    [() => problem(503, { outcome: "unknown" }), /answered 503: a detail$/],
    [
      () => new Response("<h1>It works!</h1>"),
      /is not a key-value service: it answered a body of type "text\/plain/,
    ],
    [() => Response.redirect("http://localhost/login"), /is not a key-value service: .* 302$/],
  ];
  for (const [answer, message] of answers) {
    const { store } = answeredBy(answer);
    await isUnavailable(store.watch(""), "unchanged", message);
    await store.close();
  }
  const { store } = answeredBy(hang, { deadline: 10 });
  await isUnavailable(store.watch(""), "unchanged", /did not answer in time$/);
  await store.close();
});

Deno.test("httpStore() rejects a stream of other events", async () => {
  const streams = ["", ": hello\n\n", "data: 1\n\n", "event: ready\ndata: {}\n\n"];
  for (const text of streams) {
    const { store } = eventsOf(text);
    await isUnavailable(store.watch(""), "unchanged", /is not a key-value service/);
    await store.close();
  }
});

Deno.test("httpStore() ends a watch with an error if the stream ends or is invalid", async () => {
  const changed = 'id: x-2\ndata: {"key":"a","value":1.10,"revision":"r","expires":null}\n\n';
  const ends: [string, RegExp][] = [
    ["", /cut the connection/],
    ["data: {}\n\n", /is not a key-value service/],
    ["id: x-3\ndata: {}\n\n", /is not a key-value service/],
    ["id: x-3\ndata: {{\n\n", /is not a key-value service/],
  ];
  for (const [end, message] of ends) {
    const { store } = eventsOf(`${READY}:\n\n${changed}${end}`);
    const { since, changes } = await store.watch("");
    assertEquals(since, "x-1");
    const reader = changes.getReader();
    const { value } = await reader.read();
    assertEquals(value, {
      id: "x-2",
      key: "a",
      entry: { key: "a", value: json(parseJson("1.10")), revision: "r", expires: null },
    });
    await isUnavailable(reader.read(), "unchanged", message);
    await store.close();
  }
});

Deno.test("httpStore() ends a watch with an error if the service falls silent", async () => {
  const { store } = eventsOf(READY, { ends: false, idleTimeout: 100 });
  // Keeps the test alive: the store's timer does not, and there is no connection.
  const awake = setTimeout(() => {}, 60_000);
  const watched = async () => await (await store.watch("")).changes.getReader().read();
  const error = await assertRejects(() => watched(), Error);
  assert(error instanceof StoreUnavailable);
  assertMatch(`${error.cause}`, /it sent nothing for too long$/);
  clearTimeout(awake);
  await store.close();
});

Deno.test("httpStore() closes the connection of each watch that ends", async () => {
  const memory = memoryStore();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, kv(memory).fetch);
  const url = `http://127.0.0.1:${server.addr.port}`;
  const store = httpStore(url, { deadline: PATIENT });
  for (let i = 0; i < 500; i++) {
    const reader = (await store.watch("")).changes.getReader();
    await store.set("a", json(i));
    await reader.read();
    await reader.cancel();
  }
  await eventually("a service without watchers", async () => {
    return /^kv_watchers 0$/m.test(await (await fetch(`${url}/?metrics`)).text());
  });
  await store.close();
  await server.shutdown();
  await memory.close();
});

Deno.test("httpStore() does not take a slow reader of a watch for a silent service", async () => {
  const change = (n: number) =>
    `id: x-${n}\ndata: {"key":"k${n}","value":1,"revision":"r","expires":null}\n\n`;
  let wasAborted = () => true;
  const { store } = answeredBy((_url, { signal }) => {
    wasAborted = () => signal?.aborted ?? true;
    const encoder = new TextEncoder();
    let timer: ReturnType<typeof setInterval>;
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(encoder.encode(READY + change(2) + change(3)));
        timer = setInterval(() => controller.enqueue(encoder.encode(":\n\n")), 10);
        signal?.addEventListener("abort", () => {
          clearInterval(timer);
          controller.error(signal.reason);
        });
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }, { idleTimeout: 100 });
  const reader = (await store.watch("")).changes.getReader();
  assertEquals((await reader.read()).value?.key, "k2");
  await delay(500);
  assert(!wasAborted());
  assertEquals((await reader.read()).value?.key, "k3");
  await store.close();
  assertEquals((await reader.read()).done, true);
});

Deno.test("httpStore() closes an invalid stream", async () => {
  const aborted = Promise.withResolvers<void>();
  const { store } = answeredBy((_url, { signal }) => {
    signal?.addEventListener("abort", () => aborted.resolve());
    const start = (controller: ReadableStreamDefaultController) =>
      controller.enqueue(new TextEncoder().encode(`${READY}id: x-2\ndata: {}\n\n`));
    const headers = { "Content-Type": "text/event-stream" };
    return new Response(new ReadableStream({ start }), { headers });
  });
  const { changes } = await store.watch("");
  await assertRejects(() => changes.getReader().read(), StoreUnavailable);
  await aborted.promise;
  await store.close();
});

Deno.test("httpStore() ends its watches without an error when it is closed", async () => {
  const { store } = eventsOf(READY, { ends: false });
  const reader = (await store.watch("")).changes.getReader();
  const next = reader.read();
  await store.close();
  assertEquals((await next).done, true);
});

Deno.test("httpStore() reports a 410 as lost changes, with the id it was given", async () => {
  const { store } = answeredBy(() => problem(410));
  const error = await assertRejects(() => store.watch("", { since: "x-7" }), Error);
  assert(error instanceof ChangesLost);
  assertEquals(error.since, "x-7");
  await store.close();
});
