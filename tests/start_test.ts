/** start.ts: both servers run, and end, together. */
import {
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertNotMatch,
  assertRejects,
} from "@std/assert";
import { join } from "node:path";
import { cookieOf, get } from "./helpers/http.ts";
import {
  childrenOf,
  eventually,
  freePort,
  Program,
  PROJECT,
  runToEnd,
  testIPv6,
  testWith,
} from "./helpers/programs.ts";

Deno.test("deno task start runs both servers and prints which line is whose", async () => {
  await using both = await start("start", { KV_TOKENS: "x" });
  await both.listen();
  assertEquals(both.output.match(/KV_TOKENS has no effect/g)?.length, 1, both.output);
  assertMatch(await get(both.counterUrl), /Count: 1/);
  assertEquals(await get(both.kvUrl), '{"keys":[]}');
  assertEquals(await both.stop("SIGTERM"), 0, both.output);
  assertMatch(both.output, /^counter: stopping$/m);
  assertMatch(both.output, /^kv: stopping$/m);
  await both.isGone();
});

testWith(
  [5000, 5001, 5100].filter(isTaken).map((port) => `port ${port}`),
  "deno task start, lesson, counter and kv listen on the ports 5000, 5001 and 5100 by default",
  async () => {
    const ports = { PORT: "", KV_PORT: "", HOST: "", APP_CONFIG: "", KV_URL: "" };
    for (
      const [task, urls] of [
        ["start", ["counter: http://localhost:5000", "kv: http://localhost:5100"]],
        ["lesson", [
          "cookie: http://localhost:5000",
          "store: http://localhost:5001",
          "kv: http://localhost:5100",
        ]],
        ["counter", ["counter: http://localhost:5000"]],
        ["kv", ["kv: http://localhost:5100"]],
      ] as const
    ) {
      await using program = await start(task, ports);
      for (const url of urls) await program.printed(new RegExp(`^${url} \\(`, "m"));
      for (const url of urls) await get(url.replace(/^\w+: /, ""));
      assertEquals(await program.stop(), 0, program.output);
    }
  },
);

Deno.test("start.ts points its counter to the service, whatever its port", async () => {
  await using both = await start("start", { USE_SESSION_STORE: "true" });
  await both.listen();
  assertMatch(both.output, new RegExp(`\\(sessions in ${both.kvUrl}\\)`));
  assertMatch(await get(both.counterUrl), /Count: 1/);
  assertMatch(await get(both.kvUrl), /^\{"keys":\["[\w-]{36}"\]\}$/);
});

for (
  const [HOST, host, test] of [
    ["127.0.0.2", "127.0.0.2", Deno.test],
    ["::1", "[::1]", testIPv6],
  ] as const
) {
  test(`start.ts points its counter to the service that listens on ${HOST}`, async () => {
    await using both = await start("start", { USE_SESSION_STORE: "true", HOST });
    await both.printed(/^counter: http[^]*^kv: http|^kv: http[^]*^counter: http/m);
    assertMatch(await get(`http://${host}:${both.port}`), /Count: 1/);
    assertMatch(await get(`http://${host}:${both.port + 100}`), /^\{"keys":\["[\w-]{36}"\]\}$/);
  });
}

Deno.test("start.ts stops the counter when the service cannot start, and says what to type", async () => {
  const port = freePorts();
  using _taken = Deno.listen({ hostname: "127.0.0.1", port: port + 100 });
  await using both = await start("start", { PORT: `${port}` });
  assertEquals(await both.exited, 1, both.output);
  const taken = `Port ${port + 100} of 127\\.0\\.0\\.1 is taken`;
  const hint = `${taken}: .*: PORT=${port} KV_PORT=\\d+ deno task start`;
  assertMatch(both.output, new RegExp(`^kv: ${hint}$`, "m"));
  assertMatch(both.output, /^start: kv has ended with exit code 1: stopping$/m);
  await assertRejects(() => fetch(both.counterUrl));
});

Deno.test("start.ts reports a wrong setting once", async () => {
  await using both = await start("start", { USE_SESSION_STORE: "yes" });
  assertEquals(await both.exited, 1);
  const lines = both.output.split("\n").filter((line) => line.includes("USE_SESSION_STORE"));
  assertEquals(lines, ['start: environment: USE_SESSION_STORE is "yes": expected true or false']);
});

Deno.test("start.ts says which port there is not", async () => {
  await using both = await start("start", { PORT: "65500" });
  assertEquals(await both.exited, 1);
  assertMatch(both.output, /^start: There is no port 65600 for kv: set KV_PORT$/m);
});

for (
  const [task, victim] of [
    ["start", "kv.ts"],
    ["start", "start.ts"],
    ["start", "deno task"],
    ["dev", "start.ts"],
    ["dev", "deno task"],
  ]
) {
  testWith(["pgrep"], `deno task ${task} ends both servers if ${victim} is killed`, async () => {
    await using both = await start(`${task}`);
    await both.listen();
    const parent = await childOf(both.pid, "start.ts");
    const [counter, kv] = [await childOf(parent, "counter.ts"), await childOf(parent, "kv.ts")];
    const victims = new Map([["kv.ts", kv], ["start.ts", parent], ["deno task", both.pid]]);
    Deno.kill(victims.get(`${victim}`) ?? NaN, "SIGKILL");
    await eventually("an end of both processes", async () => {
      return (await runToEnd("ps", ["--pid", `${counter},${kv}`])).code !== 0;
    });
    assertNotEquals(await both.exited, 0);
    await both.isGone();
  });
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  testWith(
    ["pgrep"],
    `on ${signal} to all of its processes, start.ts ends each page that was begun`,
    async () => {
      await using both = await start("start", { USE_SESSION_STORE: "true" });
      await both.listen();
      const statuses: number[] = [];
      const enough = Promise.withResolvers<void>();
      const visitors = Array.from({ length: 8 }, async () => {
        const cookie = await cookieOf(both.counterUrl);
        for (;;) {
          const response = await fetch(both.counterUrl, { headers: { Cookie: cookie } })
            .catch(() => null);
          if (response === null) return;
          await response.body?.cancel();
          if (statuses.push(response.status) === 100) enough.resolve();
        }
      });
      await enough.promise;
      // As a terminal and systemd send it: to deno task, start.ts and both servers at once.
      const parent = await childOf(both.pid, "start.ts");
      for (const pid of [both.pid, parent, ...await childrenOf(parent)]) Deno.kill(pid, signal);
      await Promise.all(visitors);
      assertEquals([...new Set(statuses)], [200]);
      assertEquals(await both.exited, 0, both.output);
      assertMatch(both.output, /^counter: stopping$[^]*^kv: stopping$/m);
    },
  );
}

for (const task of ["kv", "counter"] as const) {
  testWith(
    ["pgrep"],
    `deno task ${task} runs one server, and ends it when it is killed`,
    async () => {
      await using one = await start(task);
      const url = `http://localhost:${one.port}`;
      await one.printed(new RegExp(`^${task}: ${url} `, "m"));
      assertMatch(await get(url), task === "kv" ? /"keys"/ : /Count: 1/);
      one.signal("SIGKILL");
      await eventually("an end of the server", async () => {
        return await get(url).then(() => false, () => true);
      });
    },
  );
}

Deno.test("deno task dev restarts a server and keeps its cookies valid", async () => {
  await using both = await start("dev", { SECRET_KEY: "" });
  await both.printed(both.counterLine);
  const cookie = await cookieOf(both.counterUrl);
  // Counts as a change of the file.
  await Deno.utime(join(PROJECT, "counter.ts"), new Date(), new Date());
  await both.printed(new RegExp(`${both.counterLine.source}[^]*${both.counterLine.source}`, "m"));
  assertMatch(await get(both.counterUrl, { Cookie: cookie }), /Count: 2/);
  assertNotMatch(both.output, /SECRET_KEY/);
  await both.stop("SIGTERM");
  await both.isGone();
});

Deno.test("deno task lesson runs a counter with a cookie beside one with the service", async () => {
  await using both = await start("lesson");
  const storeUrl = `http://localhost:${both.port + 1}`;
  await both.printed(/^cookie: .*sessions in a signed cookie/m);
  await both.printed(new RegExp(`^store: ${storeUrl} \\(sessions in ${both.kvUrl}\\)$`, "m"));
  await both.printed(both.kvLine);
  const cookies = await Promise.all([both.counterUrl, storeUrl].map(cookieOf));
  assertMatch(cookies[0] ?? "", /^session=[\w-]+\.[\w-]+\.[\w-]+/);
  assertMatch(cookies[1] ?? "", /^session_id=[\w-]{36}$/);
  assertEquals(await both.stop("SIGTERM"), 0, both.output);
});

testWith(["script"], "start.ts stops both servers when a person types Ctrl-C", async () => {
  const port = freePorts();
  // The shell must not stay in between: it is /bin/sh where SHELL is not set, and Ctrl-C would end it.
  const command = `exec "${Deno.execPath()}" task start`;
  // script gives the command a terminal, whose Ctrl-C reaches all processes at once. deno task also
  // passes it on, so that start.ts has it twice.
  await using terminal = new Program("script", ["-qfec", command, "/dev/null"], {
    env: { PORT: `${port}`, DBM: ":memory:", SECRET_KEY: "a secret key for the tests" },
    stdin: "piped",
  });
  await terminal.printed(new RegExp(`counter: http://localhost:${port} `));
  await terminal.printed(new RegExp(`kv: http://localhost:${port + 100} `));
  await terminal.type("\x03", { more: true });
  assertEquals(await terminal.exited, 0, terminal.output);
  assertMatch(terminal.output, /counter: stopping/);
  assertMatch(terminal.output, /kv: stopping/);
  await terminal.type("");
});

testWith(
  ["foreman", "npx"],
  "foreman start runs both servers 100 ports apart, and stops them on SIGTERM",
  async () => {
    const port = freePorts();
    const args = ["start", "-t", "60", "-p", `${port}`];
    const env = { DBM: ":memory:", SECRET_KEY: "a secret key for the tests" };
    await using foreman = new Program("foreman", args, { env });
    await foreman.printed(
      new RegExp(`^[\\d:]+ counter.1 +\\| counter: http://localhost:${port} `, "m"),
    );
    await foreman.printed(
      new RegExp(`^[\\d:]+ kv.1 +\\| kv: http://localhost:${port + 100} `, "m"),
    );
    assertMatch(await get(`http://localhost:${port}`), /Count: 1/);
    assertEquals(await get(`http://localhost:${port + 100}`), '{"keys":[]}');
    assertEquals(await foreman.stop("SIGTERM"), 0, foreman.output);
    assertMatch(foreman.output, /counter.1 +\| exited with code 0\n/);
    assertMatch(foreman.output, /kv.1 +\| exited with code 0\n/);
    for (const it of [port, port + 100]) await assertRejects(() => fetch(`http://localhost:${it}`));
  },
);

function isTaken(port: number): boolean {
  try {
    Deno.listen({ hostname: "127.0.0.1", port }).close();
    return false;
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return true;
    throw error;
  }
}

/** Both servers by a task, on ports of their own and over a store of their own. */
async function start(task: string, env: Record<string, string> = {}) {
  const port = Number(env.PORT || freePorts());
  const program = new Program(Deno.execPath(), ["task", task], {
    env: {
      DBM: ":memory:",
      SECRET_KEY: "a secret key for the tests",
      NO_COLOR: "1",
      PORT: `${port}`,
      ...env,
    },
  });
  const counterUrl = `http://localhost:${port}`;
  const kvUrl = `http://localhost:${port + 100}`;
  const counterLine = new RegExp(`^(counter|cookie): ${counterUrl} \\(sessions in .*\\)$`, "m");
  const kvLine = new RegExp(`^kv: ${kvUrl} \\(store :memory:, entries: 0\\)$`, "m");
  return Object.assign(program, {
    port,
    counterUrl,
    kvUrl,
    counterLine,
    kvLine,
    /** Waits until both servers listen. */
    listen: async () => {
      for (const line of [counterLine, kvLine]) await program.printed(line);
    },
    /** Waits until neither port is listened on. */
    isGone: () =>
      eventually("an end of both servers", async () => {
        const fetched = await Promise.allSettled([counterUrl, kvUrl].map((url) => get(url)));
        return fetched.every(({ status }) => status === "rejected");
      }),
  });
}

/** The child process of `pid` whose command line has this text. */
async function childOf(pid: number, text: string): Promise<number> {
  const { stdout } = await runToEnd("pgrep", ["--parent", `${pid}`, "--full", text]);
  assertMatch(stdout, /^\d+\n$/);
  return Number(stdout);
}

/** A port that is free, and so are the next one and the one 100 above it. */
function freePorts(): number {
  for (;;) {
    const port = freePort();
    if (port + 100 > 65535) continue;
    try {
      for (const it of [1, 100]) Deno.listen({ hostname: "127.0.0.1", port: port + it }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
