/**
 * Both servers: the counter and the key-value service.
 *
 * ```sh
 * deno task start                          # http://localhost:5000 and http://localhost:5100
 * PORT=8000 deno task start                # the counter on 8000, the service 100 ports above
 * PORT=8000 KV_PORT=9000 deno task start
 * deno task dev                            # restarts them when a file changes
 * deno task lesson                         # two counters: sessions in a cookie, and in the service
 * ```
 *
 * Each server is a process of its own: they use two cores, and none waits for the other's work. If
 * one ends, the others are stopped. They also end with this program, even if it is killed, since that
 * ends their standard input.
 *
 * @module
 */
import { type Config, ConfigError, DEFAULT_KV_URL, readConfig } from "./server/config.ts";
import { CHILD, printWarnings, type Program, run, stopSignal } from "./server/program.ts";

/** How long the servers may take to stop, in milliseconds: more than each of them gives itself. */
const STOP_GRACE = 12_000;
/** What can be started: the tasks of `deno.json`. */
const TASKS = ["start", "dev", "lesson"] as const;
type Task = typeof TASKS[number];

/** A server to start. */
interface Server {
  /** What its log lines begin with. */
  name: string;
  script: "counter.ts" | "kv.ts";
  /** The variable that moves it to another port. */
  portVariable: "PORT" | "KV_PORT";
  env: Record<string, string>;
}

/** The servers of a task, and where each listens. */
function serversOf(task: Task, config: Config): Server[] {
  const { PORT = 5000, KV_PORT = PORT + 100, KV_URL, SESSION_COOKIE_NAME } = config;
  const kv: Server = {
    name: "kv",
    script: "kv.ts",
    portVariable: "KV_PORT",
    env: { PORT: `${KV_PORT}` },
  };
  const counter = (name: string, port: number, env: Record<string, string>): Server => ({
    name,
    script: "counter.ts",
    portVariable: "PORT",
    // The default address is the service's own, whatever its port.
    env: {
      PORT: `${port}`,
      ...KV_URL === DEFAULT_KV_URL && { KV_URL: `http://localhost:${KV_PORT}` },
      ...env,
    },
  });
  if (task === "lesson") {
    return [
      counter("cookie", PORT, { USE_SESSION_STORE: "false" }),
      counter("store", PORT + 1, {
        USE_SESSION_STORE: "true",
        // Browsers send a cookie to every port of its host.
        SESSION_COOKIE_NAME: `${SESSION_COOKIE_NAME}_id`,
      }),
      kv,
    ];
  }
  // A restarted counter accepts the cookies that it signed before.
  const ownKey = task === "dev" && config.SECRET_KEY === undefined;
  return [counter("counter", PORT, ownKey ? { SECRET_KEY: crypto.randomUUID() } : {}), kv];
}

function spawn({ name, script, portVariable, env }: Server, task: Task): Deno.ChildProcess {
  const watch = task === "dev" ? ["--watch", "--no-clear-screen"] : [];
  const permissions = ["--allow-net", "--allow-read", "--allow-write", "--allow-env"];
  const url = new URL(script, import.meta.url).href;
  const args = ["run", ...watch, ...permissions, url, CHILD, name, portVariable, task];
  return new Deno.Command(Deno.execPath(), { args, env, stdin: "piped" }).spawn();
}

/** Runs the servers until a signal arrives or one of them ends, then stops them all. */
async function runServers(task: Task, program: Program): Promise<void> {
  const stop = stopSignal(program);
  const running = new Set<Deno.ChildProcess>();
  addEventListener("unload", () => running.forEach((it) => it.kill("SIGKILL")));
  const servers = serversOf(task, readConfig());
  printWarnings(program.warnings);
  const ends = servers.map(async (server) => {
    const process = spawn(server, task);
    running.add(process);
    const { code, signal } = await process.status;
    running.delete(process);
    return { code, how: `${server.name} has ended with ${signal ?? `exit code ${code}`}` };
  });
  const first = await Promise.race([stop, ...ends]);
  // With code 0 it had the signal first, as Ctrl-C goes to all processes of a terminal.
  if (first?.code) console.error(`${first.how}: stopping`);
  for (const process of running) {
    await process.stdin.close();
    // A watcher goes on when its program ends, and handles no SIGTERM meanwhile.
    if (task === "dev") process.kill("SIGKILL");
  }
  const timer = setTimeout(() => running.forEach((it) => it.kill("SIGKILL")), STOP_GRACE);
  await Promise.all(ends);
  clearTimeout(timer);
  if (first) Deno.exit(first.code);
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
