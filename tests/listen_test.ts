/** server/listen.ts: what a server does when it runs out of file descriptors. */
import { assertEquals, assertMatch } from "@std/assert";
import { listenAgain } from "../server/listen.ts";
import { logged } from "./helpers/captured_errors.ts";
import { eventually, freePort, Program, PROJECT } from "./helpers/programs.ts";

/** Fewer than the connections that a client opens, and enough for the server itself. */
const DESCRIPTORS = 200;
const CONNECTIONS = 300;
/** The errors of a connection that is refused, or closed while it is opened or written to. */
const REFUSALS = [
  Deno.errors.BrokenPipe,
  Deno.errors.ConnectionAborted,
  Deno.errors.ConnectionRefused,
  Deno.errors.ConnectionReset,
  Deno.errors.NotConnected,
];

for (const script of ["kv.ts", "counter.ts"]) {
  Deno.test(`${script} outlives more connections than it has file descriptors`, async () => {
    await using server = await startLimited(script);
    using _ = await connectOften(server.port);
    await server.printed(/: Error: Too many open files .*: closing idle connections\n/);
    await eventually("an answer", () => answers(server.port));
    assertEquals(await server.stop(), 0, server.output);
  });
}

Deno.test("kv.ts goes on with a response when file descriptors run out", async () => {
  await using server = await startLimited("kv.ts");
  const url = `http://127.0.0.1:${server.port}/`;
  const watch = await fetch(url, { headers: { Accept: "text/event-stream" } });
  using _ = await connectOften(server.port);
  await server.printed(/closing idle connections\n/);
  await eventually("an answer", () => answers(server.port));
  const headers = { "Content-Type": "application/json" };
  const put = await fetch(`${url}foo`, { method: "PUT", headers, body: "1" });
  assertEquals([put.status, await put.text()], [201, '{"foo":1}']);
  let received = "";
  for await (const text of watch.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    received += text;
    if (received.includes('"foo"')) break;
  }
  assertMatch(received, /"foo"/);
});

Deno.test("listenAgain() tries less and less often until it listens, or is to stop", async () => {
  const waits: number[] = [];
  const sleep = (milliseconds: number) => {
    waits.push(milliseconds);
    return Promise.resolve();
  };
  const serve = () => {
    if (waits.length < 8) throw new Error("No descriptors");
    return "server";
  };
  const log = await logged(async () => {
    const running = new Promise<null>(() => {});
    assertEquals(await listenAgain(serve, running, sleep), "server");
  });
  assertEquals(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  assertEquals(log, Array(7).fill("No descriptors").join("\n"));
  assertEquals(await listenAgain(serve, Promise.resolve(null), sleep), null);
});

/** Starts a server that may open few files. */
async function startLimited(script: string) {
  const port = freePort();
  const run = `ulimit -n ${DESCRIPTORS} && exec "$0" run -A --no-check ${script}`;
  const env = { PORT: String(port), DBM: ":memory:", SECRET_KEY: "a secret key for the tests" };
  const program = new Program("sh", ["-c", run, Deno.execPath()], { cwd: PROJECT, env });
  await program.printed(/: http:/);
  return Object.assign(program, { port });
}

/** Opens connections that send nothing, or half a request, until one is refused. */
async function connectOften(port: number): Promise<Disposable> {
  const connections: Deno.TcpConn[] = [];
  try {
    while (connections.length < CONNECTIONS) {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port });
      connections.push(connection);
      if (connections.length % 2) {
        await connection.write(new TextEncoder().encode("GET / HTTP/1.1\r\nH"));
      }
    }
  } catch (error) {
    if (!REFUSALS.some((refusal) => error instanceof refusal)) throw error;
  }
  return { [Symbol.dispose]: () => connections.forEach((it) => it.close()) };
}

async function answers(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/`);
    await response.body?.cancel();
    return response.status === 200;
  } catch (error) {
    if (error instanceof TypeError) return false;
    throw error;
  }
}
