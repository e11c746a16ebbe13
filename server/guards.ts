/** The checks that a request must pass, and the headers that guard its response. */
import type { Hono, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";

/**
 * Prevents browsers from running or framing a response, whatever type they guess, and caches from
 * keeping it, as some would in spite of an `Authorization` (RFC 9111, section 3.5).
 */
export const GUARD_HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
};

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i;

/** Whether only this machine can reach a server that listens on `host`. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host);
}

/** Rejects cross-site requests: {@linkcode isCrossSite}. */
export function sameOriginOnly(
  { trustProxy = false }: { trustProxy?: boolean },
): MiddlewareHandler {
  return async function sameOriginOnly(c, next) {
    if (isCrossSite(c.req.raw, trustProxy)) throw crossSite();
    await next();
  };
}

/**
 * Whether a browser sent the request for a page of another origin: by `Sec-Fetch-Site`, or by
 * `Origin` from a browser without it. A request that has neither is not from a page. A link that the
 * user follows is not cross-site: the other page cannot read what it leads to.
 *
 * @param trustProxy Whether `X-Forwarded-Host` is the host that the browser asked for
 */
export function isCrossSite(request: Request, trustProxy: boolean): boolean {
  const { headers } = request;
  const site = headers.get("Sec-Fetch-Site");
  if (site !== null) return site !== "same-origin" && site !== "none" && !isLink(request);
  const origin = headers.get("Origin");
  if (origin === null) return false;
  const host = hostOf(request, trustProxy);
  // Either scheme: behind a proxy that terminates TLS they differ. An origin has no default port.
  return ["http", "https"].every((scheme) => URL.parse(`${scheme}://${host}`)?.origin !== origin);
}

/** Whether the request loads a whole page in a tab; within another page, `Sec-Fetch-Dest` differs. */
function isLink({ method, headers }: Request): boolean {
  return method === "GET" && headers.get("Sec-Fetch-Mode") === "navigate" &&
    headers.get("Sec-Fetch-Dest") === "document";
}

/** The name and port that the browser asked for. */
export function hostOf({ headers, url }: Request, trustProxy: boolean): string {
  const forwarded = trustProxy ? forwardedHost(headers) : undefined;
  // HTTP/2 has no Host header.
  return forwarded ?? headers.get("Host") ?? splitUrl(url).host;
}

/** The host that the client asked a proxy for; RFC 7239 for `Forwarded`. */
function forwardedHost(headers: Headers): string | undefined {
  return headers.get("X-Forwarded-Host")?.split(",")[0]?.trim() ??
    /^[^,]*\bhost="?([^\s";,]+)/i.exec(headers.get("Forwarded") ?? "")?.[1];
}

export function crossSite(): HTTPException {
  return new HTTPException(403, { message: "Cross-site requests are not allowed" });
}

/** The methods that an app has for a path, as `Allow` names them; "" if it has none. */
export function methodsOf({ routes }: Pick<Hono, "routes">, path: string): string {
  // "ALL" is middleware, as at the path "/*".
  const methods = routes.filter((it) => it.path === path && it.method !== "ALL")
    .map(({ method }) => method === "GET" ? "GET, HEAD" : method);
  return [...new Set(methods)].join(", ");
}

/** The parts of a request's URL, as they were sent: a parsed URL would resolve dots in the path. */
export interface UrlParts {
  /** Name and port. */
  readonly host: string;
  /** Without the slash that it begins with. */
  readonly path: string;
  /** Without the question mark; null if there is none. */
  readonly search: string | null;
}

/** Splits the URL of a request without parsing it. */
export function splitUrl(url: string): UrlParts {
  const start = url.indexOf("://") + 3;
  const slash = url.indexOf("/", start);
  if (slash === -1) return { host: url.slice(start), path: "", search: null };
  const host = url.slice(start, slash);
  const hash = url.indexOf("#", slash);
  const end = hash === -1 ? url.length : hash;
  const mark = url.indexOf("?", slash);
  if (mark === -1 || mark > end) return { host, path: url.slice(slash + 1, end), search: null };
  return { host, path: url.slice(slash + 1, mark), search: url.slice(mark + 1, end) };
}

/** Whether `host`, a name and a port, is a loopback name or `served`. */
export function isKnownHost(host: string, served: string): boolean {
  const name = /^(\[[^\]]*\]|[^:]*)(?::\d+)?$/.exec(host)?.[1];
  return name !== undefined && (isLoopback(name) || name.toLowerCase() === served.toLowerCase());
}
