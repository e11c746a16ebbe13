/** How a server listens and stops. */
import { setTimeout as delay } from "node:timers/promises";
import { ConfigError } from "./config.ts";
import { printWarnings, type Program, stopSignal } from "./program.ts";

/** How long a stopping server waits for the requests under way, in milliseconds. */
const STOP_GRACE = 10_000;
/** How long a server waits before it listens again, in milliseconds: at first, and at most. */
const LISTEN_AGAIN_AFTER = 100;
const LISTEN_AGAIN_WITHIN = 5000;

interface Address {
  hostname: string;
  port: number;
}

interface ListenOptions extends Address {
  /** What the server serves, for the line that gives its address. */
  about?: string;
  /**
   * Called when the server begins to stop: ends the responses that would go on forever. It accepts
   * requests until this resolves, for {@linkcode STOP_GRACE} at most: Deno 2.9 lets no body be read once
   * a server shuts down, https://github.com/denoland/deno/issues/36809
   */
  onStop?: () => Promise<void>;
}

type Server = Deno.HttpServer<Deno.NetAddr>;

/**
 * Serves until SIGINT or SIGTERM, then waits for the requests under way, for
 * {@linkcode STOP_GRACE} at most. A later second signal ends the process at once.
 *
 * Deno.serve ends if it cannot accept a connection, for example without free file descriptors. Then
 * idle connections and incomplete requests are closed, the requests under way are answered, and the
 * server listens again.
 *
 * @throws {ConfigError} If the server cannot listen on the address
 */
export async function listen(
  program: Program,
  handler: Deno.ServeHandler,
  { hostname, port, about, onStop }: ListenOptions,
): Promise<void> {
  const stop = stopSignal(program);
  let server: Server | null = serve(handler, { hostname, port }, program);
  const address = { hostname, port: server.addr.port };
  // For the default address, the URL that the documentation names.
  const shown = hostPort(hostname === "127.0.0.1" ? "localhost" : hostname, address.port);
  console.log(`http://${shown}` + (about ? ` (${about})` : ""));
  printWarnings(program.warnings);
  /** Servers that answer their last requests: the one that stops, and those that failed before. */
  const closing = new Set<Promise<void>>();
  /** Closes idle connections at once, and the others after their responses. */
  const close = (server: Server) => {
    const closed = server.shutdown().finally(() => closing.delete(closed));
    closing.add(closed);
  };
  while (server) {
    const ended: Promise<Error | null> = server.finished.then(() => null, (error) => error);
    const failure = await Promise.race([stop, ended]);
    if (!failure) break;
    console.error(`${failure.message}: closing idle connections`);
    close(server);
    server = await listenAgain(() => serve(handler, address, program), stop);
  }
  console.log("stopping");
  const timeUp = delay(STOP_GRACE, undefined, { ref: false });
  await Promise.race([onStop?.(), timeUp]);
  if (server) close(server);
  await Promise.race([Promise.all(closing), timeUp]);
}

/** Listens as soon as it is possible again; resolves to null if the server is to stop. */
export async function listenAgain<T>(
  serve: () => T,
  stop: Promise<null>,
  sleep: (time: number) => Promise<unknown> = delay,
): Promise<T | null> {
  for (let wait = LISTEN_AGAIN_AFTER;; wait = Math.min(wait * 2, LISTEN_AGAIN_WITHIN)) {
    const stopped = await Promise.race([stop, sleep(wait)]) === null;
    if (stopped) return null;
    try {
      return serve();
    } catch (error) {
      console.error((error as Error).message);
    }
  }
}

/** @throws {ConfigError} If the server cannot listen */
function serve(handler: Deno.ServeHandler, address: Address, program: Program): Server {
  try {
    return Deno.serve({ ...address, onListen() {}, onError: failed }, handler);
  } catch (cause) {
    throw new ConfigError(listenProblem(cause, address, program), { cause });
  }
}

/** Logs the error that ended a response in its middle: Deno's own log would not know `LOG`. */
function failed(error: unknown): Response {
  const isPlain = error instanceof Error && error.stack === error.message;
  console.error(isPlain ? error.message : error);
  return new Response("Internal Server Error", { status: 500 });
}

function listenProblem(cause: unknown, { hostname, port }: Address, program: Program): string {
  if (cause instanceof Deno.errors.AddrInUse) {
    const other = port + 3000 > 65535 ? port - 3000 : port + 3000;
    return `Port ${port} of ${hostname} is taken: stop the program that uses it, ` +
      `or choose another port: ${program.startOn(other)}`;
  }
  return `Cannot listen on ${hostPort(hostname, port)}: ${(cause as Error).message}`;
}

/** The part of a URL before its path: an IPv6 address is in brackets. */
export function hostPort(hostname: string, port: number): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}
