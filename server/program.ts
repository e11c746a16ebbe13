/** How a server's process begins and ends. */
import { InvalidArgument, StoreUnavailable } from "../stores/store.ts";
import { ConfigError, SETTINGS } from "./config.ts";
import { LOG_MODES, logAs } from "./log.ts";
import { meant } from "./misspelled.ts";

/**
 * The first argument of a server that `start.ts` has started. After it come the server's name in the
 * log, the variable with its port (after the one that another server was given), and the task that
 * starts it.
 */
export const CHILD = "--child";

/**
 * How long another signal counts as the same one, in milliseconds. A terminal sends Ctrl-C to all
 * processes, and `deno task` and foreman pass it on to the programs that they have started.
 */
const SAME_SIGNAL = 500;
/** How long a child that gets a signal waits for its parent, in milliseconds. */
const PARENT_GRACE = 10_000;
/** How often a program checks that the `deno task` around it is alive, in milliseconds. */
const ORPHAN_CHECK = 500;
const STOP_SIGNALS: Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM"];

export interface Program {
  /** Whether `start.ts` has started it: it stops when standard input ends. */
  isChild: boolean;
  /** Whether Deno restarts it when a source file changes, and so handles its signals. */
  isWatched: boolean;
  /** The command that starts it on another port. */
  startOn(port: number): string;
  /** Are printed once it runs, or after the error that ends it. */
  warnings: string[];
}

/**
 * Runs an entry file's program, then ends the process. An error that a person can fix (in the
 * configuration, the address, the store) is printed as a sentence. Any other error is internal, and
 * is printed with its stack. Either way the exit code is 1.
 */
export async function run(task: string, main: (program: Program) => Promise<void>): Promise<void> {
  const isChild = Deno.args[0] === CHILD;
  const [, name = task, variable = "PORT", startedBy = task] = isChild ? Deno.args : [];
  const isWatched = startedBy === "dev";
  const startOn = (port: number) => `${variable}=${port} deno task ${startedBy}`;
  logAs(name, `${task}: `, LOG_MODES.find((it) => it === Deno.env.get("LOG")) ?? "events");
  addEventListener("unhandledrejection", (event) => crash(event.reason));
  addEventListener("error", (event) => crash(event.error));
  // At a terminal it means that this was closed.
  const canHangUp = Deno.build.os !== "windows" && !isWatched && !Deno.stdin.isTerminal();
  if (canHangUp) Deno.addSignalListener("SIGHUP", hungUp);
  // start.ts has warned of the environment already.
  const warnings = isChild ? [] : Object.keys(Deno.env.toObject()).flatMap((variable) => {
    const setting = meant(variable, SETTINGS);
    return setting === undefined
      ? []
      : `The environment variable ${variable} has no effect: did you mean ${setting}?`;
  });
  try {
    await main({ isChild, isWatched, startOn, warnings });
  } catch (error) {
    printProblem(error);
    printWarnings(warnings);
    Deno.exit(1);
  }
  // A watcher would wait for the next change of a file.
  if (isWatched) Deno.kill(Deno.pid, "SIGKILL");
  Deno.exit();
}

/** Prints an error that a person can fix as sentences. Any other ends the process. */
export function printProblem(error: unknown): void {
  const fixable = error instanceof ConfigError || error instanceof InvalidArgument ||
    error instanceof StoreUnavailable;
  if (!fixable) crash(error);
  for (const line of error.message.split("\n")) console.error(line);
}

/** Prints the warnings, once. */
export function printWarnings(warnings: string[]): void {
  for (const warning of warnings.splice(0)) console.warn(warning);
}

function crash(error: unknown): never {
  console.error(error);
  Deno.exit(1);
}

/**
 * Resolves when the program is to stop: at the first SIGINT or SIGTERM, or when the task that started
 * it is gone. A signal that follows later than {@linkcode SAME_SIGNAL} ends the process. The listeners
 * stay until then: a signal that arrives after the servers have ended would otherwise change the exit
 * code.
 *
 * A child stops when its standard input ends, which happens even if its parent is killed; a byte there
 * is a SIGHUP of its parent. A signal to stop reaches its parent too, which ends the inputs in order;
 * the child waits for that.
 */
export function stopSignal({ isChild, isWatched }: Program): Promise<null> {
  const { promise, resolve } = Promise.withResolvers<null>();
  let first: number | undefined;
  const stop = () => resolve(null);
  const listener = () => {
    first ??= performance.now();
    if (performance.now() - first > SAME_SIGNAL) Deno.exit(130);
    if (isChild) Deno.unrefTimer(setTimeout(stop, PARENT_GRACE));
    else stop();
  };
  if (!isWatched) STOP_SIGNALS.forEach((signal) => Deno.addSignalListener(signal, listener));
  if (isChild) Deno.stdin.readable.pipeTo(new WritableStream({ write: hungUp })).then(stop);
  else if (Deno.env.has("INIT_CWD")) whenOrphaned(stop);
  return promise;
}

/** What SIGHUP calls: one that comes before it is known waits for it. */
const hangUp = Promise.withResolvers<() => void>();

/** Sets what is called on SIGHUP; in a child, also on that of its parent. */
export function onHangUp(reload: () => void): void {
  hangUp.resolve(reload);
}

function hungUp(): void {
  hangUp.promise.then((reload) => reload());
}

/** Calls `stop` when the parent is gone: `deno task` passes signals on, but may be killed. */
function whenOrphaned(stop: () => void): void {
  const parent = Deno.ppid;
  const timer = setInterval(() => {
    if (Deno.ppid === parent) return;
    clearInterval(timer);
    stop();
  }, ORPHAN_CHECK);
  Deno.unrefTimer(timer);
}
