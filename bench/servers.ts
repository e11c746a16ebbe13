/** Starts what the bench measures: the project's servers, the peers, and the programs beside them. */
import { join } from "node:path";
import {
  freePort,
  Program,
  type Server,
  startServer,
  temporaryDirectory,
} from "../tests/helpers/programs.ts";
import { startRedis } from "../tests/helpers/redis_servers.ts";
import type { Line, Options, Started } from "./load.ts";
import { PEERS } from "./peers.ts";

/** Servers of one part of the bench. Leaving the scope stops them, the last one first. */
export class Servers extends AsyncDisposableStack {
  /** Our counter; `KV_URL` and the like are its environment. */
  async counter(env: Record<string, string> = {}, needs: Started[] = []): Promise<Started> {
    const server = this.use(await startServer("counter.ts", { env: { ...SECRET, ...env } }));
    return started(server, needs);
  }

  /** Our counter with its sessions in a store. */
  async counterOver(KV_URL: string, needs: Started[] = []): Promise<Started> {
    return await this.counter({ USE_SESSION_STORE: "true", KV_URL }, needs);
  }

  /** Our key-value service; by default on a new SQLite file, synced. */
  async kv(
    DBM = "kv.db",
    needs: Started[] = [],
    env: Record<string, string> = {},
  ): Promise<Started> {
    return started(this.use(await startServer("kv.ts", { env: { DBM, ...env } })), needs);
  }

  async redis(): Promise<Started> {
    const { port, program } = this.use(await startRedis());
    return { url: `redis://127.0.0.1:${port}`, pids: [program.pid] };
  }

  /** A program of `limits/`, with the project's own dependencies. */
  async limit(file: string, env: Record<string, string> = {}): Promise<Started> {
    return await this.program(join(import.meta.dirname ?? "", "limits", file), env);
  }

  /** A program that prints its URL. */
  async program(path: string, env: Record<string, string> = {}): Promise<Started> {
    return await this.#printing(new Program(Deno.execPath(), ["run", "-A", path], { env }), []);
  }

  /** A program of `peers/`, run by Deno or by Node as its users run it. */
  async peer(
    runtime: "deno" | "node",
    file: string,
    env: Record<string, string> = {},
    needs: Started[] = [],
  ): Promise<Started> {
    // Neither the project's imports nor its lock are the peers'.
    const flags = ["run", "-A", "--no-config", "--no-lock", "--node-modules-dir=manual"];
    const [command, args] = runtime === "deno" ? [Deno.execPath(), flags] : ["node", []];
    const options = { cwd: PEERS, env: { NODE_ENV: "production", ...env } };
    const program = new Program(command, [...args, join(PEERS, file)], options);
    return await this.#printing(program, needs);
  }

  async #printing(program: Program, needs: Started[]): Promise<Started> {
    this.use(program);
    const [, url = ""] = await program.printed(/peer: (http:\S+)/, 60);
    return { url, pids: [program.pid, ...pids(needs)] };
  }

  async webdis(redis: Started): Promise<Started> {
    const port = freePort();
    const directory = await this.directory();
    const config = {
      redis_host: "127.0.0.1",
      redis_port: Number(new URL(redis.url).port),
      http_host: "127.0.0.1",
      http_port: port,
      threads: 2,
      daemonize: false,
      verbosity: 3,
      logfile: join(directory, "log"),
    };
    const file = join(directory, "webdis.json");
    await Deno.writeTextFile(file, JSON.stringify(config));
    return await this.#program("webdis", [file], `http://127.0.0.1:${port}`, "/GET/a", [redis]);
  }

  /** etcd with its HTTP API of version 2 beside the one of version 3. */
  async etcd(): Promise<Started> {
    const url = `http://127.0.0.1:${freePort()}`;
    const peer = `http://127.0.0.1:${freePort()}`;
    const args = ["--enable-v2", "--log-level=error", "--data-dir", await this.directory()];
    args.push("--listen-client-urls", url, "--advertise-client-urls", url);
    args.push("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer);
    args.push("--initial-cluster", `default=${peer}`);
    return await this.#program("etcd", args, url, "/health", []);
  }

  async #program(command: string, args: string[], url: string, path: string, needs: Started[]) {
    const program = this.use(new Program(command, args));
    await answers(url + path, program);
    return { url, pids: [program.pid, ...pids(needs)] };
  }

  /** A new directory, which is removed at the end. */
  async directory(): Promise<string> {
    return this.use(await temporaryDirectory()).path;
  }
}

/** What a counter needs besides. */
export const SECRET = { SECRET_KEY: "a secret key of the bench alone" };

function started({ program, url }: Server, needs: Started[]): Started {
  return {
    url: url.replace("localhost", "127.0.0.1"),
    pids: [program.pid, ...pids(needs)],
  };
}

function pids(servers: Started[]): number[] {
  return [...new Set(servers.flatMap(({ pids }) => pids))];
}

/** Waits, for 30 seconds at most, until a server answers. */
async function answers(url: string, program: Program): Promise<void> {
  for (const end = Date.now() + 30_000;;) {
    try {
      await (await fetch(url)).body?.cancel();
      return;
    } catch (error) {
      if (Date.now() > end) {
        throw new Error(`No answer from ${url}: ${program.output}`, { cause: error });
      }
      await new Promise((done) => setTimeout(done, 50));
    }
  }
}

/** The counter's page, in parts around the count, for peers that show the same one. */
export async function pageOf({ url }: Started): Promise<Record<string, string>> {
  const response = await fetch(url, PLAIN);
  const headers = Object.fromEntries(response.headers);
  for (const name of ["content-length", "date"]) delete headers[name];
  const { "set-cookie": _, "cache-control": __, vary: ___, ...own } = headers;
  const parts = (await response.text()).split("Count: 1");
  if (parts.length < 2) throw new Error(`Not a counter's first page: ${parts}`);
  return {
    PAGE: JSON.stringify({ headers: own, parts }),
    ALL_HEADERS: JSON.stringify(headers),
  };
}

/**
 * Loads a page as that many new browsers, and returns the loads that send their cookies back.
 *
 * @throws {Error} If a page that gets its cookie back does not count
 */
export async function visits({ url }: Started, { sessions }: Pick<Options, "sessions">) {
  const lines: Line[] = [];
  for (let i = 0; i < sessions; i++) {
    const response = await fetch(url, PLAIN);
    await response.body?.cancel();
    // Of two cookies with one name a browser keeps the last.
    const cookies = new Map(response.headers.getSetCookie().map(nameAndPair));
    lines.push({ method: "GET", path: "/", cookie: [...cookies.values()].join("; ") });
  }
  const Cookie = lines[0]?.cookie ?? "";
  const text = await (await fetch(url, { headers: { ...PLAIN.headers, Cookie } })).text();
  if (/Count: 1\b/.test(text)) throw new Error(`${url} does not keep its sessions`);
  return lines;
}

function nameAndPair(setCookie: string): [string, string] {
  const [pair = ""] = setCookie.split(";");
  return [pair.split("=")[0] ?? "", pair];
}

/** Otherwise Deno would compress its answers. */
const PLAIN = { headers: { "Accept-Encoding": "identity" } };
