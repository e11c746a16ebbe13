/** Arrays of operations: many calls of a client in one request. */
import { HTTPException } from "hono/http-exception";
import { Buffer } from "node:buffer";
import { z } from "zod";
import type { JsonReader } from "../stores/json/reader.ts";
import {
  InvalidArgument,
  type JsonText,
  MAX_TTL,
  MAX_VALUE_BYTES,
  RevisionConflict,
  type Store,
  ValueTooLarge,
} from "../stores/store.ts";
import {
  failureText,
  foundText,
  LEFT_OUT,
  MAX_OPERATIONS,
  type Operation,
  writtenText,
} from "../stores/wire.ts";
import { type Answer, JSON_HEADERS, type KvContext } from "./answers.ts";
import { badRequest, describe, report, tooLarge } from "./errors.ts";
import { type Held, SMALL_BYTES } from "./held.ts";
import { pause, Turnstile } from "./pace.ts";
import { only, parseBy } from "./requests.ts";

/** How many entries are fetched at once at first, and at most. */
const FIRST_FETCHED = 16;
const MOST_FETCHED = 128;
/** About how many characters of results are sent at once; fewer are sent as one text. */
const CHUNK_LENGTH = 256 * 1024;
/** About the most bytes of the results of one array's writes: removed and current values. */
const MAX_WRITE_RESULTS = 16 * 1024 * 1024;
/** Bytes reserved for the result of a write before it is done, so that it cannot fail afterwards. */
const ROOM = { get: 0, put: 1024, delete: MAX_VALUE_BYTES + 1024 };
/** Limits the concurrent deletes of all arrays: each reserves room for a value. */
const deletes = new Turnstile(32);
const TOO_LARGE = failureText(LEFT_OUT, {
  detail: "The results of this array are too large: send fewer operations at once",
  outcome: "unchanged",
});
/** The most members of an operation. */
const MAX_FIELDS = 5;

const key = z.string("expected a text").meta({ minLength: 1 });
const ifRevision = z.string("expected a text or null").nullable().optional();
export const OperationSchema = z.discriminatedUnion("op", [
  only({ op: z.literal("get"), key }, "member"),
  only({
    op: z.literal("put"),
    key,
    value: z.unknown().refine((value) => value !== undefined, "expected a JSON value"),
    ttl: z.number("expected a whole number of seconds")
      .meta({ type: "integer", minimum: 1, maximum: MAX_TTL }).optional(),
    ifRevision,
  }, "member"),
  only({ op: z.literal("delete"), key, ifRevision }, "member"),
], "expected get, put or delete") satisfies z.ZodType<Operation>;

/** Reads the whole array, before anything is executed. */
export function readOperations(reader: JsonReader): Operation[] {
  const operations: Operation[] = [];
  reader.array(() => {
    if (operations.length === MAX_OPERATIONS) {
      throw tooLarge(`Cannot execute more than ${MAX_OPERATIONS} operations at once`);
    }
    operations.push(readOperation(reader, `operation ${operations.length + 1}`));
  });
  return operations;
}

function readOperation(reader: JsonReader, name: string): Operation {
  if (reader.peek() !== "{") throw badRequest(`Cannot read ${name}: expected an object`);
  const fields: [string, unknown][] = [];
  reader.object((field) => {
    if (fields.length === MAX_FIELDS) throw badRequest(`Cannot read ${name}: too many members`);
    // Keep the value as text.
    fields.push([field, field === "value" ? readValueOf(reader, name) : readScalar(reader)]);
  });
  return parseBy(OperationSchema, Object.fromEntries(fields), name);
}

/** Returns a string, a number or another value; an array for an object too, since both are wrong. */
function readScalar(reader: JsonReader): unknown {
  if (reader.peek() === '"') return reader.string();
  const text = reader.value();
  // To parse a long one would keep other requests waiting. A ttl may be any number, as 6e1.
  return /^[[{]/.test(text) ? [] : JSON.parse(text);
}

/** @throws {HTTPException} 400 or 413 with the name of the operation */
function readValueOf(reader: JsonReader, name: string): JsonText {
  try {
    return reader.value();
  } catch (cause) {
    if (!(cause instanceof InvalidArgument)) throw cause;
    const status = cause instanceof ValueTooLarge ? 413 : 400;
    throw new HTTPException(status, { message: `Cannot read ${name}: ${cause.message}`, cause });
  }
}

/**
 * Answers with the result of each operation, in the same order. Writes to one key take effect in order;
 * a `get` may see any state between the beginning and the end of the array.
 */
export async function execute(c: KvContext, operations: Operation[]): Promise<Answer> {
  if (operations.length > FIRST_FETCHED) await pause();
  const results = new Results(c.get("access").store, c.get("held"), operations);
  await results.write();
  const first = await results.next();
  const body = results.isDone ? first : rest(first, results);
  return { status: 200, headers: JSON_HEADERS, body };
}

async function* rest(first: string, results: Results): AsyncGenerator<string> {
  yield first;
  while (!results.isDone) yield await results.next();
}

/**
 * The results of operations. The writes are executed first; entries are fetched a few at a time, as
 * the client reads.
 */
class Results {
  readonly #texts: (string | undefined)[];
  /** The bytes that are counted for each text, and their sum with two brackets. */
  readonly #counts: number[];
  #count = 2;
  /** The bytes of the results of writes. */
  #written = 0;
  #taken = 0;
  #atOnce = FIRST_FETCHED;

  constructor(readonly store: Store, readonly held: Held, readonly operations: Operation[]) {
    this.#texts = new Array(operations.length);
    this.#counts = new Array(operations.length).fill(0);
  }

  get isDone(): boolean {
    return this.#taken === this.operations.length;
  }

  /** Executes the writes and the first fetches. They are called in order. */
  async write(): Promise<void> {
    const body = this.held.kept;
    const calls: Promise<void>[] = [];
    let fetched = 0;
    for (const [i, operation] of this.operations.entries()) {
      if (operation.op === "get" && ++fetched > FIRST_FETCHED) continue;
      if (operation.op === "delete") await deletes.enter();
      calls.push(this.#perform(i, operation));
    }
    await Promise.all(calls);
    this.held.drop(body);
  }

  /** Returns the next part of the JSON array, about {@linkcode CHUNK_LENGTH} characters. */
  async next(): Promise<string> {
    let text = this.#taken === 0 ? `[${this.#take()}` : "";
    while (!this.isDone && text.length < CHUNK_LENGTH) {
      await this.#fetch();
      text += this.#take();
    }
    return this.isDone ? `${text}]` : text;
  }

  async #fetch(): Promise<void> {
    await pause();
    const calls: Promise<void>[] = [];
    for (let i = this.#taken; i < this.operations.length && calls.length < this.#atOnce; i++) {
      const operation = this.operations[i];
      if (operation?.op === "get" && this.#texts[i] === undefined) {
        calls.push(this.#perform(i, operation));
      }
    }
    await Promise.all(calls);
  }

  /** Executes one operation, after reserving room for its result. */
  async #perform(i: number, operation: Operation): Promise<void> {
    try {
      this.#hold(i, ROOM[operation.op]);
      const text = await this.#call(operation);
      // One for a comma. A UTF-16 unit is at most three bytes of UTF-8.
      const bytes = 1 + (text.length > 1000 ? Buffer.byteLength(text) : 3 * text.length);
      this.#hold(i, bytes, text);
      if (operation.op !== "get") this.#written += bytes;
      if (text.length > SMALL_BYTES) await pause();
    } catch (error) {
      const { status, ...failure } = describe(error);
      report(error);
      this.#hold(i, 0, failureText(status, failure));
    } finally {
      if (operation.op === "delete") deletes.leave();
    }
  }

  async #call(operation: Operation): Promise<string> {
    const { op, key } = operation;
    if (op === "get") return foundText(200, await this.store.get(key));
    if (this.#written > MAX_WRITE_RESULTS) return TOO_LARGE;
    try {
      if (op === "delete") return foundText(200, await this.store.delete(key, operation));
      return writtenText(await this.store.set(key, operation.value as JsonText, operation));
    } catch (error) {
      if (!(error instanceof RevisionConflict)) throw error;
      const text = foundText(412, error.current);
      return this.#written + text.length > MAX_WRITE_RESULTS ? TOO_LARGE : text;
    }
  }

  /** Removes and returns the next results, about {@linkcode CHUNK_LENGTH} characters. */
  #take(): string {
    let text = "";
    const from = this.#taken;
    for (; !this.isDone && text.length < CHUNK_LENGTH; this.#taken++) {
      const next = this.#texts[this.#taken];
      if (next === undefined) break;
      text += this.#taken === 0 ? next : `,${next}`;
      this.#hold(this.#taken, 0);
    }
    // Do not hold large entries for a slow client: fetch them again when it reads on.
    const isFull = text.length >= CHUNK_LENGTH;
    this.#atOnce = isFull ? this.#taken - from : Math.min(2 * this.#atOnce, MOST_FETCHED);
    for (let i = this.#taken; isFull && i < this.operations.length; i++) {
      if (this.operations[i]?.op === "get") this.#hold(i, 0);
    }
    return text;
  }

  /**
   * Sets a result, and the bytes that are counted for it. Up to {@linkcode SMALL_BYTES} of all results
   * count as zero.
   *
   * @throws {TooMuchHeld}
   */
  #hold(i: number, bytes: number, text?: string): void {
    const before = this.#count;
    const after = before - (this.#counts[i] ?? 0) + bytes;
    const more = (after > SMALL_BYTES ? after : 0) - (before > SMALL_BYTES ? before : 0);
    if (more > 0) this.held.keep(more);
    else this.held.drop(-more);
    this.#texts[i] = text;
    this.#counts[i] = bytes;
    this.#count = after;
  }
}
