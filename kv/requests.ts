/** The URL and the headers of a request: its key, its query and the type that it accepts. */
import { parseAccept } from "hono/utils/accept";
import { z } from "zod";
import { MAX_PAGE, MAX_TTL } from "../stores/store.ts";
import { badRequest } from "./errors.ts";
import type { Handler, KvContext } from "./answers.ts";

/** A longer `Accept` counts as none. */
const MAX_ACCEPT_LENGTH = 2048;

/** A whole number in a query. Stores check its bounds, which are here for the OpenAPI document. */
function wholeNumber(minimum: number, maximum: number, wanted = "expected a whole number") {
  return z.string(wanted).regex(/^-?\d{1,20}$/, wanted).transform(Number)
    .meta({ type: "integer", minimum, maximum, pattern: undefined });
}

/** A schema of an object with these members and no others, which a query calls parameters. */
export function only<T extends z.ZodRawShape>(shape: T, kind = "parameter") {
  const names = Object.keys(shape).join(", ");
  return z.strictObject(shape, {
    error(issue) {
      if (issue.code !== "unrecognized_keys") return undefined;
      const unknown = issue.keys.map((key) => JSON.stringify(key)).join(", ");
      return `unknown ${kind} ${unknown}: expected ${names}`;
    },
  });
}

const prefix = z.string().default("");
const ttl = wholeNumber(1, MAX_TTL, "expected a whole number of seconds");
const noValue = z.literal("", "expected no value");

/** The parameters of each kind of request. */
export const QUERIES = {
  list: only({ prefix, limit: wholeNumber(1, MAX_PAGE).optional(), after: z.string().optional() }),
  prefix: only({ prefix }),
  write: only({ ttl: ttl.optional() }),
  extend: only({ ttl }),
  remove: only({
    prefix: z.string("expected one, or ?prefix=&all to delete everything"),
    all: noValue.optional(),
  }),
  backup: only({ prefix, backup: noValue }),
  health: only({ health: noValue }),
  metrics: only({ metrics: noValue }),
  openapi: only({ openapi: noValue }),
};

export function readKey(c: KvContext): string {
  const { path } = c.get("url");
  return path.includes("%") ? unescaped(path, "the key") : path;
}

export function readQuery<T extends z.ZodType>(c: KvContext, schema: T): z.infer<T> {
  const { search } = c.get("url");
  const values = new Map<string, string>();
  if (search !== null) {
    // URLSearchParams would accept bad escapes as text.
    unescaped(search, "the query");
    // It would leave out a question mark at the beginning.
    for (const [name, value] of new URLSearchParams(`?${search}`)) {
      if (values.has(name)) throw badRequest(`Cannot read the query: "${name}" is repeated`);
      values.set(name, value);
    }
  }
  return parseBy(schema, Object.fromEntries(values), "the query");
}

/** @throws {HTTPException} 400 if there is a query */
export function expectNoQuery(c: KvContext): void {
  if (c.get("url").search) throw badRequest("Cannot read the query: expected no parameters");
}

type Choice = [type: string, handler: Handler];

/**
 * Chooses a handler by the client's preferred media type (RFC 9110, section 12.5.1). If the client
 * accepts none of them, it is the first.
 */
export function byAccept(first: Choice, ...others: Choice[]): Handler {
  return function byAccept(c) {
    const accept = c.req.header("Accept");
    if (accept === undefined || accept === "*/*" || accept.length > MAX_ACCEPT_LENGTH) {
      return first[1](c);
    }
    const ranges = parseAccept(accept.toLowerCase()); // the most preferred first
    const place = ([type]: Choice) => {
      const names = [type, type.replace(/\/.*/, "/*"), "*/*"];
      const name = names.find((name) => ranges.some((range) => range.type === name));
      const found = ranges.findIndex((range) => range.type === name);
      return ranges[found]?.q ? found : Infinity;
    };
    const [, handler] = others.reduce((best, it) => place(it) < place(best) ? it : best, first);
    return handler(c);
  };
}

export function parseBy<T extends z.ZodType>(schema: T, value: unknown, what: string): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => [...path, message].join(": "));
  throw badRequest(`Cannot read ${what}: ${problems.join("; ")}`);
}

function unescaped(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw badRequest(`Cannot read ${what} "${text}": bad escapes`, cause);
  }
}
