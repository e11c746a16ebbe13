/**
 * The configuration of both servers: `counter.cfg.json` in the current directory, or the file named
 * by `APP_CONFIG`. An environment variable of the same name overrides a key. There, values other than
 * strings are written as JSON (`USE_SESSION_STORE=true`), and lists with commas, or as JSON where an
 * element has a comma (`SECRET_KEY_FALLBACKS='["…,…"]'`).
 *
 * The names are Flask's: https://flask.palletsprojects.com/en/stable/config/
 */
import { isIP } from "node:net";
import { z } from "zod";
import { LOG_MODES } from "./log.ts";
import { meant } from "./misspelled.ts";
import { MIN_SECRET_LENGTH } from "../sessions/signature.ts";
import { MAX_LIFETIME } from "../sessions/lifetimes.ts";
import { storeUrlProblem, withoutPassword } from "../stores/open.ts";

const DEFAULT_FILE = "counter.cfg.json";
/** The longest configuration file, in bytes. */
const MAX_FILE_BYTES = 1024 * 1024;
/** How much of a value an error message shows, in characters. */
const MAX_SHOWN = 200;
/** The quotes or line ends that some readers of env files leave in a variable. */
const WRAPPED = /^[\s\p{Cc}]|[\s\p{Cc}]$|^(["']).*\1$/su;
const WITHOUT_QUOTES = "expected no quotes, spaces or control characters around it";
/** Where `kv.ts` listens by default. */
export const DEFAULT_KV_URL = "http://localhost:5100";

const storeUrl = z.string("expected a store's URL").refine((url) => storeUrlProblem(url) === null, {
  error: ({ input }) => storeUrlProblem(String(input)) ?? "",
});
const secretLength = `expected at least ${MIN_SECRET_LENGTH} characters`;
const secret = z.string(secretLength).min(MIN_SECRET_LENGTH, secretLength)
  .refine((it) => !/^<.*>$/s.test(it), "expected a key in place of <…>: openssl rand -hex 32");
const token = z.string().regex(
  /^[\w.~+/-]{16,}=*$/,
  "expected at least 16 letters, digits, or any of - . _ ~ + /",
);
const tokenOrTokens = "expected a token, or a list of tokens";
const tokens = z.union([token, z.array(token).min(1, tokenOrTokens)], tokenOrTokens).optional()
  .transform((value = []) => [value].flat());
const wholeSeconds = `expected whole seconds, from 1 to ${MAX_LIFETIME}`;
const seconds = z.int(wholeSeconds).min(1, wholeSeconds).max(MAX_LIFETIME, wholeSeconds);
const anyPort = "expected a port, from 0 to 65535";
const port = z.int(anyPort).min(0, anyPort).max(65535, anyPort);
const flag = z.boolean("expected true or false");

const ENCRYPT = "expected true, false, read-encrypted or read-signed";

/** The keys of the file. `deno task schema` turns them into `counter.cfg.schema.json`, for editors. */
export const ConfigFile = z.strictObject({
  $schema: z.string().optional().describe("This file's JSON schema, for editors"),
  USE_SESSION_STORE: flag.default(false)
    .describe("false: sessions in a signed cookie; true: sessions in the store at KV_URL"),
  KV_URL: storeUrl.default(DEFAULT_KV_URL)
    .describe("The store that keeps the sessions: a store's URL"),
  KV_TOKEN: tokens
    .describe("Bearer token of the key-value service; of a list, clients send the first"),
  KV_READ_TOKEN: tokens
    .describe("Bearer token that can read from the key-value service, but not write"),
  DBM: storeUrl.default("kv.db")
    .describe("The store that the key-value service serves: a store's URL"),
  SECRET_KEY: secret.optional()
    .describe("Signs the session cookie; the default is a random key at each start"),
  SECRET_KEY_FALLBACKS: z.array(secret, "expected a list of keys").default([])
    .describe("Older keys; cookies signed with them are still accepted"),
  SESSION_COOKIE_NAME: z.string("expected a name").default("session"),
  SESSION_COOKIE_DOMAIN: z.string("expected a host name").optional(),
  SESSION_COOKIE_PATH: z.string("expected a path").default("/"),
  SESSION_COOKIE_SECURE: z.union([z.literal("auto"), z.boolean()], 'expected true, false or "auto"')
    .default("auto").describe("auto: Secure if the request came over https"),
  SESSION_COOKIE_SAMESITE: z.enum(["Strict", "Lax", "None"], "expected Strict, Lax or None")
    .default("Lax"),
  SESSION_COOKIE_PARTITIONED: flag.default(false)
    .describe("true: one cookie for each top-level site (CHIPS); needs SESSION_COOKIE_SECURE true"),
  SESSION_COOKIE_DIGEST: z.enum(["sha1", "sha256"], "expected sha1 or sha256").default("sha256")
    .describe("sha1: share cookies with a Flask app that has the same SECRET_KEY"),
  SESSION_COOKIE_ENCRYPT: z.union([z.boolean(), z.enum(["read-encrypted", "read-signed"])], ENCRYPT)
    .default(false)
    .describe(
      "true: the cookie hides the session; read-encrypted, then read-signed: on the way there",
    ),
  PERMANENT_SESSION_LIFETIME: seconds.default(31 * 24 * 60 * 60)
    .describe("Seconds after which an unused session expires"),
  SESSION_ABSOLUTE_LIFETIME: seconds.optional()
    .describe("Seconds after which a session expires even if it is in use"),
  HASH_SESSION_IDS: flag.default(false)
    .describe("true: the store holds a hash of each session id instead of the id"),
  TRUST_PROXY: flag.default(false)
    .describe("true: trust X-Forwarded-Proto, X-Forwarded-Host and Forwarded, which a proxy sets"),
});

/** Where a server listens and what it prints: from the environment only, since both servers share the file. */
const Listen = z.object({
  HOST: z.string().transform((host) => host.replace(/^\[(.*)\]$/, "$1"))
    .refine(
      (host) => isIP(host) && !host.includes("%") || /^\w[\w.-]*$/.test(host),
      "expected a name or an address, no port",
    )
    .default("127.0.0.1"),
  PORT: port.optional(),
  KV_PORT: port.optional(),
  LOG: z.enum(LOG_MODES, "expected events, requests or json").default("events"),
});

export type Config = z.infer<typeof ConfigFile> & z.infer<typeof Listen>;

const SCHEMAS = Object.entries<z.ZodType>({ ...ConfigFile.shape, ...Listen.shape });
/** The environment variables that are read. */
export const SETTINGS = ["APP_CONFIG", ...SCHEMAS.map(([key]) => key)];

export function configFile(environment: Record<string, string> = Deno.env.toObject()): string {
  return environment["APP_CONFIG"] || DEFAULT_FILE;
}

/** The configuration is invalid: one line for each problem. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/**
 * Returns every key with its value or default. Without `APP_CONFIG`, a missing file means the defaults.
 *
 * @throws {ConfigError} If keys are invalid or unknown, a line for each; or if the file cannot be read
 */
export function readConfig(environment: Record<string, string> = Deno.env.toObject()): Config {
  const wrapped = SETTINGS.filter((key) => WRAPPED.test(environment[key] ?? ""))
    .map((key) => `environment: ${key} is ${shown(key, environment[key])}: ${WITHOUT_QUOTES}`);
  if (wrapped.length > 0) throw new ConfigError(wrapped.join("\n"));
  const path = configFile(environment);
  const file = readFile(path, path !== DEFAULT_FILE);
  const problems = Object.keys(file)
    .filter((key) => !Object.hasOwn(ConfigFile.shape, key))
    .map((key) => `${path}: ${unknownKey(key)}`);
  const config: Record<string, unknown> = {};
  for (const [key, schema] of SCHEMAS) {
    const text = environment[key] || undefined;
    const value = text === undefined ? file[key] : fromText(text, schema);
    const result = schema.safeParse(value);
    if (result.success) {
      if (result.data !== undefined) config[key] = result.data;
    } else {
      const origin = text === undefined ? path : "environment";
      const wanted = result.error.issues[0]?.message;
      problems.push(`${origin}: ${key} is ${shown(key, value)}: ${wanted}`);
    }
  }
  const { KV_TOKEN, KV_READ_TOKEN = [] } = config as Partial<Config>;
  if (KV_TOKEN?.length === 0 && KV_READ_TOKEN.length > 0) {
    problems.push("KV_READ_TOKEN is set: expected KV_TOKEN to be set as well");
  }
  if (KV_READ_TOKEN.some((token) => KV_TOKEN?.includes(token))) {
    problems.push("KV_READ_TOKEN has a token of KV_TOKEN, which can write: expected another");
  }
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));
  return config as Config;
}

function unknownKey(key: string): string {
  if (SETTINGS.includes(key)) return `${key} is set: expected it in the environment only`;
  const setting = meant(key, Object.keys(ConfigFile.shape));
  return `${key} is unknown: ` +
    (setting ? `did you mean ${setting}?` : "expected one of the keys in docs/CONFIGURATION.md");
}

function readFile(path: string, required: boolean): Record<string, unknown> {
  try {
    const { isFile, size } = Deno.statSync(path);
    // A pipe would wait silently for its writer, and a device may never end.
    if (!isFile) throw new Error("expected a regular file");
    if (size > MAX_FILE_BYTES) throw new Error(`expected ${MAX_FILE_BYTES} bytes at most`);
    // Otherwise each invalid byte would become the same character, in a secret too.
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Deno.readFileSync(path));
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new Error("expected a JSON object");
    }
    return value as Record<string, unknown>;
  } catch (cause) {
    if (!required && cause instanceof Deno.errors.NotFound) return {};
    throw new ConfigError(`Cannot read "${path}": ${problemOf(cause as Error)}`, { cause });
  }
}

function problemOf(error: Error): string {
  if (error instanceof TypeError) return "expected UTF-8";
  if (!(error instanceof SyntaxError)) return error.message;
  // V8 quotes the text around the error, which may be a secret.
  return `expected JSON: ${error.message.replace(/, (\.{3})?"[^]*$/, "")}`;
}

/**
 * Reads a variable as text, as JSON or as a list: the first that the schema accepts. If it accepts
 * none, returns the likeliest one for the error.
 */
function fromText(text: string, schema: z.ZodType): unknown {
  const value = parsed(text);
  const list = text.split(",").map((it) => it.trim());
  const readings = [text, value, list];
  const likeliest = schema.safeParse([]).success && typeof value === "string" ? list : value;
  return readings.find((it) => schema.safeParse(it).success) ?? likeliest;
}

/** The JSON value of a text, or the text itself if it is not JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A value as an error message may show it: shortened, without secrets and passwords. */
function shown(key: string, value: unknown): string {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  const isSecret = /SECRET|TOKEN/.test(key);
  if (typeof value === "string") {
    if (isSecret) return `a string of ${value.length} characters`;
    const text = withoutPassword(value);
    return JSON.stringify(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text);
  }
  if (isSecret) return "not a string";
  return typeof value === "object" && value !== null ? "an object" : String(value);
}

if (import.meta.main) {
  console.log(JSON.stringify(z.toJSONSchema(ConfigFile, { io: "input" }), null, 2));
}
