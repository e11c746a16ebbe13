/**
 * A network of machines that a test can cut off from one another: each is a network namespace of
 * Linux, and a bridge joins them and this machine. Leaving the scope removes all.
 */
import { isInstalled } from "./programs.ts";

/** An address that no machine has: frames to it are lost, as on a cut cable. */
const NOWHERE = "lladdr 02:00:00:00:00:00 nud permanent";

/** A machine of the network. */
export interface Machine {
  readonly address: string;
  /** Its network namespace: `ip netns exec <namespace> <program>` runs a program on it. */
  readonly namespace: string;
}

let networks = 0;

/** Machines, and this one, on one network. */
export class Network implements AsyncDisposable {
  readonly machines: Machine[];
  readonly #name: string;

  private constructor(name: string, subnet: string, size: number) {
    this.#name = name;
    this.machines = Array.from({ length: size }, (_, i) => {
      return { address: `${subnet}.${i + 2}`, namespace: `${name}n${i}` };
    });
  }

  static async start(size: number): Promise<Network> {
    await removeStale();
    const name = `t${Deno.pid}x${networks++}`;
    // Of the range for tests of networks, RFC 2544; another test may have the same at the same time.
    const used = await ip(["address"]);
    const free = Array.from({ length: 256 }, (_, i) => `198.18.${(Deno.pid + i) % 256}`)
      .find((subnet) => !used.includes(`${subnet}.`));
    const network = new Network(name, free ?? "198.19.0", size);
    try {
      await network.#create();
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
    return network;
  }

  async #create(): Promise<void> {
    const bridge = this.#name;
    const [subnet] = /^.*(?=\.)/.exec(this.machines[0]?.address ?? "") ?? [];
    await ip([
      `link add ${bridge} type bridge`,
      `addr add ${subnet}.1/24 dev ${bridge}`,
      `link set ${bridge} up`,
      ...this.machines.flatMap(({ namespace }) => [
        `netns add ${namespace}`,
        `link add ${namespace} type veth peer name eth0 netns ${namespace}`,
        `link set ${namespace} master ${bridge} up`,
      ]),
    ]);
    await Promise.all(this.machines.map(({ address, namespace }) => {
      const lines = [`addr add ${address}/24 dev eth0`, "link set eth0 up", "link set lo up"];
      return ip(lines, namespace);
    }));
  }

  /** Cuts a machine off from the others. This one still reaches it. */
  async cut(machine: Machine): Promise<void> {
    await this.#everyPair(machine, (address) => `neigh replace ${address} ${NOWHERE} dev eth0`);
  }

  /** Undoes a cut. */
  async heal(machine: Machine): Promise<void> {
    await this.#everyPair(machine, (address) => `neigh del ${address} dev eth0`);
  }

  async #everyPair(machine: Machine, line: (address: string) => string): Promise<void> {
    const others = this.machines.filter((it) => it !== machine);
    await Promise.all([
      ip(others.map(({ address }) => line(address)), machine.namespace),
      ...others.map(({ namespace }) => ip([line(machine.address)], namespace)),
    ]);
  }

  /** Cuts a machine off from all, this one too: as if it had lost its power. */
  async lose(machine: Machine): Promise<void> {
    await ip([`link set ${machine.namespace} down`]);
  }

  /** Undoes a loss. */
  async find(machine: Machine): Promise<void> {
    await ip([`link set ${machine.namespace} up`]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await remove([this.#name, ...this.machines.map(({ namespace }) => namespace)]);
  }
}

/** Whether this process may make network namespaces: that takes root, and a kernel that has them. */
export const hasNamespaces = isInstalled("ip") && await (async () => {
  try {
    const network = await Network.start(1);
    await network[Symbol.asyncDispose]();
    return true;
  } catch {
    return false;
  }
})();

/** Runs `ip` commands, on this machine or in a namespace, and returns what they print. */
async function ip(lines: string[], namespace?: string): Promise<string> {
  const process = new Deno.Command("ip", {
    args: [...namespace === undefined ? [] : ["-netns", namespace], "-batch", "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = process.stdin.getWriter();
  await input.write(new TextEncoder().encode(lines.join("\n") + "\n"));
  await input.close();
  const { success, stdout, stderr } = await process.output();
  if (!success) throw new Error(`ip: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Removes links and namespaces of these names, if they are there. */
async function remove(names: string[]): Promise<void> {
  for (const name of names) {
    await ip([`link del ${name}`]).catch(() => {}); // its namespace may be gone, and it with that
    await ip([`netns del ${name}`]).catch(() => {}); // the bridge has none
  }
}

/** Removes what a test left behind whose process was killed. */
async function removeStale(): Promise<void> {
  const names = (await ip(["netns list", "link"])).matchAll(/\bt(\d+)x\d+(?:n\d+)?\b/g);
  const stale = [...names].filter(([, pid]) => !isAlive(`/proc/${pid}`)).map(([name]) => name);
  if (stale.length > 0) await remove(stale);
}

function isAlive(process: string): boolean {
  try {
    return Deno.statSync(process).isDirectory;
  } catch {
    return false;
  }
}
