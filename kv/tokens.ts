/** Bearer tokens (RFC 6750); in a browser a token is typed as a password (Basic, RFC 7617). */
import { HTTPException } from "hono/http-exception";
import { auth } from "hono/utils/basic-auth";
import { createHash, timingSafeEqual } from "node:crypto";
import { tokenProblem } from "../stores/checks.ts";
import type { Store } from "../stores/store.ts";
import type { KvContext } from "./answers.ts";

/** What a request may do. */
export interface Access {
  readonly canWrite: boolean;
  /** The store; one whose writes fail, unless the request may write. */
  readonly store: Store;
}

/**
 * Returns a function that tells what a request may do: everything, if there is no token of either kind.
 *
 * @throws {TypeError} If a token is empty, or has a character that a `Bearer` header cannot carry
 */
export function accessOf(
  store: Store,
  tokens: string[],
  readTokens: string[],
): (request: Request) => Access {
  const full: Access = { canWrite: true, store };
  if (tokens.length + readTokens.length === 0) return () => full;
  for (const token of [...tokens, ...readTokens]) checkToken(token);
  const reading: Access = { canWrite: false, store: readOnly(store) };
  const granted = [
    ...tokens.map((token) => [digestOf(token), full] as const),
    ...readTokens.map((token) => [digestOf(token), reading] as const),
  ];
  return function access(request) {
    // All digests have one length, and each is compared, so the time reveals nothing about a token.
    const digest = digestOf(tokenOf(request));
    const [match] = granted.filter(([other]) => timingSafeEqual(digest, other));
    if (match === undefined) throw unauthorized(request);
    return match[1];
  };
}

/** @throws {HTTPException} 403 if a request that writes may only read */
export function writing(c: KvContext): Store {
  const { canWrite, store } = c.get("access");
  if (!canWrite) throw readOnlyToken();
  return store;
}

function readOnlyToken(): HTTPException {
  return new HTTPException(403, { message: "Cannot write with a token of KV_READ_TOKEN" });
}

function checkToken(token: string): void {
  const problem = tokenProblem(token);
  if (problem === null) return;
  const what = `a token of ${token.length} characters that no header can carry`;
  throw new TypeError(`Cannot accept ${what}: ${problem}`);
}

function digestOf(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}

/** Returns "" for a request without a token. */
function tokenOf(request: Request): string {
  const header = request.headers.get("Authorization") ?? "";
  return /^Bearer +([\w.~+/-]+=*) *$/i.exec(header)?.[1] ?? auth(request)?.password ?? "";
}

function unauthorized(request: Request): HTTPException {
  // A browser prompts its user for Basic only; other clients should send no password.
  const isBrowser = /\btext\/html\b/.test(request.headers.get("Accept") ?? "");
  const challenge = isBrowser ? 'Basic realm="kv: any name, and a token"' : 'Bearer realm="kv"';
  return new HTTPException(401, {
    message: 'Expected "Authorization: Bearer" with a token of KV_TOKEN or KV_READ_TOKEN',
    res: new Response(null, { headers: { "WWW-Authenticate": challenge } }),
  });
}

function readOnly(store: Store): Store {
  const refuse = () => Promise.reject(readOnlyToken());
  return { ...store, set: refuse, setAll: refuse, delete: refuse };
}
