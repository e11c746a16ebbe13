/**
 * Both servers: the counter and the key-value service; or one of them.
 *
 * ```sh
 * deno task start                          # http://localhost:5000 and http://localhost:5100
 * PORT=8000 deno task start                # the counter on 8000, the service 100 ports above
 * PORT=8000 KV_PORT=9000 deno task start
 * deno task dev                            # restarts them when a source file changes
 * deno task lesson                         # two counters: sessions in a cookie, and in the service
 * deno task kv                             # the service alone, on port 5100
 * deno task counter                        # the counter alone
 * ```
 *
 * Each server is a process of its own, so that they use two cores. It has the permissions that its
 * configuration needs, and no others. If one ends, the others are stopped, the counters first, so that
 * the service answers their last requests. They also end with this program, even if it is killed,
 * since that ends their standard input. SIGHUP is passed on by it.
 *
 * @module
 */
import {
  type Config,
  ConfigError,
  configFile,
  DEFAULT_KV_URL,
  readConfig,
} from "./server/config.ts";
import { hostPort } from "./server/listen.ts";
import { permissionsOf } from "./server/permissions.ts";
import { CHILD, onHangUp, printWarnings, type Program, run, stopSignal } from "./server/program.ts";
import { within } from "./stores/timers.ts";

/** How long a server may take to stop, in milliseconds: more than it gives itself. */
const STOP_GRACE = 12_000;
/** What can be started: the tasks of `deno.json`. */
const TASKS = ["start", "dev", "lesson", "kv", "counter"] as const;
type Task = typeof TASKS[number];

interface Server {
  /** What its log lines begin with. */
  name: string;
  script: "counter.ts" | "kv.ts";
  port: number;
  /** The variable that moves it to another port. */
  portVariable: "PORT" | "KV_PORT";
  /** The URL of its store, if it has one. */
  store?: string | undefined;
  env?: Record<string, string>;
}

/** A server that runs. `end` resolves to its exit code, and how it has ended, for the log. */
type Running = ReturnType<typeof spawn>;

/** The servers of a task, and where each listens. */
function serversOf(task: Task, config: Config): Server[] {
  const { PORT = 5000, KV_PORT = PORT === 0 ? 5100 : PORT + 100 } = config;
  const { HOST, KV_URL, DBM, SESSION_COOKIE_NAME } = config;
  const kv: Server = {
    name: "kv",
    script: "kv.ts",
    port: KV_PORT,
    portVariable: "KV_PORT",
    store: DBM,
  };
  if (task === "kv") return [{ ...kv, port: config.PORT ?? 5100, portVariable: "PORT" }];
  const counter = (name: string, port: number, inStore: boolean, env = {}): Server => {
    // The default address is the service's own, whatever its host and port.
    const isOurs = KV_URL === DEFAULT_KV_URL && task !== "counter";
    const host = ["127.0.0.1", "0.0.0.0", "::"].includes(HOST) ? "localhost" : HOST;
    const url = isOurs ? `http://${hostPort(host, KV_PORT)}` : KV_URL;
    return {
      name,
      script: "counter.ts",
      port,
      portVariable: "PORT",
      store: inStore ? url : undefined,
      // Its rights are for this kind of session. Otherwise no variable: no file could change it.
      env: { ...isOurs && { KV_URL: url }, USE_SESSION_STORE: `${inStore}`, ...env },
    };
  };
  if (task === "lesson") {
    return [
      counter("cookie", PORT, false),
      // Browsers send a cookie to every port of its host.
      counter("store", PORT + 1, true, { SESSION_COOKIE_NAME: `${SESSION_COOKIE_NAME}_id` }),
      kv,
    ];
  }
  // A restarted counter accepts the cookies that it signed before.
  const ownKey = task === "dev" && config.SECRET_KEY === undefined;
  const env = ownKey ? { SECRET_KEY: crypto.randomUUID() } : {};
  const one = counter("counter", PORT, config.USE_SESSION_STORE, env);
  return task === "counter" ? [one] : [one, kv];
}

/** @throws {ConfigError} If a port follows from another one, and there is no such port */
function checkPort({ name, port, portVariable }: Server): void {
  if (port <= 65535) return;
  const wanted = portVariable === "KV_PORT" ? "set KV_PORT" : "set a lower PORT";
  throw new ConfigError(`There is no port ${port} for ${name}: ${wanted}`);
}

function spawn(server: Server, task: Task, { HOST, PORT, KV_PORT }: Config) {
  const { name, script, port, portVariable, store } = server;
  const watch = task === "dev" ? ["--watch", "--no-clear-screen"] : [];
  const permissions = permissionsOf({ hostname: HOST, port, config: configFile(), store });
  const url = new URL(script, import.meta.url).href;
  // A command for another port keeps the port that was given for the other server.
  const [other, given] = portVariable === "PORT" ? ["KV_PORT", KV_PORT] : ["PORT", PORT];
  const variables = given === undefined ? portVariable : `${other}=${given} ${portVariable}`;
  const args = ["run", ...watch, ...permissions, url, CHILD, name, variables, task];
  const env = { PORT: `${port}`, ...server.env };
  const process = new Deno.Command(Deno.execPath(), { args, env, stdin: "piped" }).spawn();
  const end = process.status.then(({ code, signal }) => {
    return { code, how: `${name} has ended with ${signal ?? `exit code ${code}`}` };
  });
  return { process, input: process.stdin.getWriter(), script, end };
}

/** Runs the servers until a signal arrives or one of them ends, then stops them all. */
async function runServers(task: Task, program: Program): Promise<void> {
  const stop = stopSignal(program);
  const config = readConfig();
  const servers = serversOf(task, config);
  for (const server of servers) checkPort(server);
  printWarnings(program.warnings);
  const running = new Set<Running>();
  const kill = () => running.forEach(({ process }) => process.kill("SIGKILL"));
  addEventListener("unload", kill);
  // By their input: a signal would end one that does not listen yet. One that stops has none.
  onHangUp(() => running.forEach(({ input }) => input.write(new Uint8Array(1)).catch(() => {})));
  for (const server of servers) {
    const started = spawn(server, task, config);
    running.add(started);
    started.end.finally(() => running.delete(started));
  }
  const first = await Promise.race([stop, ...Array.from(running, ({ end }) => end)]);
  // With code 0 it received the signal first: a terminal sends Ctrl-C to all processes.
  if (first?.code) console.error(`${first.how}: stopping`);
  // A watcher continues when its program ends, and ignores SIGTERM meanwhile.
  if (task === "dev") kill();
  for (const script of ["counter.ts", "kv.ts"]) {
    await stopAll([...running].filter((it) => it.script === script));
  }
  if (first) Deno.exit(first.code);
}

/** Ends the servers' input, which stops them, and waits for their end. */
async function stopAll(servers: Running[]): Promise<void> {
  await Promise.all(servers.map(async ({ process, input, end }) => {
    input.close().catch(() => {}); // it has ended
    await within(STOP_GRACE, end, () => process.kill());
    await end;
  }));
}

if (import.meta.main) {
  await run("start", async (program) => {
    const task = TASKS.find((it) => it === (Deno.args[0] ?? "start"));
    if (task === undefined || Deno.args.length > 1) {
      throw new ConfigError(`Cannot start "${Deno.args.join(" ")}": expected ${TASKS.join(", ")}`);
    }
    await runServers(task, program);
  });
}
