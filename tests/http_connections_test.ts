/** stores/http/connections.ts: HTTP/1.1 as an odd server speaks it, and when a connection is kept. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { Connections, NotSent } from "../stores/http/connections.ts";
import { httpStore } from "../stores/http/store.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { CALLS, isUnavailable, PATIENT } from "./helpers/http_store.ts";
import { eventually, freePort, NO_HOST, runToEnd } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";
import { replaced } from "./helpers/replaced.ts";

/** The answer to one `get`, with letters of one to four bytes. */
const ANSWER = '[{"status":200,"value":"aé€😀","revision":"r","expires":null}]';
const LENGTH = new TextEncoder().encode(ANSWER).length;
const OK = "HTTP/1.1 200 OK\r\n";
const SIZED = `${OK}Content-Length: ${LENGTH}\r\n\r\n${ANSWER}`;

/** Variables that name a proxy. */
const PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].flatMap((it) => [it, it.toLowerCase()]);

/** Takes the proxies of this machine out of the environment until the end of the scope. */
function withoutProxies(): Disposable {
  const before = Object.entries(Deno.env.toObject()).filter(([name]) => PROXIES.includes(name));
  for (const [name] of before) Deno.env.delete(name);
  return { [Symbol.dispose]: () => before.forEach(([name, value]) => Deno.env.set(name, value)) };
}

/** A server that answers each request with these texts, the first for the first, then the last. */
async function answering(...texts: (string | ((socket: Socket) => Promise<void>))[]) {
  let requests = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {}); // the client may reset it
    socket.on("data", async (bytes) => {
      // Each request of these tests is short, and comes at once.
      if (!/^(GET|POST) /.test(bytes.toString())) return;
      const text = texts[Math.min(requests++, texts.length - 1)] ?? "";
      if (typeof text === "string") socket.write(text);
      else await text(socket);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const store = httpStore(`http://127.0.0.1:${port}`, { deadline: PATIENT });
  return {
    port,
    store,
    /** How many requests there were. */
    requests: () => requests,
    /** How many connections there were. */
    connections: () => sockets.size,
    sockets,
    async [Symbol.asyncDispose]() {
      await store.close();
      for (const socket of sockets) socket.destroy();
      await once(server.close(), "close");
    },
  };
}

/** The bytes in two or three parts, or one by one. */
function inParts(text: string, cuts: number[]) {
  return async (socket: Socket) => {
    const bytes = new TextEncoder().encode(text);
    for (const [i, cut] of [...cuts, bytes.length].entries()) {
      socket.write(bytes.subarray(cuts[i - 1] ?? 0, cut));
      await delay(0);
    }
  };
}

/** The text in chunks of so many bytes (RFC 9112, section 7.1). */
function chunked(text: string, size: number, end = "0\r\n\r\n"): string {
  const bytes = new TextEncoder().encode(text);
  let body = "";
  for (let i = 0; i < bytes.length; i += size) {
    const part = bytes.subarray(i, i + size);
    body += `${part.length.toString(16)};ext=1\r\n${String.fromCharCode(...part)}\r\n`;
  }
  return body + end;
}

Deno.test("httpStore() reads an answer wherever it is split, with a length and in chunks", async () => {
  const chunks = `${OK}Transfer-Encoding: chunked\r\n\r\n${chunked("[null]", 3)}`;
  for (const text of [SIZED, chunks]) {
    const { length } = new TextEncoder().encode(text);
    const everywhere = Array.from({ length: length - 1 }, (_, i) => i + 1);
    const splits = [[], everywhere, ...everywhere.filter((i) => i % 3 === 0).map((i) => [i])];
    await using server = await answering(...splits.map((cuts) => inParts(text, cuts)));
    for (const _ of splits) {
      const got = server.store.get("a");
      if (text === chunks) await isUnavailable(got, "unchanged", /it answered other JSON$/);
      else assertEquals((await got)?.value, '"aé€😀"');
    }
    assertEquals(server.connections(), 1);
  }
});

Deno.test("httpStore() reads answers in chunks, with extensions, trailers and early responses", async () => {
  const answer = ANSWER.replace("aé€😀", "abc");
  const head = `${OK}Transfer-Encoding: Chunked\r\n\r\n`;
  const trailers = "0\r\nX-Checksum: 1\r\nX-Other: 2\r\n\r\n";
  const early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  await using server = await answering(
    head + chunked(answer, 1000),
    head + chunked(answer, 1),
    head + chunked(answer, 7, trailers),
    `HTTP/1.1 100 Continue\r\n\r\n${early}${head}${chunked(answer, 30)}`,
  );
  for (let i = 0; i < 4; i++) assertEquals((await server.store.get("a"))?.value, '"abc"');
  assertEquals(server.connections(), 1);
});

Deno.test("httpStore() keeps no connection whose server ends it, or says more than it was asked", async () => {
  const last = [
    `${OK}Connection: close\r\nContent-Length: ${LENGTH}\r\n\r\n${ANSWER}`,
    `${OK}Connection: keep-alive, Close\r\nContent-Length: ${LENGTH}\r\n\r\n${ANSWER}`,
    `HTTP/1.0 200 OK\r\nContent-Length: ${LENGTH}\r\n\r\n${ANSWER}`,
    `${SIZED}HTTP/1.1 200 OK\r\n`,
    inParts(SIZED + SIZED, [SIZED.length]),
    async (socket: Socket) => void socket.end(SIZED),
  ];
  for (const text of last) {
    await using server = await answering(text);
    for (let i = 1; i <= 3; i++) {
      assertEquals((await server.store.get("a"))?.value, '"aé€😀"');
      await eventually("an end of the connection", () => {
        return Promise.resolve([...server.sockets].every(({ destroyed }) => destroyed));
      });
      assertEquals(server.connections(), i);
    }
  }
});

Deno.test("httpStore() takes no other text for HTTP", async () => {
  const unknown = "a body of unknown length";
  const answers: [string, string][] = [
    ["no HTTP at all\r\n\r\n", "no HTTP"],
    ["HTTP/2 200\r\n\r\n", "no HTTP"],
    ["HTTP/1.1 2000 OK\r\n\r\n", "no HTTP"],
    [`${OK}X: ${"x".repeat(100_000)}`, "no HTTP"],
    [`${OK}\r\n${ANSWER}`, unknown],
    [`${OK}Content-Length: -1\r\n\r\n`, unknown],
    [`${OK}Content-Length: 1e3\r\n\r\n`, unknown],
    [`${OK}Content-Length: ${LENGTH}\r\nContent-Length: 2\r\n\r\n${ANSWER}`, unknown],
    [`${OK}Transfer-Encoding: gzip, chunked\r\n\r\n`, 'a body in the coding "gzip, chunked"'],
    [`${OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n`, unknown],
    [`${OK}Transfer-Encoding: chunked\r\n\r\n-1\r\n`, unknown],
    [`${OK}Transfer-Encoding: chunked\r\n\r\n${"1".repeat(5000)}`, "no HTTP"],
    [`${OK}Transfer-Encoding: chunked\r\n\r\n2\r\n[]x\r\n`, "no HTTP"],
  ];
  for (const [text, what] of answers) {
    await using server = await answering(text);
    const message = new RegExp(`is not a key-value service: it answered ${what}$`);
    await isUnavailable(server.store.get("a"), "unchanged", message);
    await isUnavailable(server.store.set("a", json(1)), "unknown", message);
    assertEquals(server.connections(), 2);
  }
});

Deno.test("httpStore() uses one connection for calls one after another, and five at most at a time", async () => {
  await using below = scoped(memoryStore());
  const connections = new Set<number>();
  await using server = serve((request, { remoteAddr }) => {
    connections.add(remoteAddr.port);
    return app.fetch(request);
  });
  const app = kv(below);
  await using store = scoped(httpStore(server.url, { deadline: PATIENT }));
  for (let i = 0; i < 20; i++) await store.set("a", json(i));
  assertEquals(connections.size, 1);
  const calls = Array.from({ length: 2000 }, (_, i) => [
    store.set(`k${i}`, json(i)),
    store.get(`k${i}`),
    store.list("", { limit: 1 }),
  ]);
  await Promise.all(calls.flat());
  assertEquals(connections.size, 5);
});

Deno.test("a request that has ended before its connection is there is not sent", async () => {
  await using t = await answering(SIZED);
  const connections = new Connections(new URL(`http://127.0.0.1:${t.port}`));
  const request = { target: "/", headers: {}, body: "[]" };
  const { body } = await connections.send({ ...request, signal: new AbortController().signal });
  for await (const _ of body); // then its connection waits for the next request
  const ended = AbortSignal.abort(new Error("too late"));
  const error = await assertRejects(() => connections.send({ ...request, signal: ended }), NotSent);
  assertEquals([error.message, t.requests()], ["too late", 1]);
});

Deno.test("httpStore() leaves no watch when it closes as the watch's connection is made", async () => {
  await using memory = scoped(memoryStore());
  const app = kv(memory);
  await using server = serve(app.fetch);
  const { port } = server.addr;
  for (let i = 0; i < 20; i++) {
    const store = httpStore(`http://127.0.0.1:${port}`, { deadline: PATIENT });
    const watching = store.watch("").then(({ changes }) => changes.getReader().read());
    const other = connect(port, "127.0.0.1"); // it connects in the same turn
    await once(other, "connect");
    await store.close();
    other.destroy();
    await watching.catch((error) => assertEquals(error.message, "The store is closed"));
  }
});

Deno.test("httpStore() goes on with a service that was restarted between two calls", async () => {
  await using below = scoped(memoryStore());
  const serve = (port: number) =>
    Deno.serve({ hostname: "127.0.0.1", port, onListen() {} }, kv(below).fetch);
  let server = serve(0);
  const { port } = server.addr;
  await using store = scoped(httpStore(`http://127.0.0.1:${port}`, { deadline: PATIENT }));
  for (let i = 0; i < 10; i++) {
    await Promise.all([store.set("a", json(i)), store.get("a"), store.list("")]);
    await server.shutdown();
    await delay(20);
    await isUnavailable(store.set("a", json(-1)), "unchanged", /: connection refused$/);
    server = serve(port);
  }
  assertEquals((await store.get("a"))?.value, "9");
  await server.shutdown();
});

Deno.test("httpStore() names why a service cannot be reached, and that nothing was sent", async () => {
  using _ = withoutProxies();
  await using server = serve(() => {
    throw new Error("it got a request");
  });
  const cases: [string, RegExp][] = [
    [`https://127.0.0.1:${server.addr.port}`, /it answers without TLS: expected http instead of/],
    [`http://127.0.0.1:${freePort()}`, /connection refused$/],
    [`http://${NO_HOST}`, /no such host$/],
    [`https://${NO_HOST}`, /no such host$/],
  ];
  for (const [url, reason] of cases) {
    await using store = scoped(httpStore(url, { deadline: PATIENT }));
    const message = new RegExp(`^${url} cannot be reached: ${reason.source}`);
    for (const [, call] of CALLS) await isUnavailable(call(store), "unchanged", message);
  }
});

Deno.test("httpStore() goes through no proxy, and names the one that it does not use", async () => {
  await using below = scoped(memoryStore());
  await using service = serve(kv(below).fetch);
  const proxied: string[] = [];
  await using proxy = serve((request) => {
    proxied.push(request.url);
    return new Response();
  });
  const code = `
    import { openStore } from ${JSON.stringify(import.meta.resolve("../stores/open.ts"))};
    for (const url of Deno.args) {
      const store = await openStore(url, { token: "a-secret-token" });
      const changes = await store.watch("").catch((error) => console.log(error.message));
      await store.set("a", "1").catch((error) => console.log(error.outcome, error.message));
      await store.setAll(new Map([["b", "2"]])).catch(() => {});
      console.log((await store.list("").catch(() => null))?.keys.join());
      await changes?.changes.cancel();
      await store.close();
    }
  `;
  const { port } = service.addr;
  const address = `127.0.0.1:${proxy.addr.port}`;
  // No program goes through a proxy to its own machine.
  const nothing = `http://127.0.0.1:${freePort()}`;
  const urls = [
    `http://localhost:${port}`,
    `http://127.0.0.1:${port}`,
    nothing,
    `http://${NO_HOST}`,
  ];
  const env = Object.fromEntries(PROXIES.map((name) => [name, `http://user:secret@${address}/`]));
  const { stdout, stderr } = await runToEnd(Deno.execPath(), ["eval", code, ...urls], { env });
  const reasons = [
    `${nothing} cannot be reached: connection refused`,
    `http://${NO_HOST} cannot be reached: no such host ` +
    `(directly: the proxy ${address} of HTTPS_PROXY is not used)`,
  ];
  const failures = reasons.map((reason) => `${reason}\nunchanged ${reason}\nundefined\n`);
  assertEquals(stdout, `a,b\na,b\n${failures.join("")}`, stderr);
  assertEquals(proxied, []);
});

Deno.test("httpStore() refuses a token that no header can carry", async () => {
  for (const token of ["", "a b", "a\r\nX-Other: 1", "é"]) {
    const error = await assertRejects(async () => httpStore("http://localhost", { token }), Error);
    assertMatch(error.message, /^Cannot send a token of \d+ characters: expected letters, digits,/);
  }
});

Deno.test("httpStore() keeps no program alive with connections that it does not use", async () => {
  await using server = await answering(SIZED);
  await server.store.get("a");
  const [socket] = server.sockets;
  const module = JSON.stringify(import.meta.resolve("../stores/http/store.ts"));
  const code = `
    import { httpStore } from ${module};
    const store = httpStore("http://127.0.0.1:${socket?.localPort}");
    console.log((await store.get("a")).value);
  `;
  const run = await runToEnd("timeout", ["60", Deno.execPath(), "eval", code]);
  assertEquals([run.code, run.stdout], [0, '"aé€😀"\n'], run.stderr);
});

Deno.test("httpStore() does not use a connection that was quiet for long", async () => {
  // The server would close it, and what is sent meanwhile would be lost.
  await using server = await answering(SIZED);
  await server.store.get("a");
  const now = performance.now;
  using _now = replaced(performance, { now: () => now.call(performance) + 5000 });
  await server.store.get("a");
  assertEquals(server.connections(), 2);
  assert([...server.sockets].some(({ destroyed, readableEnded }) => destroyed || readableEnded));
});
