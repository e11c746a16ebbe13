/**
 * The app's schema for session data, and what it accepts.
 *
 * @module
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { MAX_DEPTH } from "../stores/store.ts";
import { SessionDataInvalid } from "./errors.ts";

type Result<T> = StandardSchemaV1.Result<T>;
type Issues = readonly StandardSchemaV1.Issue[];

/** Parses session data by a Standard Schema. See https://standardschema.dev */
export class DataSchema<T extends object> {
  readonly #schema: StandardSchemaV1<unknown, T>;
  readonly #migrate: ((data: unknown) => unknown) | undefined;

  /** @throws {TypeError} If the schema does not accept `{}` */
  constructor(schema: StandardSchemaV1<unknown, T>, migrate?: (data: unknown) => unknown) {
    this.#schema = schema;
    this.#migrate = migrate;
    if (typeof schema?.["~standard"]?.validate !== "function") {
      const wanted = "sessions({ store, schema: z.object({ count: z.number().default(0) }) })";
      throw new TypeError(
        `Cannot use the schema: expected a zod schema or another, as in ${wanted}`,
      );
    }
    const result = this.#validate({});
    if (result instanceof Promise) {
      // An asynchronous schema is checked at the first request, which gets its error, too.
      result.catch(() => {});
      return;
    }
    if (!result.issues) return;
    const wanted = "expected one that accepts {}, with a default for each key";
    throw new TypeError(`Cannot use the schema: ${wanted}: ${result.issues[0]?.message}`);
  }

  /**
   * Parses what was stored, after `migrate` where it does not fit.
   *
   * @throws {SessionDataInvalid} If it does not fit
   */
  async parse(stored: unknown): Promise<T> {
    const result = await this.#validate(stored);
    if (!result.issues) return result.value;
    return accepted(await this.#validate(await this.#migrated(stored, result.issues)));
  }

  /**
   * Parses what was stored, at once.
   *
   * @throws {SessionDataInvalid} If it does not fit
   * @throws {TypeError} If the schema or `migrate` returns a promise
   */
  parseNow(stored: unknown): T {
    const result = atOnce(this.#validate(stored));
    if (!result.issues) return result.value;
    return accepted(atOnce(this.#validate(atOnce(this.#migrated(stored, result.issues)))));
  }

  #validate(data: unknown): Result<T> | Promise<Result<T>> {
    return this.#schema["~standard"].validate(data);
  }

  #migrated(stored: unknown, issues: Issues): unknown {
    if (this.#migrate) return this.#migrate(stored);
    const hint = "text that is not a JSON object: Flask stores NaN and Infinity, which JSON lacks";
    throw misfit(
      typeof stored === "string" ? `what is stored, ${hint},` : "what is stored",
      issues,
    );
  }

  /**
   * Returns what the app's `change` makes of the data, to be stored. It is `before` itself if nothing
   * changes.
   *
   * @throws {SessionDataInvalid} If it does not fit, or would not come back as it is
   */
  async change(before: T, change: (data: Readonly<T>) => T): Promise<T> {
    if (typeof change !== "function") {
      const wanted =
        "expected a function from the old data to the new: update((s) => ({ ...s, … }))";
      throw new TypeError(`Cannot update the session by ${typeof change}: ${wanted}`);
    }
    const after = run(before, change);
    if (after === before) return before;
    if (isPromise(after)) {
      throw invalid(change, "is a promise: await what update needs before it is called");
    }
    const result = await this.#validate(after);
    if (result.issues) throw misfit(given(change), result.issues);
    const problem = problemForJson(result.value);
    if (problem !== null) throw invalid(change, `cannot be kept as JSON: ${problem}`);
    const dropped = droppedKey(after, result.value, before);
    if (dropped !== null) throw invalid(change, `has "${dropped}", which is not in the schema`);
    return freeze(result.value);
  }
}

/** Runs the app's function on frozen data. */
function run<T>(before: T, change: (data: T) => T): T {
  try {
    return change(before);
  } catch (error) {
    // The words of V8 and of JavaScriptCore.
    const isInPlace = error instanceof TypeError &&
      /not extensible|read[- ]?only property|delete property/.test(error.message);
    if (!isInPlace) throw error;
    const wanted = 'return new data, as in update((s) => ({ ...s, tags: [...s.tags, "new"] }))';
    const message = `Cannot change the session's data in place, in ${quoted(change)}: ${wanted}`;
    throw new SessionDataInvalid(message, { cause: error });
  }
}

/**
 * Quotes the app's code in an error. A stack has lost its line, and to note it costs each update a
 * tenth of a page.
 */
function quoted(change: unknown): string {
  return `update(${String(change).replace(/\s+/g, " ").slice(0, 80)})`;
}

function given(change: unknown): string {
  return `what ${quoted(change)} gave`;
}

function invalid(change: unknown, problem: string): SessionDataInvalid {
  return new SessionDataInvalid(`The session's data, ${given(change)}, ${problem}`);
}

function accepted<T>(migrated: Result<T>): T {
  if (!migrated.issues) return migrated.value;
  throw misfit("what migrate gave", migrated.issues);
}

function atOnce<V>(value: V | Promise<V>): V {
  if (!isPromise(value)) return value;
  throw new TypeError("Cannot wait for the schema or migrate: a lifetime is needed at once");
}

function misfit(what: string, issues: Issues): SessionDataInvalid {
  const problems = issues.map(({ path = [], message }) => {
    const keys = path.map((part) => String(typeof part === "object" ? part.key : part));
    return [keys.join("."), message].filter((text) => text !== "").join(": ");
  });
  return new SessionDataInvalid(
    `The session's data, ${what}, does not fit the schema: ${problems.join("; ")}`,
  );
}

/**
 * Says where a value has something that JSON does not give back as it was, and what it is; null if
 * there is nothing. A member of an object that is undefined may be missing afterwards.
 */
function problemForJson(value: unknown, path = "", depth = 0): string | null {
  switch (typeof value) {
    case "string":
    case "boolean":
      return null;
    case "number":
      return Number.isFinite(value) ? null : at(path, String(value));
    case "object":
      break;
    default:
      return at(path, typeof value);
  }
  if (value === null) return null;
  if (depth > MAX_DEPTH) return `it is nested over ${MAX_DEPTH} levels deep`;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const problem = problemForJson(value[i], `${path}${path && "."}${i}`, depth + 1);
      if (problem !== null) return problem;
    }
    return null;
  }
  if (!isPlain(value)) return at(path, `a ${value.constructor?.name || "class instance"}`);
  for (const key of Object.keys(value)) {
    const member = (value as Record<string, unknown>)[key];
    if (member === undefined) continue;
    const problem = problemForJson(member, path === "" ? key : `${path}.${key}`, depth + 1);
    if (problem !== null) return problem;
  }
  return null;
}

/**
 * Returns the path of a key that `given` has, and neither `kept` nor `before` has; null if there is
 * none. Where data and schema have grown apart, what was stored may have a key too many.
 */
function droppedKey(given: unknown, kept: unknown, before: unknown, path = ""): string | null {
  if (given === kept || given === before || !isObject(given) || !isObject(kept)) return null;
  for (const [key, member] of Object.entries(given)) {
    const at = path === "" ? key : `${path}.${key}`;
    const earlier = isObject(before) && Object.hasOwn(before, key) ? before[key] : undefined;
    if (Object.hasOwn(kept, key)) {
      const dropped = droppedKey(member, kept[key], earlier, at);
      if (dropped !== null) return dropped;
    } else if (member !== undefined && earlier === undefined && !Array.isArray(kept)) return at;
  }
  return null;
}

/**
 * Whether a function of the app has returned a promise where its value is needed at once. The
 * promise's own error would say less, and end the process.
 */
export function isPromise(value: unknown): value is Promise<unknown> {
  if (!(value instanceof Promise)) return false;
  value.catch(() => {});
  return true;
}

/** Freezes plain data, so that a change of it in place is an error and not lost. */
export function freeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  if (!Array.isArray(value) && !isPlain(value)) return value;
  Object.freeze(value);
  for (const member of Object.values(value)) freeze(member);
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function at(path: string, what: string): string {
  return path === "" ? `it is ${what}` : `"${path}" is ${what}`;
}
