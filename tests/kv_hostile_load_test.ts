/** What one client costs the others: requests that take long, and responses that nobody reads. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { kv } from "../kv.ts";
import { MAX_HELD_BYTES } from "../kv/held.ts";
import { memoryStore } from "../stores/memory.ts";
import { MAX_BODY_BYTES } from "../stores/wire.ts";
import { cpuTime } from "./helpers/cpu_time.ts";
import { HOSTILE_REQUESTS, type HostileRequest } from "./helpers/hostile.ts";
import { eventually, startServer } from "./helpers/programs.ts";

/**
 * How many times the work of one pass over the longest body a request may do before others have a
 * turn. On the machine where it was chosen, 17 are the 250 ms that are promised, and no request took
 * more than 14. Without limits they took hundreds.
 */
const MOST_PASSES = 30;

/** Reads each byte of the longest body, as a parser does, and returns the CPU time. */
function onePass(): number {
  const bytes = Buffer.alloc(MAX_BODY_BYTES, "a");
  const begun = cpuTime();
  let quotes = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === 0x22 || bytes[i] === 0x5c) quotes++;
  assertEquals(quotes, 0);
  return cpuTime() - begun;
}

/** Sends a request, and returns the most CPU time that passed without a turn for others. */
async function longestStep(request: HostileRequest): Promise<number> {
  const store = memoryStore();
  const text = request.body();
  const headers: Record<string, string> = { ...request.headers };
  let body: ReadableStream<Uint8Array> | null = null;
  if (text !== null) {
    // In chunks, as it comes from a socket.
    const bytes = Buffer.from(text);
    headers["Content-Length"] = String(bytes.length);
    let sent = 0;
    body = new ReadableStream({
      pull(controller) {
        controller.enqueue(bytes.subarray(sent, sent += 64 * 1024));
        if (sent >= bytes.length) controller.close();
      },
    });
  }
  let isOver = false;
  const send = async () => {
    const response = await kv(store).request(request.path, { ...request, headers, body });
    isOver = true;
    assert(request.statuses.includes(response.status), `${request.name}: ${response.status}`);
    await response.body?.cancel();
  };
  let last = cpuTime();
  let longest = 0;
  const sending = send().finally(() => isOver = true);
  while (!isOver) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    longest = Math.max(longest, cpuTime() - last);
    last = cpuTime();
  }
  await sending;
  await store.close();
  return longest;
}

Deno.test("kv() lets no single request keep others waiting", async () => {
  onePass(); // compiled now
  const pass = Math.min(onePass(), onePass(), onePass());
  for (const request of HOSTILE_REQUESTS) {
    const passes: number[] = [];
    // Collecting garbage counts too, now and then.
    while (passes.length < 3 && !(Math.min(...passes) < MOST_PASSES)) {
      passes.push(await longestStep(request) / pass);
    }
    assert(Math.min(...passes) < MOST_PASSES, `${request.name}: ${passes} passes without a turn`);
  }
});

/** Sends requests over connections of their own, and reads nothing. */
async function stall(port: number, count: number, request: string): Promise<AsyncDisposable> {
  const sockets: Socket[] = [];
  for (let i = 0; i < count; i++) {
    const socket = connect(port, "127.0.0.1");
    sockets.push(socket);
    socket.pause();
    socket.on("error", () => {}); // the service may cut it
    await once(socket, "connect");
    socket.write(request);
  }
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(sockets.map(async (socket) => {
        if (socket.destroyed) return;
        const closed = once(socket, "close");
        socket.destroy();
        await closed;
      }));
    },
  };
}

Deno.test("kv.ts survives many clients that do not read, in a heap of 256 MiB", async () => {
  const env = { DBM: ":memory:", DENO_V8_FLAGS: "--max-old-space-size=256" };
  await using server = await startServer("kv.ts", { env });
  const port = Number(new URL(server.url).port);
  const value = `"${"x".repeat(2 ** 20 - 2)}"`;
  const put = async (key: string) => {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(`${server.url}/${key}`, { method: "PUT", headers, body: value });
    await response.body?.cancel();
  };
  for (let i = 0; i < 40; i++) await put(`large${i}`);
  const gets = JSON.stringify(
    Array.from({ length: 1000 }, (_, i) => ({ op: "get", key: `large${i % 40}` })),
  );
  const head = "Host: localhost\r\nContent-Type: application/json\r\n";
  await using _arrays = await stall(
    port,
    7,
    `POST / HTTP/1.1\r\n${head}Content-Length: ${gets.length}\r\n\r\n${gets}`,
  );
  await using _dumps = await stall(
    port,
    60,
    "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n",
  );
  await using _events = await stall(
    port,
    100,
    "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
  );
  await using _reads = await stall(port, 200, `GET /large0 HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  // Small requests are served in any case, large ones get a 503 while too much is held.
  for (let i = 0; i < 20; i++) await put(`large${i}`);
  const metrics = await (await fetch(`${server.url}/?metrics`)).text();
  const held = Number(/^kv_held_bytes (\d+)$/m.exec(metrics)?.[1]);
  assert(held <= MAX_HELD_BYTES, `${held}`);
  assertEquals((await (await fetch(`${server.url}/?health`)).json()).status, "ok");
  const status = await Deno.readTextFile(`/proc/${server.program.pid}/status`);
  const resident = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  assert(resident < 900, `${resident} MiB`);
});

Deno.test("kv.ts goes on when clients leave a response over HTTP/2", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const body = JSON.stringify({ a: "x".repeat(500_000) });
  const headers = { "Content-Type": "application/json" };
  await (await fetch(server.url, { method: "POST", headers, body })).text();
  const types = ["text/event-stream", "application/x-ndjson", "application/json"];
  for (const path of ["/", "/a", "/?metrics"]) {
    for (const accept of types) {
      const client = http2.connect(server.url, { settings: { initialWindowSize: 0 } });
      await once(client, "remoteSettings");
      const stream = client.request({ ":path": path, accept });
      stream.on("error", () => {}); // it is cut off
      await once(stream, "response");
      client.destroy();
      await delay(50);
      assertEquals((await (await fetch(`${server.url}/?health`)).json()).status, "ok");
    }
  }
  assertNotMatch(server.program.output, /^kv: (?!http:)/m);
});

Deno.test("kv.ts counts large values that are sent over HTTP/2 and not read", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const body = `"${"x".repeat(900_000)}"`;
  const headers = { "Content-Type": "application/json" };
  await (await fetch(`${server.url}/a`, { method: "PUT", headers, body })).text();
  const client = http2.connect(server.url, { settings: { initialWindowSize: 0 } });
  await once(client, "remoteSettings");
  const statuses = await Promise.all(Array.from({ length: 190 }, async () => {
    const stream = client.request({ ":path": "/a" });
    stream.on("error", () => {}); // it is cut off
    return (await once(stream, "response"))[0][":status"];
  }));
  assertEquals(statuses.filter((it) => it === 200).length, Math.floor(MAX_HELD_BYTES / 900_008));
  assertEquals(new Set(statuses), new Set([200, 503]));
  client.destroy();
  await eventually("all memory given back", async () => {
    const metrics = await (await fetch(`${server.url}/?metrics`)).text();
    return /^kv_held_bytes 0$/m.test(metrics);
  });
});

Deno.test("kv.ts counts the bodies that arrive over one HTTP/2 connection", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const held = async () => {
    const metrics = await (await fetch(`${server.url}/?metrics`)).text();
    return Number(/^kv_held_bytes (\d+)$/m.exec(metrics)?.[1]);
  };
  const length = 60_000;
  const client = http2.connect(server.url);
  for (let i = 0; i < 100; i++) {
    const headers = { "content-type": "application/json", "content-length": String(length) };
    const stream = client.request({ ":method": "PUT", ":path": "/a", ...headers });
    stream.on("error", () => {}); // it is cut off
    stream.write(" ");
  }
  await eventually("100 bodies", async () => await held() === 100 * length);
  client.destroy();
  await eventually("no body", async () => await held() === 0);
});

Deno.test("kv.ts copies the chunks of a body, however small they are", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const text = `{"a": "${"x".repeat(60_000)}"}`;
  for (const type of ["application/json", "application/x-ndjson"]) {
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
    await once(socket, "connect");
    socket.write(`POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\n`);
    socket.write("Transfer-Encoding: chunked\r\n\r\n");
    socket.write(`${Array.from(text, (char) => `1\r\n${char}\r\n`).join("")}0\r\n\r\n`);
    const [answer] = await once(socket, "data");
    assertMatch(String(answer), /^HTTP\/1\.1 200 /);
    socket.destroy();
    await once(socket, "close");
  }
  const status = await Deno.readTextFile(`/proc/${server.program.pid}/status`);
  const resident = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  assert(resident < 400, `${resident} MiB`);
});
