/**
 * The app's schema for session data, and what it accepts.
 *
 * @module
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { MAX_DEPTH } from "../stores/store.ts";
import { SessionDataInvalid } from "./errors.ts";

/** Parses session data by a Standard Schema. See https://standardschema.dev */
export class DataSchema<T extends object> {
  readonly #schema: StandardSchemaV1<unknown, T>;
  readonly #migrate: ((data: unknown) => unknown) | undefined;

  /** @throws {TypeError} If the schema does not accept `{}` */
  constructor(schema: StandardSchemaV1<unknown, T>, migrate?: (data: unknown) => unknown) {
    this.#schema = schema;
    this.#migrate = migrate;
    const result = schema["~standard"].validate({});
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
  async parseStored(data: unknown): Promise<T> {
    const result = await this.#schema["~standard"].validate(data);
    if (!result.issues) return result.value;
    if (!this.#migrate) throw misfit("what is stored", result.issues);
    const migrated = await this.#schema["~standard"].validate(await this.#migrate(data));
    if (!migrated.issues) return migrated.value;
    throw misfit("what migrate gave", migrated.issues);
  }

  /**
   * Parses what the app's `change` has returned, to be stored.
   *
   * @throws {SessionDataInvalid} If it does not fit, or would not come back from JSON as it is
   */
  async parseGiven(data: unknown, change: (data: Readonly<T>) => T): Promise<T> {
    // The error quotes the app's code. A stack has lost its line, and to note it costs each update
    // a tenth of a page.
    const given = () => `what update(${String(change).replace(/\s+/g, " ").slice(0, 80)}) gave`;
    if (data instanceof Promise) {
      // The promise's own error says less than this one.
      data.catch(() => {});
      const hint = "await what update needs before it is called";
      throw new SessionDataInvalid(`The session's data, ${given()}, is a promise: ${hint}`);
    }
    const result = await this.#schema["~standard"].validate(data);
    if (result.issues) throw misfit(given(), result.issues);
    const problem = problemForJson(result.value);
    if (problem === null) return result.value;
    throw new SessionDataInvalid(
      `The session's data, ${given()}, cannot be kept as JSON: ${problem}`,
    );
  }
}

function misfit(what: string, issues: readonly StandardSchemaV1.Issue[]): SessionDataInvalid {
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

/** Freezes plain data, so that a change of it in place is an error and not lost. */
export function freeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  if (!Array.isArray(value) && !isPlain(value)) return value;
  Object.freeze(value);
  for (const member of Object.values(value)) freeze(member);
  return value;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function at(path: string, what: string): string {
  return path === "" ? `it is ${what}` : `"${path}" is ${what}`;
}
