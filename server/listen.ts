/**
 * How a server listens and stops, and how a program ends.
 *
 * @module
 */
import { ConfigError } from "./config.ts";
import { InvalidArgument, StoreUnavailable } from "../stores/store.ts";

/** How long a stopping server waits for the requests under way, in milliseconds. */
const STOP_GRACE = 10_000;
/** How long a server waits before it listens again, in milliseconds. */
const LISTEN_AGAIN_AFTER = 100;

/** A server's address. */
export interface Address {
  hostname: string;
  port: number;
  /** Called when the server begins to stop: ends the responses that would go on forever. */
  onStop?: () => void;
}

/**
 * Serves until SIGINT or SIGTERM, then waits for the requests under way, for
 * {@linkcode STOP_GRACE} at most. A second signal ends the process at once.
 *
 * Deno.serve ends when it cannot accept a connection, as when file descriptors run out. Then idle
 * connections and incomplete requests are closed, the requests under way are answered, and the
 * server listens again.
 *
 * @param name The first word of every log line
 * @throws {ConfigError} If the server cannot listen on the address
 */
export async function listen(
  name: string,
  handler: Deno.ServeHandler,
  { hostname, port, onStop }: Address,
): Promise<void> {
  let server = serve(handler, { hostname, port });
  const address = { hostname, port: server.addr.port };
  console.log(`${name}: http://${hostPort(address)}`);
  using stop = stopSignal();
  /** Servers that answer their last requests: the one that stops, and those that failed before. */
  const closing = new Set<Promise<void>>();
  for (;;) {
    const failure = await Promise.race([stop.promise, failureOf(server)]);
    if (failure) console.error(`${name}: ${failure.message}: closing idle connections`);
    // Closes idle connections at once, and the others after their responses.
    const closed = server.shutdown().finally(() => closing.delete(closed));
    closing.add(closed);
    const next = failure && await listenAgain(name, () => serve(handler, address), stop.promise);
    if (!next) break;
    server = next;
  }
  console.log(`${name}: stopping`);
  onStop?.();
  await Promise.race([Promise.all(closing), delay(STOP_GRACE)]);
}

/** Resolves to the error that ends a server, or to null when it is shut down. */
function failureOf(server: Deno.HttpServer): Promise<Error | null> {
  return server.finished.then(() => null, (error) => error);
}

/** Listens as soon as it is possible again, unless the server is to stop. */
async function listenAgain(
  name: string,
  serve: () => Deno.HttpServer<Deno.NetAddr>,
  stop: Promise<null>,
): Promise<Deno.HttpServer<Deno.NetAddr> | null> {
  for (let wait = LISTEN_AGAIN_AFTER;; wait = Math.min(wait * 2, 5000)) {
    const stopped = await Promise.race([stop, delay(wait)]) === null;
    if (stopped) return null;
    try {
      return serve();
    } catch (error) {
      console.error(`${name}: ${(error as Error).message}`);
    }
  }
}

/** @throws {ConfigError} If the server cannot listen */
function serve(handler: Deno.ServeHandler, address: Address): Deno.HttpServer<Deno.NetAddr> {
  try {
    const { hostname, port } = address;
    return Deno.serve({ hostname, port, onListen() {} }, handler);
  } catch (cause) {
    throw new ConfigError(listenProblem(cause, address), { cause });
  }
}

function listenProblem(cause: unknown, { hostname, port }: Address): string {
  if (cause instanceof Deno.errors.AddrInUse) {
    return `Port ${port} of ${hostname} is taken: stop the program that has it, ` +
      "or set PORT to another one";
  }
  return `Cannot listen on ${hostPort({ hostname, port })}: ${(cause as Error).message}`;
}

function hostPort({ hostname, port }: Address): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/** Its promise resolves at the first SIGINT or SIGTERM; the second one ends the process. */
function stopSignal(): Disposable & { promise: Promise<null> } {
  const { promise, resolve } = Promise.withResolvers<null>();
  let received = false;
  const listener = () => {
    if (received) Deno.exit(130);
    received = true;
    resolve(null);
  };
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  for (const signal of signals) Deno.addSignalListener(signal, listener);
  const dispose = () => signals.forEach((signal) => Deno.removeSignalListener(signal, listener));
  return { promise, [Symbol.dispose]: dispose };
}

/** Waits, without keeping the process alive. */
function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => Deno.unrefTimer(setTimeout(resolve, milliseconds)));
}

/**
 * Runs an entry file's program, then ends the process. What a person can mend (the configuration,
 * the address, the store) is printed as sentences, and the exit code is 1; any other error is a
 * defect and keeps its trace.
 */
export async function run(name: string, program: () => Promise<void>): Promise<void> {
  try {
    await program();
    Deno.exit();
  } catch (error) {
    const mendable = error instanceof ConfigError || error instanceof InvalidArgument ||
      error instanceof StoreUnavailable;
    if (!mendable) throw error;
    for (const line of error.message.split("\n")) console.error(`${name}: ${line}`);
    Deno.exit(1);
  }
}
