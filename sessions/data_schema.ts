/**
 * The app's schema for session data, and what it accepts.
 *
 * @module
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { SessionDataInvalid } from "./errors.ts";
import { problemForJson } from "./plain_data.ts";

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
