/**
 * What a response tells the browser of its session.
 *
 * @module
 */
import type { Context } from "hono";

/**
 * Returns the headers of a response whose request used its session.
 *
 * @param setCookie The header of a session that was modified or destroyed, or null
 */
export function sessionHeaders(setCookie: string | null): Record<string, string> {
  if (setCookie === null) return { "Vary": "Cookie" };
  return { "Vary": "Cookie", "Set-Cookie": setCookie, "Cache-Control": "no-store" };
}

/** Sets the {@linkcode sessionHeaders} of a response that is there already. */
export function setResponseHeaders(c: Context, setCookie: string | null): void {
  // A handler may give one response without a body to many requests; with a body it cannot. To look
  // at a text's `body` makes it a stream, so the type, which every text has, comes first.
  if (c.res.headers.get("Content-Type") === null && c.res.body === null) copyResponse(c);
  try {
    setHeaders(c.res.headers, setCookie);
  } catch (error) {
    // The headers of a response from `fetch` cannot be changed.
    if (!(error instanceof TypeError)) throw error;
    copyResponse(c);
    setHeaders(c.res.headers, setCookie);
  }
}

/** Changes them in place: `c.header()` would make a new response, whose text is sent slowly. */
function setHeaders(headers: Headers, setCookie: string | null): void {
  if (!/(^|,)\s*Cookie\s*(,|$)/i.test(headers.get("Vary") ?? "")) headers.append("Vary", "Cookie");
  if (setCookie === null) return;
  // A middleware may have copied a response that has it.
  if (!headers.getSetCookie().includes(setCookie)) headers.append("Set-Cookie", setCookie);
  headers.set("Cache-Control", "no-store");
}

function copyResponse(c: Context): void {
  c.res = new Response(c.res.body, c.res);
}
