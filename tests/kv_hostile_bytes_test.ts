/** What the service does with malformed HTTP, and with uploads that are not whole. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { once } from "node:events";
import http2 from "node:http2";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { eventually, startScript, startServer } from "./helpers/programs.ts";

/** What an honest client sends, three times of four. */
function mostly<T>(honest: T, ...odd: T[]): fc.Arbitrary<T> {
  return fc.oneof({ weight: 3, arbitrary: fc.constant(honest) }, fc.constantFrom(...odd));
}

/** The parts of a request as bytes, one a character. The key that it names is `KEY`. */
const raw = fc.record({
  method: mostly("PUT", "POST", "GET", "DELETE", "CONNECT", "p\0t", "", "\xff"),
  target: mostly(
    "/KEY",
    ...["/", "/a/../KEY", "/%2e%2e/KEY", "//KEY", "*", "", "KEY", "/KEY%", "/KEY\0", "/KEY\xff"],
    ...["http://localhost/KEY", "http://evil.example/KEY", "http://[/KEY", "localhost:80"],
    ...["/KEY?ttl=60", "/KEY?ttl=x", "/KEY#a", "/KEY a", `/KEY${"x".repeat(9000)}`],
  ),
  version: mostly(" HTTP/1.1", ...[" HTTP/1.0", " HTTP/2.0", " HTTP/9.9", "", "\t"]),
  host: mostly(
    "Host: localhost",
    ...["Host: [", "Host: a b", "Host:", "Host: localhost:0x", "Host: localhost:99999", "X: x"],
    ...["Host: evil.example", "Host: localhost/x", "Host: \xff"],
  ),
  /** `LENGTH` is the body's. */
  framing: mostly(
    "Content-Length: LENGTH",
    ...["Content-Length: 1", "Content-Length: 9", "Content-Length: -1", "Content-Length: 1,1"],
    ...["Content-Length: 99999999", "Transfer-Encoding: chunked", "Transfer-Encoding: x", "X: x"],
    "Content-Length: LENGTH\r\nTransfer-Encoding: chunked",
  ),
  other: mostly(
    "Connection: close",
    ...["Expect: 100-continue", "Upgrade: websocket", "Connection: upgrade", "If-Match: \x80"],
    ...['If-None-Match: "\xff', "Origin: http://[", "Sec-Fetch-Site: x", " folded", "no colon"],
    ...[": no name", "a b: c", "\0: x", "X: \0", `X: ${"x".repeat(20_000)}`, "Host: localhost"],
    "Content-Type: text/plain",
  ),
  body: mostly(
    "1",
    ...["", "[", '"\xff"', "1\r\n1\r\n0\r\n\r\n", "1\r\n1\r\n", "ZZ\r\n1\r\n", "-1\r\n1\r\n"],
    ...["fffffffffffffffff\r\n1", "1\r\n1\r\nZZ\r\n", "1\r\n1X\r\n0\r\n\r\n", "0\r\n\r\n"],
    ...['{"KEY":1}', '[{"op":"put","key":"KEY"}]', "1GET /KEY HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  ),
  newline: mostly("\r\n", "\n", "\r"),
  /** How many bytes are sent. */
  length: fc.oneof({ weight: 3, arbitrary: fc.constant(Infinity) }, fc.nat({ max: 120 })),
  /** What the client does then. */
  end: mostly("wait", "half", "close"),
});
type RawRequest = typeof raw extends fc.Arbitrary<infer T> ? T : never;

function toBytes(request: RawRequest, key: string): Uint8Array {
  const { method, target, version, host, framing, other, newline, length } = request;
  const body = request.body.replaceAll("KEY", key);
  const lines = [
    `${method} ${target.replaceAll("KEY", key)}${version}`,
    host,
    framing.replaceAll("LENGTH", String(body.length)),
    "Content-Type: application/json",
    other,
  ];
  const text = `${lines.join(newline)}${newline}${newline}${body}`;
  return Uint8Array.from(text.slice(0, length), (char) => char.charCodeAt(0));
}

/** Sends bytes, and returns what comes back until the service closes or `PATIENCE` is over. */
async function exchange(port: number, bytes: Uint8Array, end: RawRequest["end"]): Promise<string> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  let answer = "";
  const timer = setTimeout(() => connection.close(), PATIENCE);
  try {
    await connection.write(bytes);
    if (end === "close") return "";
    if (end === "half") await connection.closeWrite();
    const buffer = new Uint8Array(4096);
    for (;;) {
      const count = await connection.read(buffer);
      if (count === null) break;
      answer += new TextDecoder("latin1").decode(buffer.subarray(0, count));
    }
  } catch (error) {
    // The service, or the timer, has closed the connection.
    assert(error instanceof Error && CUT.includes(error.name), String(error));
  } finally {
    clearTimeout(timer);
    try {
      connection.close();
    } catch (error) {
      assert(error instanceof Deno.errors.BadResource, String(error));
    }
  }
  return answer;
}

/** How long an answer is waited for, in milliseconds. One that comes later is not judged. */
const PATIENCE = 1000;
const CUT = ["BadResource", "Interrupted", "ConnectionReset", "BrokenPipe", "NotConnected"];

Deno.test("kv.ts survives malformed HTTP, and stores only what it acknowledges", async () => {
  const env = { DBM: ":memory:", PORT: "0", HOST: "127.0.0.1" };
  await using program = startScript("kv.ts", [], { env });
  const port = Number((await program.printed(/^kv: http:\/\/localhost:(\d+)/m))[1]);
  const refused = new Set<string>();
  let count = 0;
  const send = async (request: RawRequest) => {
    const key = `case-${++count}-`;
    const answer = await exchange(port, toBytes(request, key), request.end);
    const status = Number(/^HTTP\/1\.[01] (\d{3}) /.exec(answer)?.[1] ?? 0);
    assert(status < 500 || status === 503 || status === 507, answer);
    if (status >= 400) refused.add(key);
  };
  await fc.assert(
    fc.asyncProperty(fc.array(raw, { minLength: 200, maxLength: 200 }), async (requests) => {
      await Promise.all(requests.map(send));
    }),
    // Shrinking would take minutes: the answer that is printed tells enough.
    { numRuns: 10, endOnFailure: true },
  );
  const response = await fetch(`http://127.0.0.1:${port}/`);
  assertEquals(response.status, 200);
  const { keys } = await response.json() as { keys: string[] };
  for (const key of keys) {
    const name = /case-\d+-/.exec(key)?.[0] ?? "";
    assert(!refused.has(name), `${key} was refused, and is stored`);
  }
  // The cases are neither all refused nor all taken.
  assert(refused.size > 0 && keys.length > 0);
  assertNotMatch(program.output, /^kv: (?!http:)/m);
});

Deno.test("kv.ts answers 400, not 500, when the connection is reset within a body", async () => {
  const env = { DBM: ":memory:", PORT: "0", HOST: "127.0.0.1" };
  await using program = startScript("kv.ts", [], { env });
  const port = Number((await program.printed(/^kv: http:\/\/localhost:(\d+)/m))[1]);
  const framings = ["Content-Length: 9\r\n\r\n[", "Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"];
  const types = ["json", "x-www-form-urlencoded", "x-ndjson"];
  const cases = framings.flatMap((framing) => types.map((type) => [framing, type] as const));
  const breakOff = async ([framing, type]: typeof cases[number]) => {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    socket.write(`POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/${type}\r\n`);
    socket.write(framing);
    await delay(100);
    socket.resetAndDestroy();
    await once(socket, "close");
  };
  const refused = async () => {
    const text = await (await fetch(`http://127.0.0.1:${port}/?metrics`)).text();
    assertNotMatch(text, /status="5/);
    return Number(/^kv_requests_total\{method="POST",status="400"\} (\d+)$/m.exec(text)?.[1] ?? 0);
  };
  // A busy machine may learn of a request and of its end at once: then there was none.
  await eventually("an answer to each case", async () => {
    await Promise.all(cases.map(breakOff));
    await delay(100);
    return await refused() >= cases.length;
  });
  assertNotMatch(program.output, /^kv: (?!http:)/m);
});

Deno.test("kv.ts stores nothing of an upload over HTTP/2 that was cancelled", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const types = ["application/json", "application/x-ndjson"];
  const bodies = [['{"a":1}', "100"], ['{"b":1}', undefined]] as const;
  for (const type of types) {
    for (const [text, length] of bodies) {
      const client = http2.connect(server.url);
      const headers = { ":method": "POST", ":path": "/", "content-type": type };
      const stream = client.request(length ? { ...headers, "content-length": length } : headers);
      stream.on("error", () => {}); // it is cancelled
      stream.write(text);
      await delay(100);
      stream.close(http2.constants.NGHTTP2_CANCEL);
      await delay(100);
      client.destroy();
    }
  }
  assertEquals((await (await fetch(server.url)).json()).keys, []);
});

Deno.test("kv.ts answers 400 to malformed chunks", async () => {
  await using server = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  const port = Number(new URL(server.url).port);
  const send = async (type: string, chunks: string) => {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    const closed = once(socket, "close");
    let answer = "";
    socket.on("data", (data) => answer += data);
    socket.write(`POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/${type}\r\n`);
    socket.write("Transfer-Encoding: chunked\r\n\r\n");
    await delay(100);
    socket.end(chunks);
    await closed;
    return answer;
  };
  for (const chunks of ["ZZ\r\n1\r\n", "1\r\n1\r\nZZ\r\n", "1\r\n1X\r\n0\r\n\r\n"]) {
    for (const type of ["json", "x-www-form-urlencoded", "x-ndjson"]) {
      let answer = "";
      // Deno only closes the connection if the chunks come at once with the headers.
      while (answer === "") answer = await send(type, chunks);
      assertMatch(answer, /^HTTP\/1\.1 400 /);
    }
  }
  const metrics = await (await fetch(`${server.url}/?metrics`)).text();
  assertNotMatch(metrics, /status="5/);
  assertNotMatch(server.program.output, /^kv: (?!http:)/m);
});
