/**
 * Services that fail: several `kv.ts` over one SQLite file, over one Redis, or over a Cluster, each
 * behind a proxy, with the faults that a seed chooses from.
 */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { disk } from "../helpers/disk.ts";
import { freePort, type Program, startScript } from "../helpers/programs.ts";
import { Proxy } from "../helpers/redis_faults.ts";
import { cli, type Server, startCluster, startRedis } from "../helpers/redis_servers.ts";

/** Something that fails for a while. */
export interface Fault {
  readonly name: string;
  /** Makes it fail for so many milliseconds, and resolves when it works again. */
  run(milliseconds: number): Promise<void>;
}

/** Services over one store, and how they fail. Leaving the scope stops all. */
export interface Setup extends AsyncDisposable {
  readonly name: string;
  /** The services, each through its proxy. */
  readonly urls: string[];
  readonly faults: Fault[];
  /** Whether a service reports what was written through another one. */
  readonly sharesChanges: boolean;
  /** Mends everything. */
  heal(): Promise<void>;
}

const SERVICES = 2;

/** One `kv.ts` behind a proxy. It keeps its port when it is killed and started again. */
class Service implements AsyncDisposable {
  readonly #port = freePort();
  readonly proxy = new Proxy(this.#port);
  readonly url = `http://127.0.0.1:${this.proxy.port}`;
  #program: Program | null = null;

  constructor(readonly env: Record<string, string>) {}

  async start(): Promise<void> {
    const env = { ...this.env, PORT: String(this.#port) };
    this.#program = startScript("kv.ts", [], { env });
    await this.#program.printed(/kv: http/);
  }

  async kill(milliseconds: number): Promise<void> {
    await this.#program?.stop("SIGKILL");
    await delay(milliseconds);
    await this.start();
  }

  async freeze(milliseconds: number): Promise<void> {
    await frozen(this.#program, milliseconds);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    await this.#program?.stop();
  }
}

async function frozen(program: Program | null, milliseconds: number): Promise<void> {
  program?.signal("SIGSTOP");
  await delay(milliseconds);
  program?.signal("SIGCONT");
}

/** What happens to each service, and between it and its clients. */
function serviceFaults(services: Service[]): Fault[] {
  return services.flatMap((service, i): Fault[] => {
    const { proxy } = service;
    const whileCut = (cut: "before" | "after") => async (milliseconds: number) => {
      proxy.cut = cut;
      await delay(milliseconds);
      proxy.heal();
    };
    return [
      { name: `kill -9 of service ${i}`, run: (time) => service.kill(time) },
      { name: `SIGSTOP of service ${i}`, run: (time) => service.freeze(time) },
      { name: `service ${i} is cut off before each request`, run: whileCut("before") },
      { name: `service ${i} is cut off after each request`, run: whileCut("after") },
      {
        name: `all connections to service ${i} are cut`,
        run: (time) => Promise.resolve(proxy.cutAll()).then(() => delay(time)),
      },
      {
        name: `service ${i} answers late`,
        async run(time) {
          proxy.late = 300;
          await delay(time);
          proxy.heal();
        },
      },
    ];
  });
}

async function setupOf(
  name: string,
  dbm: string,
  stores: readonly AsyncDisposable[],
  faults: (services: Service[]) => Fault[],
  environments: readonly Record<string, string>[] = [],
): Promise<Setup> {
  const services = Array.from(
    { length: SERVICES },
    (_, i) => new Service({ ...environments[i], DBM: dbm }),
  );
  for (const service of services) await service.start();
  return {
    name,
    urls: services.map(({ url }) => url),
    faults: [...serviceFaults(services), ...faults(services)],
    sharesChanges: dbm.startsWith("redis"),
    heal: () => Promise.resolve(services.forEach(({ proxy }) => proxy.heal())),
    async [Symbol.asyncDispose]() {
      for (const service of [...services, ...stores]) await service[Symbol.asyncDispose]();
    },
  };
}

/** Two services on one SQLite file. Needs `DISK`. */
export async function sqliteSetup(): Promise<Setup> {
  const directory = await Deno.makeTempDir();
  const made = await disk();
  const files = { [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }) };
  /** While this file exists, the disk or the clock is wrong. */
  const whileThere = (name: string, text = "") => async (milliseconds: number) => {
    await Deno.writeTextFile(join(directory, name), text);
    await delay(milliseconds);
    await Deno.remove(join(directory, name));
  };
  const environments = Array.from({ length: SERVICES }, (_, i) =>
    made.env({
      CLOCK_AHEAD: join(directory, `ahead${i}`),
      DISK_FULL: join(directory, "full"),
      DISK_FAILS: join(directory, `fails${i}`),
    }));
  const faults = (services: Service[]) => [
    { name: "the disk is full", run: whileThere("full") },
    ...services.flatMap((service, i): Fault[] => [
      { name: `the clock of service ${i} is an hour ahead`, run: whileThere(`ahead${i}`, "3600") },
      {
        name: `a sync of service ${i} fails, and it is killed`,
        run: (time) => whileThere(`fails${i}`)(time).then(() => service.kill(0)),
      },
    ]),
  ];
  const path = join(directory, "kv.db");
  return await setupOf("SQLite", path, [files, made], faults, environments);
}

/** Two services on one Redis, which syncs each write to its disk. */
export async function redisSetup(): Promise<Setup> {
  const directory = await Deno.makeTempDir();
  const port = freePort();
  const settings = ["appendonly yes", "appendfsync always"];
  const start = () => startRedis({ port, directory, settings });
  let redis: Server = await start();
  const faults: Fault[] = [
    {
      name: "kill -9 of Redis",
      async run(time) {
        await redis[Symbol.asyncDispose]();
        await delay(time);
        redis = await start();
      },
    },
    { name: "SIGSTOP of Redis", run: (time) => frozen(redis.program, time) },
    {
      name: "Redis forgets its scripts",
      run: async (time) => void await cli(port, "SCRIPT", "FLUSH").then(() => delay(time)),
    },
  ];
  const end = {
    async [Symbol.asyncDispose]() {
      await redis[Symbol.asyncDispose]();
      await Deno.remove(directory, { recursive: true });
    },
  };
  return await setupOf("Redis", `redis://127.0.0.1:${port}`, [end], () => faults);
}

/**
 * Two services on a Cluster of three masters and three replicas. No master is killed: a replica that
 * takes over then may lack what was acknowledged last, as Redis documents.
 */
export async function clusterSetup(): Promise<Setup> {
  const cluster = await startCluster();
  const faults: Fault[] = [
    {
      name: "a replica of the Cluster takes over",
      async run(time) {
        for (const { port } of cluster.servers) {
          if (!/role:slave/.test(await cli(port, "INFO", "replication"))) continue;
          await cli(port, "CLUSTER", "FAILOVER");
          break;
        }
        await delay(time);
      },
    },
    ...cluster.servers.map(({ program }, i): Fault => ({
      name: `SIGSTOP of server ${i} of the Cluster`,
      // Not for so long that a replica takes over.
      run: (time) => frozen(program, Math.min(time, 1000)),
    })),
  ];
  return await setupOf("Cluster", `redis+cluster://${cluster.hosts}`, [cluster], () => faults);
}
