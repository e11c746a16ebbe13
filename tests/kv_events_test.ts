/** Streams of changes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EventSource } from "eventsource";
import { kv, MAX_WATCHERS } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import { json } from "../stores/json/text.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { readProblem } from "./helpers/kv_app.ts";
import { eventually, startServer } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";
import { replaced } from "./helpers/replaced.ts";

const EVENTS = { Accept: "text/event-stream" };

/** Reads a stream of changes, event by event. */
function eventsOf(response: Response) {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  assert(reader);
  return {
    async next(): Promise<string> {
      return (await reader.read()).value ?? "the end";
    },
    cancel: () => reader.cancel(),
  };
}

Deno.test("kv() streams the changes under a prefix as server-sent events", async () => {
  const store = memoryStore();
  const app = kv(store);
  const response = await app.request("/?prefix=a", { headers: EVENTS });
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "text/event-stream");
  assertEquals(response.headers.get("Cache-Control"), "no-store");
  const events = eventsOf(response);
  assertMatch(await events.next(), /^event: ready\ndata: \{\}\nid: [\da-f]{8}-0\n\n$/);
  const { revision, expires } = await store.set("a", json("x\ny"), { ttl: 60 });
  const entry = `"value":"x\\\\ny","revision":"${revision}","expires":${expires}`;
  assertMatch(
    await events.next(),
    new RegExp(`^data: {"key":"a",${entry}}\nid: [\\da-f]{8}-1\n\n$`),
  );
  await store.set("b", json(1));
  await store.delete("a");
  const nothing = '"value":null,"revision":null,"expires":null';
  assertMatch(
    await events.next(),
    new RegExp(`^data: {"key":"a",${nothing}}\nid: [\\da-f]{8}-3\n\n$`),
  );
  await store.close();
  assertEquals(await events.next(), "the end");
});

Deno.test("kv() resumes after Last-Event-ID, and answers 410 to an unknown one", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const first = eventsOf(await app.request("/", { headers: EVENTS }));
  const id = /^id: (.*)$/m.exec(await first.next())?.[1] ?? "";
  await first.cancel();
  await store.set("missed", json(1));
  const headers = { ...EVENTS, "Last-Event-ID": id };
  const second = eventsOf(await app.request("/", { headers }));
  assertMatch(await second.next(), /^event: ready\n/);
  assertMatch(await second.next(), /^data: \{"key":"missed","value":1,/);
  await second.cancel();

  const unknown = { ...EVENTS, "Last-Event-ID": "00000000-7" };
  const gone = await app.request("/", { headers: unknown });
  assertEquals(gone.status, 410);
  assertMatch((await readProblem(gone)).detail, /^Cannot watch since "00000000-7": /);
});

Deno.test("kv() says every 4 seconds where a stream is, past the changes of other keys", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const { setTimeout } = globalThis;
  const waits: number[] = [];
  using _setTimeout = replaced(globalThis, {
    setTimeout: (run: () => void, after = 0) => {
      waits.push(after);
      return setTimeout(run, after / 300);
    },
  });
  const events = eventsOf(await app.request("/?prefix=quiet", { headers: EVENTS }));
  assertMatch(await events.next(), /^event: ready\n/);
  await store.setAll(new Map([["other", json(1)], ["another", json(1)]]));
  assertMatch(await events.next(), /^event: position\ndata: \{\}\nid: [\da-f]{8}-2\n\n$/);
  assertMatch(await events.next(), /^event: position\n/);
  // The others are the store's own.
  assertEquals(waits.filter((it) => it !== 60_000).slice(0, 2), [4000, 4000]);
  await events.cancel();
});

Deno.test("kv() allows MAX_WATCHERS streams, even if all start at once", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const watching = Array.from(
    { length: MAX_WATCHERS },
    () => app.request("/", { headers: EVENTS }),
  );
  const late = await app.request("/", { headers: EVENTS });
  assertEquals(late.status, 503);
  assertEquals(late.headers.get("Retry-After"), "1");
  assertMatch((await readProblem(late)).detail, /^Cannot watch: there are \d+ streams of changes$/);
  const [first, ...others] = await Promise.all(watching);
  assert([first, ...others].every((response) => response?.status === 200));
  await first?.body?.cancel();
  const next = await app.request("/", { headers: EVENTS });
  assertEquals(next.status, 200);
  for (const { body } of [next, ...others]) await body?.cancel();
});

Deno.test("kv() frees the place of a watcher whose stream fails, and logs one line", async () => {
  await using store = scoped(memoryStore());
  const failing: Store = {
    ...store,
    async watch(...args) {
      const { position } = await store.watch(...args);
      const pull = () => Promise.reject(new StoreUnavailable("gone", { outcome: "unchanged" }));
      return { position, changes: new ReadableStream({ pull }, { highWaterMark: 0 }) };
    },
  };
  const app = kv(failing);
  const log = await logged(async () => {
    const events = eventsOf(await app.request("/", { headers: EVENTS }));
    assertMatch(await events.next(), /^event: ready\n/);
    assertEquals(await events.next(), "the end");
  });
  assertEquals(log, "kv: gone");
  const metrics = await (await app.request("/?metrics")).text();
  assertMatch(metrics, /^kv_watchers 0$/m);
});

Deno.test("kv.ts streams to an EventSource, and can be stopped meanwhile", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const source = new EventSource(`${server.url}/?prefix=a`);
  const ready = Promise.withResolvers<void>();
  source.addEventListener("ready", () => ready.resolve());
  const message = Promise.withResolvers<string>();
  source.onmessage = ({ data }) => message.resolve(data);
  await ready.promise;
  const put = await fetch(`${server.url}/a`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: "1.10",
  });
  await put.body?.cancel();
  assertMatch(
    await message.promise,
    /^\{"key":"a","value":1\.10,"revision":"[^"]+","expires":null\}$/,
  );
  source.close();

  const { body } = await fetch(server.url, { headers: EVENTS });
  const end = new Response(body).text();
  assertEquals(await server.program.stop(), 0);
  assertMatch(await end, /^event: ready\n/);
});

Deno.test("kv() keeps no timer for a client that leaves as a change is sent", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  await using server = serve(app.fetch);
  const address = { hostname: "127.0.0.1", port: server.addr.port };
  const watching = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
  const type = "Content-Type: application/json\r\nContent-Length: 1";
  const writing = `PUT /a HTTP/1.1\r\nHost: localhost\r\n${type}\r\n\r\n1`;
  const encoder = new TextEncoder();
  using writer = await Deno.connect(address);
  for (let i = 0; i < 20; i++) {
    const watcher = await Deno.connect(address);
    await watcher.write(encoder.encode(watching));
    await watcher.read(new Uint8Array(4096));
    const written = writer.write(encoder.encode(writing));
    watcher.close();
    // Then the end of the one and the write of the other come in one turn.
    for (const until = performance.now() + 1; performance.now() < until;);
    await written;
    await writer.read(new Uint8Array(4096));
  }
  const metrics = async () => await (await app.request("/?metrics")).text();
  await eventually("no stream", async () => /^kv_watchers 0$/m.test(await metrics()));
});
