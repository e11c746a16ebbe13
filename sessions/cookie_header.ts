/** The session's cookie in the headers of a request and of its response. */
import { setCookie } from "@std/http/cookie";
import { serialize } from "hono/utils/cookie";
import { SessionTooLarge } from "./errors.ts";
import { checkOptions } from "./options.ts";

/** The cookie's name and attributes. It is always `HttpOnly`. */
export interface CookieOptions {
  /** By default the session's name, `session`. */
  name?: string;
  /** By default none: only the host that set the cookie receives it. */
  domain?: string | undefined;
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
const MAX_COOKIE_BYTES = 4093;
/** The most bytes for the name and attributes, which leaves room for an id or a small session. */
const MAX_EMPTY_BYTES = 4000;
/** How many cookies of one name are read. Each may cost two calls to the store. */
const MAX_SAME_NAME = 8;

type NamedOptions = CookieOptions & { name: string };

/**
 * Reads one cookie and makes its headers. Its attributes never change, so they are checked and
 * written once, at the start; a response then joins three texts.
 */
export class SessionCookie {
  readonly name: string;
  readonly #secure: boolean | "auto";
  readonly #trustProxy: boolean;
  readonly #secureTexts: CookieTexts;
  readonly #plainTexts: CookieTexts;

  /**
   * @param maxAge The longest `Max-Age` that will be asked for, in seconds
   * @throws {TypeError} If the name or an attribute is invalid
   */
  constructor(options: NamedOptions, maxAge: number, trustProxy: boolean) {
    checkOptions("cookie", options, {
      name: "string",
      domain: "string",
      path: "string",
      secure: 'boolean or "auto"',
      sameSite: '"Strict" or "Lax" or "None"',
      partitioned: "boolean",
    });
    this.name = options.name;
    this.#secure = options.secure ?? "auto";
    this.#trustProxy = trustProxy;
    try {
      checkCookie(options, maxAge);
      this.#secureTexts = textsOf({ ...options, secure: true });
      this.#plainTexts = textsOf({ ...options, secure: false });
      const { length } = `${this.name}=; Max-Age=${maxAge}${this.#secureTexts.attributes}`;
      if (length > MAX_EMPTY_BYTES) {
        const wanted = `expected ${MAX_EMPTY_BYTES} at most`;
        throw new RangeError(`its name and attributes take ${length} bytes: ${wanted}`);
      }
    } catch (cause) {
      const reason = (cause as Error).message;
      throw new TypeError(`Cannot use the cookie "${this.name}": ${reason}`, { cause });
    }
  }

  /**
   * Returns the values of all cookies with this name, as browsers send them where cookies were set
   * for several paths or domains, each once. (std's `getCookies` keeps the last one only, and throws
   * at a cookie that begins with "=".)
   */
  values(header: string | null): string[] {
    const values: string[] = [];
    if (header === null) return values;
    const start = `${this.name}=`;
    for (const pair of header.split(";")) {
      // Not trim(): to a browser, U+00A0 before a name makes another one, for which no prefix counts.
      const cookie = pair.replace(/^[ \t]+/, "").trimEnd();
      if (!cookie.startsWith(start)) continue;
      const value = cookie.slice(start.length);
      if (!values.includes(value)) values.push(value);
      if (values.length === MAX_SAME_NAME) break;
    }
    return values;
  }

  /** Returns the texts for the response to a request: those of `auto` follow from its scheme. */
  textsFor(request: Request): CookieTexts {
    const isSecure = this.#secure === "auto" ? isHttps(request, this.#trustProxy) : this.#secure;
    return isSecure ? this.#secureTexts : this.#plainTexts;
  }

  /**
   * Returns the `Set-Cookie` for a value.
   *
   * @param maxAge Seconds, or null: until the browser is closed
   * @throws {SessionTooLarge} If a browser would drop the cookie
   */
  header(value: string, { attributes }: CookieTexts, maxAge: number | null): string {
    const age = maxAge === null ? "" : `; Max-Age=${maxAge}`;
    const header = `${this.name}=${value}${age}${attributes}`;
    if (header.length <= MAX_COOKIE_BYTES) return header;
    const size = `${header.length} bytes, expected ${MAX_COOKIE_BYTES} at most`;
    throw new SessionTooLarge(`Cannot keep the session in its cookie: ${size}`);
  }
}

/** What the headers of a cookie have in common. */
export interface CookieTexts {
  /** As they follow a value: "; HttpOnly; SameSite=Lax; Path=/". */
  readonly attributes: string;
  /**
   * The headers that clear the cookie at every path, domain and partition where it may have been set:
   * to a browser each is another cookie, which would still log in.
   */
  readonly clearing: readonly string[];
}

function textsOf(options: NamedOptions & { secure: boolean }): CookieTexts {
  const { name } = options;
  const places = [options, { ...options, path: "/" }]
    .flatMap((it) => [it, { ...it, domain: undefined }])
    .flatMap((it) => [it, { ...it, partitioned: false }]);
  const clearing = places.map((it) =>
    `${name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT${attributesOf(it)}`
  );
  return { attributes: attributesOf(options), clearing: [...new Set(clearing)] };
}

/**
 * Whether the client used https or wss. With several proxies, the first element is from the one next
 * to the client: of `X-Forwarded-Proto`, or of `Forwarded` (RFC 7239).
 */
function isHttps({ url, headers }: Request, trustProxy: boolean): boolean {
  const forwarded = trustProxy
    ? /^\s*(\w+)/.exec(headers.get("X-Forwarded-Proto") ?? "")?.[1] ??
      /^(?:[^,]*;)?\s*proto="?(\w+)/i.exec(headers.get("Forwarded") ?? "")?.[1]
    : undefined;
  return /^(https|wss)$/i.test(forwarded ?? url.slice(0, url.indexOf(":")));
}

function attributesOf(options: NamedOptions & { secure: boolean }): string {
  const { name, path = "/", sameSite = "Lax", partitioned = false, secure, domain } = options;
  const fixed = { path, sameSite, partitioned, secure, httpOnly: true, ...domain && { domain } };
  const headers = new Headers();
  setCookie(headers, { name, value: "", ...fixed });
  return (headers.get("Set-Cookie") ?? "").slice(`${name}=`.length);
}

/** @throws {Error} If browsers would reject the cookie */
function checkCookie(options: NamedOptions, maxAge: number): void {
  const { name, path = "/", domain, secure, sameSite, partitioned = false } = options;
  if (name === "") throw new TypeError("expected a name");
  // Browsers would take the path of the request instead.
  if (!path.startsWith("/")) throw new TypeError(`its path is "${path}": expected a leading "/"`);
  const attributes = { path, partitioned, maxAge, secure: secure !== false };
  // Hono's rules for the prefixes `__Host-` and `__Secure-` and for 400 days: std changes the
  // attributes of such a cookie silently, and knows no longest age.
  serialize(name, "", { ...attributes, ...domain && { domain }, ...sameSite && { sameSite } });
  if (domain !== undefined && !/^\.?[a-z\d]([a-z\d.-]*[a-z\d])?$/i.test(domain)) {
    throw new TypeError(`its domain is "${domain}": expected a host name like example.org`);
  }
  // Browsers drop these without Secure, so that `auto` would fail at the first http request.
  const asking = [
    partitioned && "Partitioned",
    sameSite === "None" && "SameSite=None",
    /^__(host|secure|http)-/i.test(name) && "its prefix",
  ].find(Boolean);
  if (asking && secure !== true) throw new TypeError(`${asking} asks for Secure to be true`);
}
