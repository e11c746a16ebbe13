/** The session's headers in a response. */
import type { Context } from "hono";

/** Bun types a text when it sends it, and no longer once its `body` has been read. */
const typesTextLate = () =>
  isTypedLate ??= new Response("text").headers.get("Content-Type") === null;
/** Not known before the first request: a worker makes no response earlier. */
let isTypedLate: boolean | undefined;

/** The headers of a response whose request used its session. Only a modified one has a cookie to set. */
export function sessionHeaders(setCookie: string | null): Record<string, string> {
  if (setCookie === null) return { "Vary": "Cookie" };
  return { "Vary": "Cookie", "Set-Cookie": setCookie, "Cache-Control": "no-store" };
}

/** The headers that describe a body, lead elsewhere, or say how long it may be kept. */
const OF_THE_BODY =
  /^(content-(?!security)|(repr-)?digest|etag|last-|accept-|trailer|transfer-|location|refresh|link|cache-|expires)/;

/** Takes the body out of a response, before an error takes its place: Hono keeps the headers. */
export function dropBody(c: Context): void {
  if (!c.finalized) return;
  const { res } = c;
  // Beside the cookie of another session, "no-store" stays.
  const kept = [...res.headers].filter(([name, it]) =>
    it === "no-store" || !OF_THE_BODY.test(name)
  );
  res.body?.cancel().catch(() => {}); // it is not needed, whether or not it can be cancelled
  c.res = undefined;
  c.res = new Response(null, { headers: kept });
}

/** Whether the response is a stream of Hono's, which may read the session after its headers. */
export function isStream(c: Context): boolean {
  return c.finalized && c.res.headers.has("Transfer-Encoding");
}

/** Sets the {@linkcode sessionHeaders} for the response that will be made of an error: Hono adds them. */
export function setNextHeaders(c: Context, setCookies: readonly string[]): void {
  const { finalized } = c;
  if (!finalized) c.res = new Response(null);
  setResponseHeaders(c, setCookies);
  c.finalized = finalized;
}

/** Sets the {@linkcode sessionHeaders} on a finished response. */
export function setResponseHeaders(c: Context, setCookies: readonly string[]): void {
  // A handler may return one response to many requests, and none but this may get the cookie.
  if (setCookies.length > 0 && !copyResponse(c)) return;
  try {
    setHeaders(c.res.headers, setCookies);
  } catch (error) {
    // The headers of a response from `fetch` cannot be changed.
    if (!(error instanceof TypeError)) throw error;
    if (copyResponse(c)) setHeaders(c.res.headers, setCookies);
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

/** Returns whether the response can still have other headers. */
function copyResponse(c: Context): boolean {
  const { res } = c;
  if (res.status === 101) return true; // an upgrade, which only its request has, and cannot be copied
  try {
    const isClone = typesTextLate();
    const copy = isClone ? res.clone() : new Response(res.body, res);
    // What a stream gives would be kept for it. The clone fails with the same error.
    if (isClone) res.body?.cancel().catch(() => {});
    // Hono would read the `body` of a response that follows another.
    c.res = undefined;
    c.res = copy;
    return true;
  } catch (error) {
    // As by timeout() before sessions(): the answer to the handler's request is another one.
    if (!(error instanceof TypeError)) throw error;
    console.error("The session's cookie is not sent: a response was sent before the handler ended");
    return false;
  }
}
