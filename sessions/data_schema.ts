/** The app's schema for session data, and what it accepts. */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { MAX_DEPTH } from "../stores/store.ts";
import { SessionDataInvalid } from "./errors.ts";

type Result<T> = StandardSchemaV1.Result<T>;
type Change<T> = (data: Readonly<T>) => T;

/** Parses session data by a Standard Schema. See https://standardschema.dev */
export class DataSchema<T extends object> {
  readonly #schema: StandardSchemaV1<unknown, T>;
  readonly #migrate: ((data: unknown) => unknown) | undefined;

  /** @throws {TypeError} If there is no schema, or it does not accept `{}` */
  constructor(schema: StandardSchemaV1<unknown, T>, migrate?: (data: unknown) => unknown) {
    if (typeof schema?.["~standard"]?.validate !== "function") {
      const call = "sessions({ store, schema: z.object({ count: z.number().default(0) }) })";
      throw new TypeError(`Cannot use the schema: expected a zod schema or another, as in ${call}`);
    }
    this.#schema = schema;
    this.#migrate = migrate;
    const result = this.#validate({});
    // An asynchronous schema is checked at the first request.
    if (isPromise(result) || !result.issues) return;
    const wanted = "expected one that accepts {}, with a default for each key";
    throw new TypeError(`Cannot use the schema: ${wanted}: ${result.issues[0]?.message}`);
  }

  /**
   * Parses what was stored, after `migrate` where it does not fit. Returns a promise only where the
   * schema or `migrate` does.
   *
   * @throws {SessionDataInvalid} If it does not fit
   */
  parse(stored: unknown): T | Promise<T> {
    return after(this.#validate(stored), (result) => {
      if (result.issues === undefined) return result.value;
      if (this.#migrate) {
        const migrated = after(migrate(stored, this.#migrate), (data) => this.#validate(data));
        return after(migrated, (result) => fitting(result, () => "what migrate gave"));
      }
      const hint =
        "(text that is not a JSON object, as NaN of Flask, or over 64 KiB when inflated)";
      return fitting(result, () => `what is stored${typeof stored === "string" ? ` ${hint}` : ""}`);
    });
  }

  /**
   * Returns the result of the app's `change`, to be stored: `before` itself if nothing changes.
   *
   * @throws {SessionDataInvalid} If it does not fit, or JSON would not give it back unchanged
   */
  async change(before: T, change: Change<T>): Promise<T> {
    const given = run(before, change);
    if (given === before) return before;
    if (isPromise(given)) {
      throw invalid(change, "is a promise: await what update needs before it is called");
    }
    const data = fitting(await this.#validate(given), () => `what ${quoted(change)} gave`);
    const problem = problemForJson(data);
    if (problem !== null) throw invalid(change, `cannot be kept as JSON: ${problem}`);
    const dropped = droppedKey(given, data, before);
    if (dropped !== null) throw invalid(change, `has "${dropped}", which is not in the schema`);
    return freeze(data);
  }

  #validate(data: unknown): Result<T> | Promise<Result<T>> {
    return this.#schema["~standard"].validate(data);
  }
}

/** @throws {SessionDataInvalid} If the app's function throws, or its promise is rejected */
function migrate(stored: unknown, run: (data: unknown) => unknown): unknown {
  const fail = (cause: unknown): never => {
    const message = "The stored session data does not fit the schema, and migrate failed";
    throw new SessionDataInvalid(`${message}: ${cause}`, { cause });
  };
  try {
    const migrated = run(stored);
    return migrated instanceof Promise ? migrated.catch(fail) : migrated;
  } catch (error) {
    return fail(error);
  }
}

/** Continues with a value. Waits only for a promise, which saves time on each page. */
function after<A, B>(value: A | Promise<A>, next: (value: A) => B | Promise<B>): B | Promise<B> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/**
 * Whether a function of the app has returned a promise where its value is needed at once. A rejection
 * of that promise is ignored: it would end the process, and the caller reports the promise itself.
 */
export function isPromise(value: unknown): value is Promise<unknown> {
  if (!(value instanceof Promise)) return false;
  value.catch(() => {});
  return true;
}

/** Runs the app's function on frozen data. */
function run<T>(before: T, change: Change<T>): T {
  if (typeof change !== "function") {
    const wanted = "expected a function from the old data to the new: update((s) => ({ ...s, … }))";
    throw new TypeError(`Cannot update the session by ${typeof change}: ${wanted}`);
  }
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

/** Quotes the app's code, since the stack no longer has its line. */
function quoted(change: unknown): string {
  return `update(${String(change).replace(/\s+/g, " ").slice(0, 80)})`;
}

function invalid(change: unknown, problem: string): SessionDataInvalid {
  return new SessionDataInvalid(`The session's data, what ${quoted(change)} gave, ${problem}`);
}

/** @throws {SessionDataInvalid} If what was validated does not fit */
function fitting<T>(result: Result<T>, what: () => string): T {
  if (result.issues === undefined) return result.value;
  const problems = result.issues.map(({ path = [], message }) => {
    const keys = path.map((part) => String(typeof part === "object" ? part.key : part));
    return [keys.join("."), message].filter((text) => text !== "").join(": ");
  });
  throw new SessionDataInvalid(
    `The session's data, ${what()}, does not fit the schema: ${problems.join("; ")}`,
  );
}

/**
 * Describes the first part of a value that JSON would not give back unchanged; null if there is none.
 * A member of an object that is undefined may be missing afterwards.
 */
function problemForJson(value: unknown, path = "", depth = 0): string | null {
  if (typeof value === "string" || typeof value === "boolean" || value === null) return null;
  if (typeof value === "number" && Number.isFinite(value)) return null;
  const it = path === "" ? "it" : `"${path}"`;
  if (typeof value !== "object") {
    return `${it} is ${typeof value === "number" ? value : typeof value}`;
  }
  if (depth >= MAX_DEPTH) return `it is nested over ${MAX_DEPTH} levels deep`;
  if (!isPlain(value)) return `${it} is a ${value.constructor?.name || "class instance"}`;
  // The entries of an array include those that are missing.
  for (const [key, member] of Array.isArray(value) ? value.entries() : Object.entries(value)) {
    if (member === undefined && !Array.isArray(value)) continue;
    const problem = problemForJson(member, within(path, key), depth + 1);
    if (problem !== null) return problem;
  }
  return null;
}

/**
 * Returns the path of a key that `given` has, and neither `kept` nor `before` has; null if there is
 * none. A key that the data had before may be dropped.
 */
function droppedKey(given: unknown, kept: unknown, before: unknown, path = ""): string | null {
  if (given === kept || given === before || !isObject(given) || !isObject(kept)) return null;
  for (const key of Object.keys(given)) {
    const earlier = isObject(before) && Object.hasOwn(before, key) ? before[key] : undefined;
    if (Object.hasOwn(kept, key)) {
      const dropped = droppedKey(given[key], kept[key], earlier, within(path, key));
      if (dropped !== null) return dropped;
    } else if (given[key] !== undefined && earlier === undefined && !Array.isArray(kept)) {
      return within(path, key);
    }
  }
  return null;
}

/** Freezes plain data, so that changing it in place is an error instead of being lost. */
export function freeze<T>(value: T, depth = 0): T {
  if (!isObject(value) || !isPlain(value) || depth >= MAX_DEPTH) return value;
  Object.freeze(value);
  for (const key of Object.keys(value)) freeze(value[key], depth + 1);
  return value;
}

function within(path: string, key: string | number): string {
  return path === "" ? String(key) : `${path}.${key}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null || Array.isArray(value);
}
