/**
 * Which requests the servers let in.
 *
 * @module
 */
import type { Context, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";

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
