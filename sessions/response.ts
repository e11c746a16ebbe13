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
  // A handler may return one response to many requests, and none but this may get the cookie.
  if (setCookies.length > 0) copyResponse(c);
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
  const { res } = c;
  if (res.status === 101) return; // an upgrade, which only its request has, and cannot be copied
  // Hono would read the `body` of a response that follows another.
  c.res = undefined;
  if (TYPES_TEXT_LATE) {
    c.res = res.clone();
    // What a stream gives would be kept for it. The clone fails with the same error.
    res.body?.cancel().catch(() => {});
  } else c.res = new Response(res.body, res);
}
