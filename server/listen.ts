/**
 * How a server listens and stops, and how a program ends.
 *
 * @module
 */
import { ConfigError } from "./config.ts";
import { InvalidArgument, StoreUnavailable } from "../stores/store.ts";

/** How long a stopping server waits for the requests under way, in milliseconds. */
const STOP_GRACE = 10_000;

/** A server's address. */
export interface Address {
  hostname: string;
  port: number;
  /** Called when the server begins to stop: ends the answers that would go on for ever. */
  onStop?: () => void;
}

/**
 * Serves until SIGINT or SIGTERM. The requests under way are answered then, for
 * {@linkcode STOP_GRACE} at most; a second signal ends the process at once.
 *
 * @param name What the line that tells the address begins with
 * @throws {ConfigError} If the address cannot be had
 */
export async function listen(
  name: string,
  handler: Deno.ServeHandler,
  { hostname, port, onStop }: Address,
): Promise<void> {
  const graceOver = Promise.withResolvers<void>();
  let server: Deno.HttpServer;
  try {
    server = Deno.serve({
      hostname,
      port,
      onListen: (address) => console.log(`${name}: http://${hostPort(hostname, address.port)}`),
    }, handler);
  } catch (cause) {
    throw new ConfigError(listenProblem(cause, { hostname, port }), { cause });
  }
  let stopping = false;
  const stop = () => {
    if (stopping) Deno.exit(130);
    stopping = true;
    console.log(`${name}: stopping`);
    Deno.unrefTimer(setTimeout(graceOver.resolve, STOP_GRACE));
    onStop?.();
    server.shutdown().catch(graceOver.reject);
  };
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  for (const signal of signals) Deno.addSignalListener(signal, stop);
  await Promise.race([server.finished, graceOver.promise]);
  for (const signal of signals) Deno.removeSignalListener(signal, stop);
}

function listenProblem(cause: unknown, { hostname, port }: Address): string {
  if (cause instanceof Deno.errors.AddrInUse) {
    return `Port ${port} of ${hostname} is taken: stop the program that has it, ` +
      "or set PORT to another one";
  }
  return `Cannot listen on ${hostPort(hostname, port)}: ${(cause as Error).message}`;
}

function hostPort(hostname: string, port: number): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
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
