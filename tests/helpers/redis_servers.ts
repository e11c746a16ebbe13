/**
 * Redis servers for one test: alone, a Cluster, or a master with Sentinels, on free ports of
 * loopback, with their files in a temporary directory. Leaving the scope stops them.
 */
import { join } from "node:path";
import { eventually, freePort, Program } from "./programs.ts";

/** The programs that these servers need. */
export const REDIS = ["redis-server", "redis-cli", "timeout"];

/** A running `redis-server`. */
export interface Server extends AsyncDisposable {
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
  const { port = freePort(), settings = [], args = [], until = /PONG|NOAUTH/ } = options;
  const directory = options.directory ?? await Deno.makeTempDir();
  const config = join(directory, `${port}.conf`);
  const lines = [`port ${port}`, "bind 127.0.0.1", `dir ${directory}`, 'save ""', ...settings];
  // The log is a file: output of a server that tests share would look like a test's leak.
  await Deno.writeTextFile(config, [...lines, `logfile ${port}.log`, ""].join("\n"));
  const program = new Program("redis-server", [config, ...args]);
  await eventually(
    `a server on port ${port}`,
    async () => until.test(await cli(port, "PING")),
  );
  return {
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
      settings: [
        "cluster-enabled yes",
        `cluster-port ${freePort()}`,
        "repl-diskless-sync-delay 0",
      ],
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

/**
 * A master with a replica, and three Sentinels that call it `mymaster`. Master and replica first.
 *
 * @param password Of master and replica
 * @param sentinelPassword Of the Sentinels
 */
export async function startSentinels(
  password?: string,
  sentinelPassword?: string,
): Promise<Servers> {
  const login = password === undefined ? [] : ["-a", password, "--no-auth-warning"];
  const sentinelLogin = sentinelPassword === undefined
    ? []
    : ["-a", sentinelPassword, "--no-auth-warning"];
  const settings = ["repl-diskless-sync-delay 0"];
  if (password !== undefined) settings.push(`requirepass ${password}`, `masterauth ${password}`);
  const master = await startRedis({ settings });
  const replica = await startRedis({
    settings: [...settings, `replicaof 127.0.0.1 ${master.port}`],
  });
  const sentinels = await Promise.all(Array.from({ length: 3 }, () =>
    startRedis({
      args: ["--sentinel"],
      settings: [
        `sentinel monitor mymaster 127.0.0.1 ${master.port} 2`,
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
      sentinels.map(({ port }) => cli(port, ...sentinelLogin, "INFO", "sentinel")),
    );
    return states.every((state) => /status=ok,.*slaves=1,sentinels=3/.test(state)) &&
      /master_link_status:up/.test(await cli(replica.port, ...login, "INFO", "replication"));
  });
  return together(
    [master, replica, ...sentinels],
    sentinels.map(({ port }) => `127.0.0.1:${port}`),
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
export async function cli(...args: (string | number)[]): Promise<string> {
  const words = args.flatMap((arg) => typeof arg === "number" ? ["-p", String(arg)] : [arg]);
  const { stdout, stderr } = await new Deno.Command("timeout", {
    args: ["60", "redis-cli", ...words],
  })
    .output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}
