/** Sessions after the request has gone: in a WebSocket, in a stream whose client left, in a timer. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Hono } from "hono";
import { streamText } from "hono/streaming";
import { KeyValueSessionStore, type Session, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { Counted } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";

type Counting = Session<{ count: number }>;

/** What a session can do when no header can be sent, in this order. */
async function useLate(session: Counting): Promise<string[]> {
  const calls: (() => Promise<unknown>)[] = [
    async () => (await session.read()).count,
    async () => (await session.update((s) => ({ ...s, count: s.count + 1 }))).count,
    async () => (await session.read()).count,
    () => session.rotate(),
    async () => await session.destroy() ?? "destroyed",
    async () => (await session.read()).count,
  ];
  const results: string[] = [];
  for (const call of calls) results.push(await call().then(String, String));
  return results;
}

const NO_ROTATION = /^Error: Cannot rotate the session, its cookie can no longer be sent/;

function assertUsed(results: string[], count: number): void {
  const [rotation] = results.splice(3, 1);
  assertMatch(rotation ?? "", NO_ROTATION);
  assertEquals(results, [`${count}`, `${count + 1}`, `${count + 1}`, "destroyed", "0"]);
}

/** Serves an app over a socket; `before` uses the session before the request goes. */
async function serving(
  check: (
    url: string,
    store: KeyValueSessionStore,
    memory: Store,
    results: Promise<string[]>,
  ) => Promise<void>,
  { trustProxy, before }: { trustProxy: boolean; before?: (session: Counting) => Promise<unknown> },
): Promise<void> {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(memory);
  const { promise, resolve } = Promise.withResolvers<string[]>();
  const app = new Hono()
    .use(sessions({ store, schema: Counted, trustProxy }))
    .use(async (c, next) => {
      await before?.(c.var.session);
      await next();
    })
    .get("/socket", (c) => {
      const { socket, response } = Deno.upgradeWebSocket(c.req.raw);
      socket.onmessage = async () => {
        resolve(await useLate(c.var.session));
        socket.close();
      };
      return response;
    })
    .get("/stream", (c) =>
      streamText(c, async (stream) => {
        const left = new Promise<void>((resolve) => stream.onAbort(resolve));
        await stream.write("here");
        await left;
        resolve(await useLate(c.var.session));
      }))
    .get("/timer", (c) => {
      setTimeout(async () => resolve(await useLate(c.var.session)), 20);
      return c.text("done");
    });
  await using server = serve(app.fetch);
  await check(server.url, store, memory, promise);
}

for (const trustProxy of [false, true]) {
  for (const use of ["unused", "read", "changed"] as const) {
    const uses = {
      unused: async () => {},
      read: (session: Counting) => session.read(),
      changed: (session: Counting) => session.update((s) => ({ ...s, count: s.count + 1 })),
    };
    const options = { trustProxy, before: uses[use] };
    const count = use === "changed" ? 6 : 5;
    const after = `${use} before, trustProxy ${trustProxy}`;

    Deno.test(`a session works in a WebSocket of Deno: ${after}`, () =>
      serving(async (url, store, memory, results) => {
        const { cookie } = await store.create({ count: 5 });
        const headers = { Cookie: `session=${cookie}`, "X-Forwarded-Proto": "wss" };
        // The types of browsers, which other tests load, do not know of headers.
        const socket = new WebSocket(`${url}/socket`, { headers } as unknown as string[]);
        const closed = new Promise((resolve) => socket.onclose = resolve);
        socket.onopen = () => socket.send("now");
        assertUsed(await results, count);
        await closed;
        assertEquals((await memory.list("")).keys, []);
      }, options));

    Deno.test(`a session works in a stream whose client has left: ${after}`, () =>
      serving(async (url, store, memory, results) => {
        const headers = { Cookie: `session=${(await store.create({ count: 5 })).cookie}` };
        const response = await fetch(`${url}/stream`, { headers });
        const reader = response.body?.getReader();
        assert((await reader?.read())?.value);
        await reader?.cancel();
        assertUsed(await results, count);
        assertEquals((await memory.list("")).keys, []);
      }, options));

    Deno.test(`a session works in a timer after the response: ${after}`, () =>
      serving(async (url, store, memory, results) => {
        const headers = { Cookie: `session=${(await store.create({ count: 5 })).cookie}` };
        await (await fetch(`${url}/timer`, { headers })).text();
        assertUsed(await results, count);
        assertEquals((await memory.list("")).keys, []);
      }, options));
  }
}

Deno.test("the answer that opens a WebSocket carries the session's cookie", async () => {
  let cookie: string | undefined;
  await serving(async (url, _store, memory, results) => {
    const { hostname, port } = new URL(url);
    using connection = await Deno.connect({ hostname, port: Number(port) });
    const request =
      "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      "X-Forwarded-Proto: wss\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    await connection.write(new TextEncoder().encode(request));
    const bytes = new Uint8Array(4096);
    const read = await connection.read(bytes);
    const answer = new TextDecoder().decode(bytes.subarray(0, read ?? 0));
    assertMatch(answer, /^HTTP\/1\.1 101 /);
    cookie = /^set-cookie: session=([\w-]+); Secure;/im.exec(answer)?.[1];
    assertEquals((await memory.list("")).keys, [cookie]);
    // "now", masked with zeros.
    await connection.write(new Uint8Array([0x81, 0x83, 0, 0, 0, 0, 110, 111, 119]));
    assertUsed(await results, 1);
  }, { trustProxy: true, before: (session) => session.update(() => ({ count: 1 })) });
});
