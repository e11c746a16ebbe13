/**
 * Redis servers for one test: alone, a Cluster, or a master with Sentinels, on free ports of
 * loopback or on the machines of a network, with their files in a temporary directory. Leaving the
 * scope stops them.
 */
import { join } from "node:path";
import type { Machine } from "./network.ts";
import { eventually, freePort, Program, testWith } from "./programs.ts";

/** The programs that these servers need. */
export const REDIS = ["redis-server", "redis-cli", "timeout"];

/** Registers a test that needs them. */
export function test(name: string, run: () => Promise<void>): void {
  testWith(REDIS, name, run);
}

/** A running `redis-server`. */
export interface Server extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly program: Program;
}

/** Several servers, and their addresses: `host:port,host:port`. */
export interface Servers extends AsyncDisposable {
  readonly hosts: string;
  readonly servers: Server[];
}

/** How to start a server. */
export interface ServerOptions {
  /** Where it runs; by default on this machine, at 127.0.0.1. */
  machine?: Machine | undefined;
  port?: number;
  /** Where its files are; by default a temporary directory. */
  directory?: string;
  /** Lines for its redis.conf. */
  settings?: string[];
  args?: string[];
  /** What it answers to PING once it has started; by default that it is ready. */
  until?: RegExp;
}

export async function startRedis(options: ServerOptions = {}): Promise<Server> {
  const { machine, settings = [], args = [], until = /PONG|NOAUTH/ } = options;
  const { port = machine ? 6379 : freePort() } = options;
  const host = machine?.address ?? "127.0.0.1";
  const directory = options.directory ?? await Deno.makeTempDir();
  const config = join(directory, `${port}.conf`);
  const isMember = settings.includes("cluster-enabled yes");
  const lines = [
    `port ${port}`,
    `bind ${host}`,
    ...machine ? ["protected-mode no"] : isMember ? [`cluster-port ${freePort()}`] : [],
    `dir ${directory}`,
    'save ""',
    ...settings,
  ];
  // The log is a file: output of a server that tests share would look like a test's leak.
  await Deno.writeTextFile(config, [...lines, `logfile ${port}.log`, ""].join("\n"));
  const command = ["redis-server", config, ...args];
  const program = machine
    ? new Program("ip", ["netns", "exec", machine.namespace, ...command])
    : new Program("redis-server", command.slice(1));
  const ended = program.exited.then(() => "ended");
  let answer = "";
  await eventually(`a server on port ${port}`, async () => {
    // Another program may have the port, and say nothing.
    answer = await Promise.race([cli("-h", host, port, "PING"), ended]);
    return answer === "ended" || until.test(answer);
  });
  if (answer === "ended") {
    const log = await Deno.readTextFile(join(directory, `${port}.log`)).catch(() => "");
    // Another program was faster to listen on a port that was free.
    if (/in use/.test(log) && options.port === undefined) return await startRedis(options);
    throw new Error(`A server on port ${port} has ended:\n${log}${program.output}`);
  }
  return {
    host,
    port,
    program,
    async [Symbol.asyncDispose]() {
      await program.stop("SIGKILL");
      if (options.directory === undefined) await Deno.remove(directory, { recursive: true });
    },
  };
}

/** A Cluster of three masters, each with a replica. */
export async function startCluster(): Promise<Servers> {
  const servers = await Promise.all(Array.from({ length: 6 }, () =>
    startRedis({
      settings: ["cluster-enabled yes", "repl-diskless-sync-delay 0"],
    })));
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`);
  await cli("--cluster", "create", ...hosts, "--cluster-replicas", "1", "--cluster-yes");
  await eventually("a whole Cluster", async () => {
    const states = await Promise.all(
      servers.map(async ({ port }) => await cli(port, "CLUSTER", "INFO") + await cli(port, "INFO")),
    );
    return states.every((state) => /cluster_state:ok/.test(state)) &&
      states.filter((state) => /master_link_status:up/.test(state)).length === 3;
  });
  return together(servers, hosts);
}

/** How to start a Cluster by {@linkcode startClusterOn}. */
export interface ClusterOptions {
  /** Where its masters run; undefined: on this machine. */
  masters: readonly (Machine | undefined)[];
  /** Where replicas of the first masters run. */
  replicas?: readonly (Machine | undefined)[];
  /** How many slots the first master has; by default its share. */
  slots?: number;
  settings?: string[];
}

/** A Cluster that notices within two seconds that a server is gone. Masters first. */
export async function startClusterOn(options: ClusterOptions): Promise<Servers> {
  const { masters, replicas = [], slots = Math.floor(16384 / masters.length) } = options;
  const settings = [
    "cluster-enabled yes",
    "cluster-node-timeout 1500",
    "repl-diskless-sync-delay 0",
  ];
  const servers = await Promise.all([...masters, ...replicas].map((machine) => {
    return startRedis({ machine, settings: [...settings, ...options.settings ?? []] });
  }));
  const ids = await Promise.all(
    servers.map(async (it) => (await cli(it, "CLUSTER", "MYID")).trim()),
  );
  const share = (16384 - slots) / (masters.length - 1 || 1);
  const edge = (i: number) => i === 0 ? 0 : slots + Math.round((i - 1) * share);
  await Promise.all(
    servers.slice(0, masters.length).map(async (server, i) => {
      await cli(server, "CLUSTER", "SET-CONFIG-EPOCH", String(i + 1));
      await cli(server, "CLUSTER", "ADDSLOTSRANGE", String(edge(i)), String(edge(i + 1) - 1));
    }),
  );
  const bus = async (server: Server) =>
    /@(\d+)/.exec(await cli(server, "CLUSTER", "NODES"))?.[1] ?? "";
  const [first, ...others] = servers as [Server, ...Server[]];
  for (const it of others) {
    await cli(first, "CLUSTER", "MEET", it.host, String(it.port), await bus(it));
  }
  await eventually("replicas", async () => {
    const answers = servers.slice(masters.length).map((it, i) =>
      cli(it, "CLUSTER", "REPLICATE", ids[i] ?? "")
    );
    return (await Promise.all(answers)).every((it) => it.startsWith("OK"));
  });
  await eventually("a whole Cluster", async () => {
    const states = await Promise.all(
      servers.map(async (it) => await cli(it, "CLUSTER", "INFO") + await cli(it, "INFO")),
    );
    // The state is also ok without all slots, unless the settings require them.
    const wanted = ["cluster_state:ok", "cluster_slots_ok:16384", `_nodes:${servers.length}`];
    return states.every((state) => wanted.every((it) => state.includes(it))) &&
      states.filter((state) => /master_link_status:up/.test(state)).length === replicas.length;
  });
  return together(servers, servers.map(({ host, port }) => `${host}:${port}`));
}

/**
 * A master with a replica, and three Sentinels that call it `mymaster`. Master and replica first.
 *
 * @param password Of master and replica
 * @param sentinelPassword Of the Sentinels
 * @param machines Where they run: each has a Sentinel, and the first two have master and replica
 */
export async function startSentinels(
  password?: string,
  sentinelPassword?: string,
  machines: readonly Machine[] = [],
): Promise<Servers> {
  const login = password === undefined ? [] : ["-a", password, "--no-auth-warning"];
  const sentinelLogin = sentinelPassword === undefined
    ? []
    : ["-a", sentinelPassword, "--no-auth-warning"];
  const settings = ["repl-diskless-sync-delay 0"];
  if (password !== undefined) settings.push(`requirepass ${password}`, `masterauth ${password}`);
  const master = await startRedis({ machine: machines[0], settings });
  const replica = await startRedis({
    machine: machines[1],
    settings: [...settings, `replicaof ${master.host} ${master.port}`],
  });
  const sentinels = await Promise.all(Array.from({ length: 3 }, (_, i) =>
    startRedis({
      machine: machines[i],
      ...machines.length > 0 ? { port: 26379 } : {},
      args: ["--sentinel"],
      settings: [
        `sentinel monitor mymaster ${master.host} ${master.port} 2`,
        "sentinel down-after-milliseconds mymaster 2000",
        "sentinel failover-timeout mymaster 3000",
        ...(password === undefined ? [] : [`sentinel auth-pass mymaster ${password}`]),
        ...(sentinelPassword === undefined
          ? []
          : [`requirepass ${sentinelPassword}`, `sentinel sentinel-pass ${sentinelPassword}`]),
      ],
    })));
  await eventually("Sentinels that know one another", async () => {
    const states = await Promise.all(
      sentinels.map((it) => cli(it, ...sentinelLogin, "INFO", "sentinel")),
    );
    return states.every((state) => /status=ok,.*slaves=1,sentinels=3/.test(state)) &&
      /master_link_status:up/.test(await cli(replica, ...login, "INFO", "replication"));
  });
  return together(
    [master, replica, ...sentinels],
    sentinels.map(({ host, port }) => `${host}:${port}`),
  );
}

function together(servers: Server[], hosts: string[]): Servers {
  return {
    hosts: hosts.join(","),
    servers,
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}

/** Runs `redis-cli`, for a minute at most, and returns its output. A number is a server's port. */
export async function cli(...args: (string | number | Server)[]): Promise<string> {
  const words = args.flatMap((arg) => {
    if (typeof arg === "object") return ["-h", arg.host, "-p", String(arg.port)];
    return typeof arg === "number" ? ["-p", String(arg)] : [arg];
  });
  const { stdout, stderr } = await new Deno.Command("timeout", {
    args: ["60", "redis-cli", ...words],
  })
    .output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}
