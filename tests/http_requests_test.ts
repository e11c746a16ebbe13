/** stores/http/requests.ts: what a call gets if the service is not there, is another server, or refuses. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { kv } from "../kv.ts";
import { httpStore } from "../stores/http/store.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { prefixed } from "../stores/prefix.ts";
import {
  InvalidArgument,
  MAX_KEY_BYTES,
  MAX_VALUE_BYTES,
  RevisionConflict,
  StoreFull,
  StoreUnavailable,
} from "../stores/store.ts";
import {
  answeredBy,
  CALLS,
  hang,
  HANG_DEADLINE,
  isUnavailable,
  PATIENT,
  problem,
  READS,
  WRITES,
} from "./helpers/http_store.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";

// ---- A service that is not there -----------------------------------------------------------

Deno.test("httpStore() ends calls to a hanging service within the deadline", async () => {
  await using server = serve(async (request) => {
    await request.text();
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode('[{"status":200,')),
    });
    return new Response(body, { headers: { "Content-Type": "application/json" } });
  });
  const url = server.url;
  const open = [
    () => answeredBy(hang, { deadline: HANG_DEADLINE }).store,
    () => httpStore(url, { deadline: HANG_DEADLINE }),
  ];
  // A store for each call, so that they all hang at once.
  await Promise.all(open.flatMap((openStore) =>
    CALLS.map(async ([name, call]) => {
      await using store = scoped(openStore());
      const outcome = READS.some(([read]) => read === name) ? "unchanged" : "unknown";
      await isUnavailable(call(store), outcome, /did not answer in time$/);
    })
  ));
});

Deno.test("httpStore() does not know the outcome of a write whose connection is cut", async () => {
  const halves = [
    "",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
    "HTTP/1.1 200 OK\r\nTransfer-",
  ];
  for (const text of halves) {
    await using server = rawServer(text);
    await using store = scoped(httpStore(server.url, { deadline: PATIENT }));
    for (const [, call] of READS) {
      await isUnavailable(call(store), "unchanged", /cut the connection$/);
    }
    for (const [, call] of WRITES) {
      await isUnavailable(call(store), "unknown", /cut the connection$/);
    }
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
    [() => new Response("<h1>It failed</h1>", { status: 500 }), /it answered status 500$/],
    [
      () => new Response("<h1>Bad Gateway</h1>", { ...html, status: 502 }),
      /^http:\S+ answered 502: a proxy got no answer from it$/,
    ],
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
  await using below = scoped(memoryStore());
  await using service = serve(kv(below).fetch);
  const { port } = service.addr;
  await using redirecting = serve(() => Response.redirect(`http://127.0.0.1:${port}/`, 307));
  const store = httpStore(redirecting.url, {
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
      isUnavailable(store.get("b"), "unchanged", message),
      isUnavailable(store.set("a", json(1)), "unknown", message),
      isUnavailable(store.delete("b"), "unknown", message),
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

Deno.test("httpStore() rejects a page or a change whose key no store keeps", async () => {
  const message = /is not a key-value service: it answered other JSON$/;
  for (const key of ["", ".", "..", "\ud800", "x".repeat(2000), 7]) {
    const { store } = answeredBy((_url, { headers }) => {
      const isWatch = new Headers(headers).get("Accept") === "text/event-stream";
      if (!isWatch) return Response.json({ keys: ["a", key], next: null });
      const change = JSON.stringify({ key, value: 1, revision: "r", expires: null });
      const events = `event: ready\nid: x-1\ndata: {}\n\nid: x-2\ndata: ${change}\n\n`;
      return new Response(events, { headers: { "Content-Type": "text/event-stream" } });
    });
    await isUnavailable(store.list(""), "unchanged", message);
    const { changes } = await store.watch("");
    await isUnavailable(changes.getReader().read(), "unchanged", message);
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

Deno.test("httpStore() reports what is too long for the service's own prefix as the caller's mistake", async () => {
  const memory = memoryStore();
  const app = kv(prefixed(memory, "p:"));
  const { store } = answeredBy(async (url, init) => await app.request(url, init));
  const long = "k".repeat(MAX_KEY_BYTES - 1);
  for (
    const [argument, call] of [
      ["key", () => store.get(long)],
      ["key", () => store.set(long, json(1))],
      ["key", () => store.setAll(new Map([["a", json(1)], [long, json(1)]]))],
      ["key", () => store.delete(long)],
      ["prefix", () => store.list(long)],
      ["prefix", () => store.watch(long)],
    ] as const
  ) {
    const error = await assertRejects(call, InvalidArgument, "over 1024 bytes");
    assertEquals(error.argument, argument);
  }
  assertEquals((await memory.list("")).keys, []);
  await store.close();
  await memory.close();
});

Deno.test("httpStore() takes a revision of any length for one that is not there", async () => {
  const memory = memoryStore();
  const app = kv(memory);
  const { store, urls } = answeredBy(async (url, init) => await app.request(url, init));
  for (const ifRevision of ["", "x".repeat(300), "x".repeat(100_000)]) {
    const [set, conflict, removal] = await Promise.allSettled([
      store.set("a", json(1)),
      store.set("b", json(1), { ifRevision }),
      store.delete("c", { ifRevision }),
    ]);
    assertEquals(set.status, "fulfilled");
    for (const it of [conflict, removal]) {
      assert(it.status === "rejected" && it.reason instanceof RevisionConflict, it.status);
    }
  }
  await store.set("b", json(2), { ifRevision: null });
  assertEquals((await memory.list("")).keys, ["a", "b"]);
  assertEquals(urls.length, 4);
  await store.close();
  await memory.close();
});

Deno.test("httpStore() names KV_TOKEN where the service requires a token, or another", async () => {
  await using below = scoped(memoryStore());
  const app = kv(below, { tokens: ["secret-token"] });
  const answer = async (url: string, init: RequestInit) => await app.request(url, init);
  for (const token of [undefined, "wrong"]) {
    const { store } = answeredBy(answer, { token });
    for (const [, call] of CALLS) {
      const message = token ? /requires another token: set KV_TOKEN$/ : /a token: set KV_TOKEN$/;
      await isUnavailable(call(store), "unchanged", message);
    }
    await store.close();
  }
  const { store } = answeredBy(answer, { token: "secret-token" });
  for (const [, call] of CALLS) await call(store);
  await store.close();
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
  const whole = answeredBy(() => problem(500, { outcome: "of another kind" })).store;
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

Deno.test("httpStore() passes on no more than 1,000 characters of an error", async () => {
  for (const detail of ["x".repeat(100_000), `Cannot use the key: ${"x".repeat(100_000)}`]) {
    const { store } = answeredBy(() => Response.json([{ status: 400, detail }]));
    const error = await assertRejects(() => store.get("a"), Error);
    assert(error.message.length < 1100);
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

Deno.test("httpStore() does not believe the length of an answer in chunks", async () => {
  const head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
  const limit = 1024 * 1024;
  const chunk = `${limit.toString(16)}\r\n${" ".repeat(limit)}\r\n`;
  await using server = rawServer(head + chunk.repeat(3));
  await using store = scoped(httpStore(server.url, { deadline: PATIENT }));
  await isUnavailable(store.get("a"), "unchanged", /it answered more than \d+ bytes$/);
});

Deno.test("httpStore() works again as soon as the service does", async () => {
  await using below = scoped(memoryStore());
  const app = kv(below);
  let up = false;
  const { store } = answeredBy(async (url, init) =>
    up ? await app.request(url, init) : problem(503, { outcome: "unchanged" })
  );
  for (const [, call] of CALLS) await isUnavailable(call(store), "unchanged", /answered 503/);
  up = true;
  for (const [, call] of CALLS) await call(store);
  await store.close();
});

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
      const rest = new Blob([text]).stream();
      await rest.pipeTo(connection.writable).catch(() => {}); // the client may leave before the end
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
