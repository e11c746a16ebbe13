/** Loads servers with `wrk`, or with `autocannon` if that is missing, one variant after another. */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isInstalled, Program } from "../tests/helpers/programs.ts";
import { installPeers, PEERS } from "./peers.ts";

/** The options of every part of the bench. */
export interface Options {
  rounds: number;
  /** How long one round of one variant takes. */
  seconds: number;
  connections: number;
  /** How many sessions the pages are loaded with, in turn. */
  sessions: number;
  /** The most keys or sessions of a store, where a part measures a large one. */
  keys: number;
  /** How many processes load one session, in the part on contention. */
  processes: number[];
  /** Whether the peers that npm installs are measured, too. */
  peers: boolean;
  /** Whether tables and plots replace those in docs/. */
  write: boolean;
}

/** A server that runs, with those that it needs. */
export interface Started {
  url: string;
  /** The processes whose time a request costs, without the client. */
  pids: number[];
}

/** One request of a load. Cookie, content type and body may be left out. */
export interface Line {
  method: "GET" | "POST" | "PUT";
  path: string;
  cookie?: string;
  type?: string;
  body?: string;
}

/** A load: its requests are sent in turn. */
export interface Load {
  lines: Line[];
  /** How long it takes, in seconds. Tests use less than one; if no answer comes in that time, three. */
  seconds: number;
  connections: number;
  /** Whether the newest cookie of a response is sent next, as browsers do; by wrk only. */
  rolling?: boolean;
  /** Requests a second; by default as many as can be. */
  rate?: number;
  /** Whether a server may answer nothing, or with 400 or more, which is counted. */
  mayRefuse?: boolean;
}

/** The result of a load. */
export interface Loaded {
  requests: number;
  /** How many of them were answered with 400 or more. */
  refused: number;
  /** Requests a second. */
  rate: number;
  /** The 99th percentile of the time to an answer, in milliseconds. */
  p99: number;
  /** The longest, in milliseconds. */
  longest: number;
  /** CPU time of the servers per request, in microseconds; NaN where /proc is missing. */
  cpu: number;
}

/** What is loaded in turns. */
export interface Variant extends Pick<Load, "lines" | "rolling"> {
  name: string;
  kind: "ours" | "limit" | "peer";
  servers: Started;
}

export interface Result extends Loaded {
  name: string;
  kind: Variant["kind"];
}

/**
 * Loads the variants in turns, round after round.
 *
 * @returns The best rate and the least CPU time of each, since what slows a round is another program
 */
export async function takeTurns(variants: Variant[], options: Options): Promise<Result[]> {
  const best = new Map<Variant, Loaded>();
  for (let round = 1; round <= options.rounds; round++) {
    for (const variant of variants) {
      const { servers, lines, rolling = false } = variant;
      const loaded = await load(servers, { ...options, lines, rolling });
      progress(
        `round ${round} of ${options.rounds}: ${variant.name}: ${whole(loaded.rate)} a second`,
      );
      const before = best.get(variant) ?? loaded;
      const fastest = loaded.rate > before.rate ? loaded : before;
      best.set(variant, { ...fastest, cpu: Math.min(before.cpu, loaded.cpu) });
    }
  }
  return [...best].map(([{ name, kind }, loaded]) => ({ name, kind, ...loaded }));
}

/**
 * Loads a server.
 *
 * @throws {Error} If an answer is not a success, unless that may be, or a connection fails
 */
export async function load(servers: Started, wanted: Load): Promise<Loaded> {
  const before = cpuSeconds(servers.pids);
  const output = isInstalled("wrk")
    ? await wrk(servers, wanted)
    : await autocannon(servers, wanted);
  const cpu = cpuSeconds(servers.pids) - before;
  const [, json = '{"requests":0}'] = /^RESULT (.*)$/m.exec(output) ?? [];
  const { requests, microseconds, refused, failed, p99, longest } = JSON.parse(json);
  if (requests === 0 && wanted.seconds < 1) {
    await delay(1000); // until what was sent is answered
    return await load(servers, { ...wanted, seconds: 3 });
  }
  if (failed === undefined) throw new Error(`The load of ${servers.url} failed:\n${output}`);
  const isUseless = refused > 0 || requests === 0;
  if (failed > 0 || isUseless && !wanted.mayRefuse) {
    throw new Error(`${servers.url}: of ${requests} requests ${refused} refused, ${failed} failed`);
  }
  return {
    requests,
    refused,
    rate: requests / microseconds * 1e6,
    p99: p99 / 1000,
    longest: longest / 1000,
    cpu: cpu * 1e6 / requests,
  };
}

async function wrk({ url }: Started, { lines, seconds, connections, rolling, rate }: Load) {
  const file = await Deno.makeTempFile();
  try {
    const texts = lines.map(({ method, path, cookie = "", type = "", body = "" }) =>
      [method, path, cookie, type, body].join("\t")
    );
    await Deno.writeTextFile(file, texts.join("\n"));
    const script = join(import.meta.dirname ?? "", "wrk.lua");
    const duration = `${Math.ceil(seconds)}s`;
    const args = ["-t1", `-c${connections}`, "-d", duration, "--timeout", "30s", "-s", script, url];
    const env: Record<string, string> = { LOAD: file };
    if (rolling) env["ROLLING"] = "1";
    if (rate) env["RATE"] = String(rate);
    const program = new Program("wrk", args, { env });
    if (seconds < 1) {
      // It counts whole seconds, and prints what it has when it is interrupted.
      await delay(seconds * 1000 + 100);
      program.signal("SIGINT");
    }
    await program.exited;
    return program.output;
  } finally {
    await Deno.remove(file);
  }
}

async function autocannon({ url }: Started, wanted: Load): Promise<string> {
  await installPeers();
  const args = [join(PEERS, "autocannon.js"), JSON.stringify({ url, ...wanted })];
  const program = new Program("node", args);
  await program.exited;
  return program.output;
}

/** The CPU time that processes have used, in seconds; NaN where /proc is missing. */
export function cpuSeconds(pids: number[]): number {
  let sum = 0;
  for (const pid of pids) {
    try {
      const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
      // The name in parentheses may hold spaces. Times are in ticks, 100 a second on Linux.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      sum += (Number(fields[11]) + Number(fields[12])) / 100;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      sum = NaN;
    }
  }
  return sum;
}

/** The memory of a process in MiB, now and at most so far. NaN where /proc is missing. */
export function memory(pid: number): { now: number; peak: number } {
  const field = (status: string, name: string) =>
    Math.round(Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024);
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return { now: field(status, "VmRSS"), peak: field(status, "VmHWM") };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { now: NaN, peak: NaN };
  }
}

/** Prints progress on standard error; standard output is for the tables. */
export function progress(text: string): void {
  console.error(text);
}

/** A whole number with commas. */
export function whole(number: number): string {
  return Math.round(number).toLocaleString("en-US");
}
