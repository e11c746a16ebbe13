/** How a server stops: requests under way are answered. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { get, serve, UUID4 } from "../helpers/http.ts";
import { startServer, temporaryDirectory } from "../helpers/programs.ts";

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`on ${signal}, kv.ts answers the requests under way and keeps what they wrote`, async () => {
    await using directory = await temporaryDirectory();
    const env = { DBM: join(directory.path, "kv.db") };
    const answered: string[] = [];
    {
      await using kv = await startServer("kv.ts", { env });
      const enough = Promise.withResolvers<void>();
      const writers = Array.from(
        { length: 16 },
        (_, writer) =>
          putUntilRefused(kv.url, `writer${writer}`, (key) => {
            if (answered.push(key) === 200) enough.resolve();
          }),
      );
      await Promise.race([enough.promise, Promise.all(writers)]);
      const begun = ["begun-1", "begun-2", "begun-3"];
      const connections = await Promise.all(begun.map((key) => beginPut(kv.url, key)));
      kv.program.signal(signal);
      await kv.program.printed(/^kv: stopping$/m);
      for (const connection of connections) {
        await connection.write(new TextEncoder().encode("1"));
        assertMatch(await readText(connection), /^HTTP\/1\.1 201 /);
        connection.close();
      }
      answered.push(...begun);
      await Promise.all(writers);
      assertEquals(await kv.program.exited, 0, kv.program.output);
    }
    await using kv = await startServer("kv.ts", { env });
    assertEquals(JSON.parse(await get(kv.url)).keys, answered.sort());
  });

  Deno.test(`on ${signal}, counter.ts answers a request that waits for the store`, async () => {
    const arrived = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    await using kv = await startServer("kv.ts");
    await using slowStore = serve(async (request) => {
      const { method, headers } = request;
      const body = await request.text();
      // At its start the counter looks at its store.
      if (!body.includes('"health"')) {
        arrived.resolve();
        await released.promise;
      }
      return await fetch(kv.url, { method, headers, body });
    });
    const KV_URL = slowStore.url;
    const config = { USE_SESSION_STORE: true, KV_URL };
    await using counter = await startServer("counter.ts", { config });
    const waiting = get(counter.url);
    await arrived.promise;
    counter.program.signal(signal);
    await counter.program.printed(/^counter: stopping$/m);
    // What stops it may send more than one signal at once, as foreman does on Ctrl-C.
    counter.program.signal("SIGTERM");
    released.resolve();
    assertMatch(await waiting, /Count: 1/);
    assertEquals(await counter.program.exited, 0);
    assertMatch(await get(kv.url), new RegExp(`^{"keys":\\["${UUID4}"\\]}$`));
  });
}

Deno.test("kv.ts stops when a long dump has been read, or after ten seconds", async () => {
  await using kv = await startServer("kv.ts");
  const value = "x".repeat(100_000);
  for (const half of [0, 1]) {
    const values = Array.from({ length: 100 }, (_, i) => [`${half}-${i}`, value]);
    const body = JSON.stringify(Object.fromEntries(values));
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(kv.url, { method: "POST", body, headers });
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
  const headers = { Accept: "application/x-ndjson" };
  const [read, leftAlone] = await Promise.all([1, 2].map(() => fetch(kv.url, { headers })));
  kv.program.signal("SIGTERM");
  await kv.program.printed(/^kv: stopping$/m);
  assertEquals((await read?.text())?.split("\n").length, 201);
  assertEquals(await kv.program.exited, 0, kv.program.output);
  await assertRejects(async () => await leftAlone?.text(), "a dump that is cut off is an error");
});

Deno.test("kv.ts exits immediately on a later second signal", async () => {
  await using kv = await startServer("kv.ts");
  using _request = await beginPut(kv.url, "key");
  kv.program.signal("SIGTERM");
  await kv.program.printed(/^kv: stopping$/m);
  await delay(600);
  kv.program.signal("SIGTERM");
  assertEquals(await kv.program.exited, 130);
});

/** Writes one key after the other, until the server accepts no more connections. */
async function putUntilRefused(url: string, writer: string, onAnswer: (key: string) => void) {
  const headers = { "Content-Type": "application/json" };
  for (let i = 0;; i++) {
    const key = `${writer}-${i}`;
    let response: Response;
    try {
      response = await fetch(`${url}/${key}`, { method: "PUT", headers, body: String(i) });
    } catch (error) {
      // The system resets the connections that wait to be accepted. What is stored at the end shows that
      // no such request was done.
      const reason = `${(error as Error).message} ${(error as Error).cause}`;
      assertMatch(reason, /\(Connect\)|Connection reset by peer/);
      return;
    }
    const answer = await response.text();
    if (answer.includes("The server is stopping")) {
      const guards = ["X-Content-Type-Options", "Cache-Control"].map((it) =>
        response.headers.get(it)
      );
      return assertEquals(guards, ["nosniff", "no-store"]);
    }
    assertEquals(response.status, 201, answer);
    onAnswer(key);
  }
}

/** Starts a request, and waits until the server asks for its body, one byte. */
async function beginPut(url: string, key: string): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const request = `PUT /${key} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n` +
    "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n";
  await connection.write(new TextEncoder().encode(request));
  assertMatch(await readText(connection), /^HTTP\/1\.1 100 /);
  return connection;
}

async function readText(connection: Deno.TcpConn): Promise<string> {
  const buffer = new Uint8Array(1024);
  const size = await connection.read(buffer);
  return new TextDecoder().decode(buffer.subarray(0, size ?? 0));
}
