/** Starts programs for tests, on free ports of loopback, and stops them. */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

export const PROJECT = join(import.meta.dirname as string, "../..");

/** A running program. It is stopped when it goes out of scope. */
export class Program implements AsyncDisposable {
  /** What it has printed so far, on standard output and standard error. */
  output = "";
  /** Resolves to its exit code when it ends. */
  readonly exited: Promise<number>;
  readonly #process: Deno.ChildProcess;
  #wake = Promise.withResolvers<void>();

  constructor(command: string, args: string[], options: ProgramOptions = {}) {
    this.#process = new Deno.Command(command, {
      args,
      cwd: options.cwd ?? PROJECT,
      env: options.env ?? {},
      stdin: options.stdin ?? "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const read = [this.#process.stdout, this.#process.stderr].map((stream) => this.#read(stream));
    this.exited = Promise.all([this.#process.status, ...read]).then(([{ code }]) => code);
  }

  get pid(): number {
    return this.#process.pid;
  }

  /**
   * Waits until the output matches, and returns the match.
   *
   * @throws {Error} With the output, if the program ends first or `seconds` pass
   */
  async printed(pattern: RegExp, seconds = 120): Promise<RegExpExecArray> {
    let over: string | undefined;
    const timedOut = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      over ??= "Time is up";
      timedOut.resolve();
    }, seconds * 1000);
    const end = this.exited.then(() => {
      over ??= "It ended";
    });
    try {
      for (;;) {
        const match = pattern.exec(this.output);
        if (match) return match;
        if (over) throw new Error(`${over} before ${pattern}:\n${this.output}`);
        await Promise.race([this.#wake.promise, end, timedOut.promise]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Writes to its input and, unless more follows, closes it. The options have to pipe `stdin`. */
  async type(text: string, { more = false } = {}): Promise<void> {
    const input = this.#process.stdin.getWriter();
    await input.write(new TextEncoder().encode(text));
    if (!more) await input.close();
    input.releaseLock();
  }

  /** Sends the signal, waits for the end (after 30 seconds it kills), and returns the exit code. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    this.signal(signal);
    const timer = setTimeout(() => this.signal("SIGKILL"), 30_000);
    const code = await this.exited;
    clearTimeout(timer);
    return code;
  }

  /** Sends a signal. Does nothing if the program has ended. */
  signal(signal: Deno.Signal): void {
    try {
      this.#process.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.output += decoder.decode(chunk, { stream: true });
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    }
  }
}

export interface ProgramOptions {
  cwd?: string;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** By default `null`: no input. */
  stdin?: "null" | "piped";
}

/** Runs a program until it ends, without a terminal and without input. */
export async function runToEnd(command: string, args: string[], options: ProgramOptions = {}) {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args,
    cwd: PROJECT,
    stdin: "null",
    signal: AbortSignal.timeout(300_000),
    ...options,
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: out ?? "", stderr: err ?? "" };
}

/** Returns the processes that a process has started. Needs `pgrep`. */
export async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await runToEnd("pgrep", ["--parent", `${pid}`]);
  return stdout.split("\n").filter((line) => line !== "").map(Number);
}

/** Starts one of the project's programs, with every right that its task could give it. */
export function startScript(script: string, args: string[] = [], options: ProgramOptions = {}) {
  return new Program(
    Deno.execPath(),
    ["run", "--allow-net", "--allow-read", "--allow-write", "--allow-env", join(PROJECT, script)]
      .concat(args),
    options,
  );
}

/** One of the project's servers. It is stopped when it goes out of scope. */
export interface Server extends AsyncDisposable {
  program: Program;
  url: string;
}

export interface ServerOptions {
  /** The content of its counter.cfg.json; by default there is no such file. */
  config?: object;
  env?: Record<string, string>;
  /** By default a free port. */
  port?: number;
}

/** Starts a server in its own directory, and waits until it listens. */
export async function startServer(script: string, options: ServerOptions = {}): Promise<Server> {
  const { config, env, port = 0 } = options;
  const cwd = await Deno.makeTempDir();
  if (config) await Deno.writeTextFile(join(cwd, "counter.cfg.json"), JSON.stringify(config));
  const program = startScript(script, [], { cwd, env: { PORT: String(port), ...env } });
  const [, listening] = await program.printed(/http:\/\/\S+:(\d+) \(/);
  const stop = async () => {
    await program.stop();
    await Deno.remove(cwd, { recursive: true });
  };
  return { program, url: `http://localhost:${listening}`, [Symbol.asyncDispose]: stop };
}

/** Programs over one key-value service in memory. Leaving the scope stops all, and checks their exit codes. */
export interface Processes extends AsyncDisposable {
  urls: string[];
}

/** Starts a service, and a script `count` times with its address as `KV_URL`. */
export async function startProcesses(
  script: string,
  count: number,
  env: Record<string, string>,
): Promise<Processes> {
  const port = freePort();
  const service = startScript("kv.ts", [], { env: { PORT: String(port), DBM: ":memory:" } });
  await service.printed(/kv: http/);
  const programs = Array.from(
    { length: count },
    () =>
      startScript(script, [], {
        env: { ...env, PORT: "0", KV_URL: `http://127.0.0.1:${port}` },
      }),
  );
  const urls: string[] = [];
  for (const program of programs) urls.push((await program.printed(/: (http\S+)/))[1] ?? "");
  return {
    urls,
    async [Symbol.asyncDispose]() {
      for (const program of [...programs, service]) {
        const code = await program.stop();
        if (code !== 0) throw new Error(`A program ended with ${code}:\n${program.output}`);
      }
    },
  };
}

/** A new directory. It is removed when it goes out of scope. */
export async function temporaryDirectory() {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A host that there is not. Its first label is too long for DNS, so no name server is asked. */
export const NO_HOST = `${"a".repeat(64)}.invalid`;

/** Returns a port on which nothing listens. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

/**
 * Registers a test that needs programs, by name or by path. If one is missing, the test is reported
 * as ignored, with the reason; under `CI=true` it runs and fails.
 */
export function testWith(
  programs: string[],
  name: string,
  run: (t: Deno.TestContext) => Promise<void>,
  options: Pick<Deno.TestDefinition, "sanitizeOps" | "sanitizeResources"> = {},
): void {
  const missing = programs.filter((program) => !isInstalled(program));
  const ignore = missing.length > 0 && Deno.env.get("CI") !== "true";
  const fullName = ignore ? `${name} (needs ${missing.join(", ")})` : name;
  Deno.test({ ...options, name: fullName, ignore, fn: run });
}

/** Registers a test of `::1`: on a machine without IPv6 it is ignored, even with `CI=true`. */
export const testIPv6 = hasIPv6() ? Deno.test : Deno.test.ignore;

function hasIPv6(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

/** Returns whether a program is installed, by name or by path. */
export function isInstalled(program: string): boolean {
  const directories = program.startsWith("/") ? ["/"] : (Deno.env.get("PATH") ?? "").split(":");
  return directories.some((directory) => {
    try {
      return Deno.statSync(join(directory, program)).isFile;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
        return false;
      }
      throw error;
    }
  });
}

/** Returns the Debian package of a program, if `tests/packages.txt` names one. */
export function packageOf(program: string): string | undefined {
  const lines = Deno.readTextFileSync(join(PROJECT, "tests/packages.txt")).split("\n");
  return lines.map((line) => line.split(/\s+/)).find(([name]) => name === program)?.[1];
}

/** Waits until `check` returns true, at most `seconds`. */
export async function eventually(
  what: string,
  check: () => Promise<boolean>,
  seconds = 60,
): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !await check();) {
    if (Date.now() > end) throw new Error(`There is not ${what} after ${seconds} seconds`);
    await delay(20);
  }
}
