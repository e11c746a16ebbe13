/** stores/http/changes.ts: watching a service. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { type HttpOptions, httpStore } from "../stores/http/store.ts";
import { MAX_CHANGES } from "../stores/changes.ts";
import { json, parseJson } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { ChangesLost, StoreUnavailable } from "../stores/store.ts";
import { answeredBy, hang, isUnavailable, PATIENT, problem } from "./helpers/http_store.ts";
import { eventually, freePort, runToEnd } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";

const READY = "event: ready\nid: x-1\ndata: {}\n\n";

Deno.test("httpStore() says why it cannot watch", async () => {
  const gone = httpStore(`http://127.0.0.1:${freePort()}`);
  await isUnavailable(gone.watch(""), "unchanged", /cannot be reached: .*refused/);
  await gone.close();
  const answers: [() => Response, RegExp][] = [
    [() => problem(401), /requires a token: set KV_TOKEN$/],
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
    const { position, changes } = await store.watch("");
    assertEquals(position(), "x-1");
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

Deno.test("httpStore() resumes a watch after any number of changes under other prefixes", async () => {
  await using memory = scoped(memoryStore());
  await using server = serve(kv(memory).fetch);
  await using store = scoped(httpStore(server.url, { deadline: PATIENT }));
  const watch = await store.watch("quiet:");
  const start = watch.position();
  const reader = watch.changes.getReader();
  const reading = reader.read();
  for (let i = 0; i < 3 * MAX_CHANGES; i++) await memory.set(`other${i}`, json(i));
  await eventually("a position after them", () => Promise.resolve(watch.position() !== start));
  await reader.cancel();
  assertEquals((await reading).done, true);
  const again = await store.watch("quiet:", { since: watch.position() });
  await memory.set("quiet:a", json(1));
  const change = await again.changes.getReader().read();
  assertEquals(change.value?.key, "quiet:a");
  await assertRejects(() => store.watch("quiet:", { since: start }), ChangesLost);
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
  await using memory = scoped(memoryStore());
  await using server = serve(kv(memory).fetch);
  const url = server.url;
  await using store = scoped(httpStore(url, { deadline: PATIENT }));
  for (let i = 0; i < 500; i++) {
    const reader = (await store.watch("")).changes.getReader();
    await store.set("a", json(i));
    await reader.read();
    await reader.cancel();
  }
  await eventually("a service without watchers", async () => {
    return /^kv_watchers 0$/m.test(await (await fetch(`${url}/?metrics`)).text());
  });
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

Deno.test("httpStore() keeps no program alive that forgets to end a watch", async () => {
  const module = JSON.stringify(import.meta.resolve("../stores/http/store.ts"));
  const code = `
    import { httpStore } from ${module};
    const ready = new TextEncoder().encode(${JSON.stringify(READY)});
    const body = new ReadableStream({ start: (controller) => controller.enqueue(ready) });
    const headers = { "Content-Type": "text/event-stream" };
    const fetch = async () => new Response(body, { headers });
    await httpStore("http://localhost", { fetch, idleTimeout: 600_000 }).watch("");
    console.log("the end");
  `;
  const run = await runToEnd("timeout", ["60", Deno.execPath(), "eval", code]);
  assertEquals([run.code, run.stdout], [0, "the end\n"]);
});

Deno.test("httpStore() reports a 410 as lost changes, with the id it was given", async () => {
  const { store } = answeredBy(() => problem(410));
  const error = await assertRejects(() => store.watch("", { since: "x-7" }), Error);
  assert(error instanceof ChangesLost);
  assertEquals(error.since, "x-7");
  await store.close();
});

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
