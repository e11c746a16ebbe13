/**
 * What the servers share: which requests they let in, listening and stopping, and how a program
 * ends. Used by the entry files alone.
 *
 * @module
 */
import type { Context, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { ConfigError } from "./config.ts";
import { InvalidArgument, StoreUnavailable } from "./stores/store.ts";

/** How long a stopping server waits for the requests under way, in milliseconds. */
const STOP_GRACE = 10_000;

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i;

/** Whether only this machine can reach a server that listens on `host`. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/**
 * Turns away requests that a browser makes for a page of another origin, by `Sec-Fetch-Site`, and
 * by `Origin` where a browser does not send that. A request with neither is no browser's.
 *
 * @param safeMethods Whether GET and HEAD are let through: true for pages that others may link to
 */
export function sameOriginOnly({ safeMethods }: { safeMethods: boolean }): MiddlewareHandler {
  return async function sameOriginOnly(c, next) {
    const safe = c.req.method === "GET" || c.req.method === "HEAD";
    if (!(safe && safeMethods) && isFromAnotherOrigin(c)) {
      throw new HTTPException(403, { message: "Requests of other sites' pages are turned away" });
    }
    await next();
  };
}

function isFromAnotherOrigin(c: Context): boolean {
  const site = c.req.header("Sec-Fetch-Site");
  if (site !== undefined) return site !== "same-origin" && site !== "none";
  const origin = c.req.header("Origin");
  if (origin === undefined) return false;
  // The scheme is left out: behind a proxy that ends TLS it differs.
  return !URL.canParse(origin) || new URL(origin).host !== c.req.header("Host");
}

/**
 * Turns away requests whose `Host` is neither a loopback name nor `host`: a page whose name was
 * pointed at this machine (DNS rebinding) is of one origin with us in its browser's eyes.
 */
export function knownHostOnly(host: string): MiddlewareHandler {
  return async function knownHostOnly(c, next) {
    const hostname = URL.parse(c.req.url)?.hostname;
    if (hostname === undefined) {
      throw new HTTPException(400, { message: "Cannot read the Host: expected a name and a port" });
    }
    if (!isLoopback(hostname) && hostname !== host) {
      throw new HTTPException(403, {
        message: `The Host "${hostname}" is not served here: use localhost, or set KV_TOKEN`,
      });
    }
    await next();
  };
}

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
