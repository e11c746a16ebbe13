/**
 * The session's cookie in the headers of a request and of its response.
 *
 * @module
 */
import { setCookie } from "@std/http/cookie";
import { serialize } from "hono/utils/cookie";

/** The cookie's name and attributes. It is always `HttpOnly`. */
export interface CookieOptions {
  /** By default the session's name, `session`. */
  name?: string;
  /** By default none: only the host that set the cookie receives it. */
  domain?: string;
  /** By default `/`. */
  path?: string;
  /** By default `auto`: if the request came by https. */
  secure?: boolean | "auto";
  /** By default `Lax`. */
  sameSite?: "Strict" | "Lax" | "None";
  /** By default false. See https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies */
  partitioned?: boolean;
}

/** The longest `Set-Cookie`, in bytes, as in Flask: browsers drop a cookie over 4,096. */
export const MAX_COOKIE_BYTES = 4093;
/** What its name and attributes may take of that, so that there is room for an id or a small session. */
const MAX_EMPTY_BYTES = 4000;
/** How many cookies of one name are looked at. Each may cost a call to the store. */
const MAX_SAME_NAME = 8;

/**
 * Reads and writes one cookie. Its attributes never change, so they are checked and written once,
 * at the start; a response then joins three texts.
 */
export class SessionCookie {
  readonly name: string;
  readonly #secure: boolean | "auto";
  readonly #attributes: { readonly secure: string; readonly plain: string };

  /**
   * @param maxAge The longest `Max-Age` that will be asked for, in seconds
   * @throws {TypeError} If the name or an attribute is invalid
   */
  constructor(options: CookieOptions & { name: string }, maxAge: number) {
    const { name, secure = "auto" } = options;
    this.name = name;
    this.#secure = secure;
    checkCookie(options, maxAge);
    const { path = "/", sameSite = "Lax", partitioned = false, domain } = options;
    const fixed = { path, sameSite, partitioned, httpOnly: true, ...domain && { domain } };
    const attributes = (secure: boolean) => {
      const headers = new Headers();
      setCookie(headers, { name, value: "", secure, ...fixed });
      return (headers.get("Set-Cookie") ?? "").slice(`${name}=`.length);
    };
    try {
      this.#attributes = { secure: attributes(true), plain: attributes(false) };
    } catch (cause) {
      throw invalid(name, cause);
    }
    const { length } = this.set("", true, maxAge);
    if (length > MAX_EMPTY_BYTES) {
      const wanted = `expected ${MAX_EMPTY_BYTES} at most`;
      throw invalid(name, `its name and attributes take ${length} bytes: ${wanted}`);
    }
  }

  /**
   * Returns the values of all cookies with this name, as browsers send them where cookies were set
   * for several paths or domains. (std's `getCookies` keeps the last one only, and throws at a
   * cookie that begins with "=".)
   */
  values(header: string | null): string[] {
    const values: string[] = [];
    if (header === null) return values;
    const start = `${this.name}=`;
    for (const pair of header.split(";")) {
      const cookie = pair.trim();
      if (cookie.startsWith(start)) values.push(cookie.slice(start.length));
    }
    return values.slice(0, MAX_SAME_NAME);
  }

  /**
   * Returns the `Set-Cookie` for a value.
   *
   * @param maxAge Seconds, or null: until the browser is closed
   */
  set(value: string, isHttps: boolean, maxAge: number | null): string {
    const age = maxAge === null ? "" : `; Max-Age=${maxAge}`;
    return `${this.name}=${value}${age}${this.#suffix(isHttps)}`;
  }

  /** Returns the `Set-Cookie` that removes the cookie. */
  clear(isHttps: boolean): string {
    const expires = "Thu, 01 Jan 1970 00:00:00 GMT";
    return `${this.name}=; Max-Age=0; Expires=${expires}${this.#suffix(isHttps)}`;
  }

  #suffix(isHttps: boolean): string {
    const isSecure = this.#secure === "auto" ? isHttps : this.#secure;
    return isSecure ? this.#attributes.secure : this.#attributes.plain;
  }
}

/** @throws {TypeError} If browsers would reject the cookie */
function checkCookie(options: CookieOptions & { name: string }, maxAge: number): void {
  const { name, path = "/", domain, secure, sameSite, partitioned = false } = options;
  if (name === "") throw invalid(name, "expected a name");
  const attributes = { path, partitioned, maxAge, secure: secure !== false };
  try {
    // Hono's rules for the prefixes `__Host-` and `__Secure-` and for 400 days: std changes the
    // attributes of such a cookie silently, and knows no longest age.
    serialize(name, "", { ...attributes, ...domain && { domain }, ...sameSite && { sameSite } });
  } catch (cause) {
    throw invalid(name, cause);
  }
  if (domain !== undefined && !/^\.?[a-z\d]([a-z\d.-]*[a-z\d])?$/i.test(domain)) {
    throw invalid(name, `its domain is "${domain}": expected a host name like example.org`);
  }
  // Browsers drop these without Secure, so that `auto` would fail at the first http request.
  const asking = [
    partitioned && "Partitioned",
    sameSite === "None" && "SameSite=None",
    /^__(host|secure)-/i.test(name) && "its prefix",
  ].find(Boolean);
  if (asking && secure !== true) throw invalid(name, `${asking} asks for Secure to be true`);
}

function invalid(name: string, cause: unknown): TypeError {
  const reason = cause instanceof Error ? cause.message : cause;
  return new TypeError(`Cannot use the cookie "${name}": ${reason}`, { cause });
}
