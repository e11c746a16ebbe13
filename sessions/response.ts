/** The session's headers in a response. */
import type { Context } from "hono";

/** Bun types a text when it sends it, and no longer once its `body` has been read. */
const TYPES_TEXT_LATE = new Response("text").headers.get("Content-Type") === null;

/**
 * Returns the headers of a response whose request used its session.
 *
 * @param setCookie The header of a session that was modified or destroyed, or null
 */
export function sessionHeaders(setCookie: string | null): Record<string, string> {
  if (setCookie === null) return { "Vary": "Cookie" };
  return { "Vary": "Cookie", "Set-Cookie": setCookie, "Cache-Control": "no-store" };
}

/** Sets the {@linkcode sessionHeaders} on a finished response. */
export function setResponseHeaders(c: Context, setCookies: readonly string[]): void {
  // A handler may return one response to many requests, if it has no body. Check the type first,
  // which every text has: reading `body` turns a text into a stream.
  if (c.res.headers.get("Content-Type") === null) {
    if (TYPES_TEXT_LATE) cloneResponse(c);
    else if (c.res.body === null) copyResponse(c);
  }
  try {
    setHeaders(c.res.headers, setCookies);
  } catch (error) {
    // The headers of a response from `fetch` cannot be changed.
    if (!(error instanceof TypeError)) throw error;
    copyResponse(c);
    setHeaders(c.res.headers, setCookies);
  }
}

/** Changes the headers in place: `c.header()` would make a new response, which Deno sends slowly. */
function setHeaders(headers: Headers, setCookies: readonly string[]): void {
  if (!/(^|,)\s*Cookie\s*(,|$)/i.test(headers.get("Vary") ?? "")) headers.append("Vary", "Cookie");
  if (setCookies.length === 0) return;
  // A middleware may have copied a response that already has them.
  const sent = headers.getSetCookie();
  for (const it of setCookies) if (!sent.includes(it)) headers.append("Set-Cookie", it);
  headers.set("Cache-Control", "no-store");
}

function copyResponse(c: Context): void {
  c.res = new Response(c.res.body, c.res);
}

function cloneResponse(c: Context): void {
  const { res } = c;
  // Hono would read the `body` of a response that follows another.
  c.res = undefined;
  c.res = res.clone();
  // What a stream gives would be kept for it. The clone fails with the same error.
  res.body?.cancel().catch(() => {});
}
