/** Whose code takes the CPU time of a request: ours, a package's, or Deno's. */
import { join } from "node:path";
import { Program, PROJECT } from "../tests/helpers/programs.ts";
import {
  cpuSeconds,
  type Line,
  type Load,
  load,
  type Options,
  progress,
  type Started,
} from "./load.ts";
import { SECRET, Servers, visits } from "./servers.ts";
import { table } from "./tables.ts";

/** Of a profile, what is read here: https://chromedevtools.github.io/devtools-protocol/tot/Profiler */
interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[];
  samples: number[];
  /** How long each sample stands for, in microseconds. */
  timeDeltas: number[];
}

/** A server that Deno profiles. */
interface Profiled extends Started {
  name: string;
  program: Program;
  directory: string;
}

const OWNERS = ["ours", "packages", "Deno, JavaScript", "garbage collection"] as const;
type Owner = typeof OWNERS[number];

/** A page with either kind of session, and a read and a write of the service, synced. */
export async function profiles(options: Options): Promise<string> {
  await using servers = new Servers();
  const start = (name: string, script: string, env: Record<string, string> = {}) =>
    profiled(servers, name, script, env);
  const kv = await start("page over kv.ts: kv.ts", "kv.ts");
  const store = { USE_SESSION_STORE: "true", KV_URL: kv.url };
  const counter = await start("page over kv.ts: counter.ts", "counter.ts", store);
  const cookie = await start("page, signed cookie", "counter.ts");
  const [reader, writer] = [await start("GET /key", "kv.ts"), await start("PUT /key", "kv.ts")];
  const read: Line = { method: "GET", path: "/key" };
  const write: Line = { method: "PUT", path: "/key", type: "application/json", body: '"value"' };
  const columns = [
    ...await run([cookie], await visits(cookie, options), { ...options, rolling: true }),
    ...await run([counter, kv], await visits(counter, options), options),
    ...await run([reader], [read], options),
    ...await run([writer], [write], options),
  ];
  const rows = [...OWNERS, "Deno, native", "together"].map((owner, i) => [
    owner,
    ...columns.map(({ micros }) => (micros[i] ?? NaN).toFixed(1)),
  ]);
  return table(["CPU µs a request", ...columns.map(({ name }) => name)], rows);
}

/** Starts a server that writes its profile when it ends. */
async function profiled(
  servers: Servers,
  name: string,
  script: string,
  env: Record<string, string>,
): Promise<Profiled> {
  const directory = await servers.directory();
  const flags = ["run", "-A", "--cpu-prof", `--cpu-prof-dir=${directory}`];
  const program = servers.use(
    new Program(Deno.execPath(), [...flags, join(PROJECT, script)], {
      cwd: directory,
      env: { ...SECRET, PORT: "0", ...env },
    }),
  );
  const [, port] = await program.printed(/http:\/\/\S+:(\d+) \(/);
  return { name, program, directory, url: `http://127.0.0.1:${port}`, pids: [program.pid] };
}

/** Loads the first of the servers for all rounds together, and stops them. */
async function run(
  servers: Profiled[],
  lines: Line[],
  options: Options & Pick<Load, "rolling">,
) {
  const [{ name }] = servers as [Profiled];
  progress(name);
  const seconds = options.rounds * options.seconds;
  const begun = performance.now();
  const before = servers.map(({ pids }) => cpuSeconds(pids));
  const { requests } = await load(servers[0] as Profiled, { ...options, lines, seconds });
  const cpu = servers.map(({ pids }, i) => (cpuSeconds(pids) - (before[i] ?? 0)) * 1e6);
  const columns = [];
  for (const [i, { name, program, directory }] of servers.entries()) {
    const lasted = (performance.now() - begun) * 1000;
    await program.stop();
    const times = await ownersOf(directory, lasted);
    const sampled = OWNERS.map((owner) => times[owner]);
    const all = cpu[i] ?? NaN;
    const native = all - sampled.reduce((sum, time) => sum + time);
    columns.push({ name, micros: [...sampled, native, all].map((time) => time / requests) });
  }
  return columns;
}

/** The time of each owner in the last microseconds of a profile. What V8 calls idle is nobody's. */
async function ownersOf(directory: string, lasted: number): Promise<Record<Owner, number>> {
  const [file] = await Array.fromAsync(Deno.readDir(directory), ({ name }) => name)
    .then((names) => names.filter((name) => name.endsWith(".cpuprofile")));
  if (file === undefined) throw new Error("Deno has written no profile");
  const { nodes, samples, timeDeltas }: Profile = JSON.parse(
    await Deno.readTextFile(join(directory, file)),
  );
  const owners = new Map(nodes.map(({ id, callFrame }) => [id, ownerOf(callFrame)]));
  const times = { ours: 0, packages: 0, "Deno, JavaScript": 0, "garbage collection": 0 };
  let left = lasted;
  for (let i = samples.length - 1; i >= 0 && left > 0; i--) {
    const owner = owners.get(samples[i] ?? 0);
    const time = timeDeltas[i] ?? 0;
    if (owner) times[owner] += time;
    left -= time;
  }
  return times;
}

function ownerOf({ functionName, url }: Profile["nodes"][number]["callFrame"]): Owner | undefined {
  if (functionName === "(garbage collector)") return "garbage collection";
  if (url.startsWith("ext:") || url.startsWith("node:")) return "Deno, JavaScript";
  if (url.includes("/npm/")) return "packages";
  return url.startsWith("file:") ? "ours" : undefined;
}
