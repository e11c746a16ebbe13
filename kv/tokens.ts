/**
 * Bearer tokens (RFC 6750): which let a request in, and what it may do then. A browser's reader
 * types one as a password (Basic, RFC 7617).
 *
 * @module
 */
import type { Context, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { auth } from "hono/utils/basic-auth";
import { timingSafeEqual } from "hono/utils/buffer";
import type { Store } from "../stores/store.ts";

/** What a request may do to the store. */
export interface Access {
  /** The store, limited to what the request's token allows. */
  Variables: { store: Store };
}

/**
 * Lets in the bearers of a token, and gives each the store, or one that can only be read.
 *
 * @param tokens With which a request may do everything
 * @param readTokens With which it may read
 */
export function bearersOnly(
  store: Store,
  tokens: string[],
  readTokens: string[],
): MiddlewareHandler<Access> {
  const readable = readOnly(store);
  return async function bearersOnly(c, next) {
    const token = tokenOf(c);
    if (token === undefined) throw unauthorized(c);
    if (await isAmong(token, tokens)) c.set("store", store);
    else if (await isAmong(token, readTokens)) c.set("store", readable);
    else throw unauthorized(c);
    await next();
  };
}

function tokenOf(c: Context): string | undefined {
  const bearer = /^Bearer +([\w.~+/-]+=*) *$/i.exec(c.req.header("Authorization") ?? "")?.[1];
  return bearer ?? auth(c.req.raw)?.password;
}

/** Takes the same time wherever the texts differ, and whichever of them is the one. */
async function isAmong(token: string, tokens: string[]): Promise<boolean> {
  const equal = await Promise.all(tokens.map((other) => timingSafeEqual(token, other)));
  return equal.includes(true);
}

function unauthorized(c: Context): HTTPException {
  // A browser then asks its user, and knows Basic alone; other clients should send no password.
  const isBrowser = /\btext\/html\b/.test(c.req.header("Accept") ?? "");
  const challenge = isBrowser ? 'Basic realm="kv: any name, and a token"' : 'Bearer realm="kv"';
  return new HTTPException(401, {
    message: 'Expected "Authorization: Bearer" and a token of KV_TOKEN or KV_READ_TOKEN',
    res: new Response(null, { headers: { "WWW-Authenticate": challenge } }),
  });
}

function readOnly(store: Store): Store {
  async function refuse(): Promise<never> {
    throw new HTTPException(403, { message: "Cannot write with a token of KV_READ_TOKEN" });
  }
  return { ...store, set: refuse, setAll: refuse, delete: refuse };
}
