/**
 * Arrays of operations: many calls of a client in one request.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import type { JsonReader } from "../stores/json/reader.ts";
import type { JsonText } from "../stores/json/text.ts";
import { InvalidArgument, RevisionConflict, type Store, ValueTooLarge } from "../stores/store.ts";
import {
  failureText,
  foundText,
  MAX_OPERATIONS,
  type Operation as WireOperation,
  writtenText,
} from "../stores/wire.ts";
import { badRequest, describe, report, tooLarge } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { UNCOUNTED_BYTES } from "./memory.ts";
import { pause } from "./pace.ts";
import { parseBy } from "./requests.ts";
import { JSON_HEADERS, textResponse } from "./responses.ts";
import { sourceOf, streamResponse } from "./pieces.ts";

/** How many entries are fetched at once at first, and at most. */
const FIRST_FETCHED = 16;
const MOST_FETCHED = 128;
/** About how many characters of results are sent at once; fewer are sent as one text. */
const CHUNK_LENGTH = 256 * 1024;
/** How many writes are under way at once. */
const WRITTEN_AT_ONCE = 256;
/** About the most characters of results of writes: previous and current values. */
const MAX_WRITE_RESULTS = 16 * 1024 * 1024;
const TOO_LARGE = failureText(503, {
  detail: "The results of this array are too large: send fewer operations at once",
  outcome: "unchanged",
});
/** No operation has more members than this. */
const MAX_FIELDS = 5;

/** One element of an array. */
export const Operation = z.discriminatedUnion("op", [
  z.strictObject({ op: z.literal("get"), key: z.string() }),
  z.strictObject({
    op: z.literal("put"),
    key: z.string(),
    value: z.unknown().refine((value) => value !== undefined, "expected a JSON value"),
    ttl: z.number().optional(),
    ifRevision: z.string().nullable().optional(),
  }),
  z.strictObject({
    op: z.literal("delete"),
    key: z.string(),
    ifRevision: z.string().nullable().optional(),
  }),
]) satisfies z.ZodType<WireOperation>;
type Operation = z.infer<typeof Operation>;

/**
 * Reads an array, all of it before anything is executed.
 *
 * @throws {HTTPException} 400 at the first element that is not an operation
 */
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
    // The value stays text; any notation of a number is one for a ttl.
    if (field === "value") fields.push([field, readValueOf(reader, name)]);
    else fields.push([field, reader.peek() === '"' ? reader.string() : JSON.parse(reader.value())]);
  });
  return parseBy(Operation, Object.fromEntries(fields), name);
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
 * Executes the operations. Writes to one key take effect in order; a `get` may see any state between
 * the beginning and the end of the array.
 *
 * @returns A JSON array of the results, in the same order
 */
export async function execute(exchange: Exchange, operations: Operation[]): Promise<Response> {
  if (operations.length > FIRST_FETCHED) await pause();
  const results = new Results(exchange.store, operations);
  await results.write(exchange);
  let text = "[";
  for (;;) {
    text += results.take();
    if (results.isDone) return textResponse(exchange, 200, `${text}]`);
    if (text.length >= CHUNK_LENGTH) break;
    await results.fetch();
  }
  async function* texts() {
    yield text;
    while (!results.isDone) {
      await results.fetch();
      yield results.take();
    }
    yield "]";
  }
  return await streamResponse(exchange, sourceOf(texts()), JSON_HEADERS);
}

/**
 * The results of operations. Those of writes are all there at first; entries are fetched a few at a
 * time, as the client reads.
 */
class Results {
  readonly #texts: (string | undefined)[];
  /** How many were taken. */
  #taken = 0;
  #atOnce = FIRST_FETCHED;

  constructor(readonly store: Store, readonly operations: Operation[]) {
    this.#texts = new Array(operations.length);
  }

  get isDone(): boolean {
    return this.#taken === this.operations.length;
  }

  /** Executes the writes, all of them unless their results are too large, and the first fetches. */
  async write(exchange: Exchange): Promise<void> {
    let length = 0;
    let fetched = 0;
    for (let from = 0; from < this.operations.length; from += WRITTEN_AT_ONCE) {
      const writes = this.operations.slice(from, from + WRITTEN_AT_ONCE);
      await Promise.all(writes.map(async (operation, i) => {
        if (operation.op === "get" && ++fetched > FIRST_FETCHED) return;
        const text = operation.op !== "get" && length > MAX_WRITE_RESULTS
          ? TOO_LARGE
          : await perform(this.store, operation);
        this.#texts[from + i] = text;
        if (operation.op !== "get") length += text.length;
      }));
    }
    if (length > UNCOUNTED_BYTES) exchange.hold(length);
  }

  /** Fetches the next entries. */
  async fetch(): Promise<void> {
    const indexes: number[] = [];
    for (let i = this.#taken; i < this.operations.length && indexes.length < this.#atOnce; i++) {
      if (this.operations[i]?.op === "get" && this.#texts[i] === undefined) indexes.push(i);
    }
    await Promise.all(indexes.map(async (i) => {
      this.#texts[i] = await perform(this.store, this.operations[i] as Operation);
    }));
  }

  /** Returns the next results, about {@linkcode CHUNK_LENGTH} characters, and forgets them. */
  take(): string {
    let text = "";
    const from = this.#taken;
    for (; !this.isDone && text.length < CHUNK_LENGTH; this.#taken++) {
      const next = this.#texts[this.#taken];
      if (next === undefined) break;
      text += this.#taken === 0 ? next : `,${next}`;
      this.#texts[this.#taken] = "";
    }
    // A slow client must not hold large entries that it will not read soon: fetch them again then.
    const isFull = text.length >= CHUNK_LENGTH;
    this.#atOnce = isFull ? this.#taken - from : Math.min(2 * this.#atOnce, MOST_FETCHED);
    for (let i = this.#taken; isFull && i < this.operations.length; i++) {
      if (this.operations[i]?.op === "get") this.#texts[i] = undefined;
    }
    return text;
  }
}

/** Executes one operation, and returns the text of its result. */
async function perform(store: Store, operation: Operation): Promise<string> {
  try {
    const { op, key } = operation;
    if (op === "get") return foundText(200, await store.get(key));
    if (op === "delete") return foundText(200, await store.delete(key, operation));
    return writtenText(await store.set(key, operation.value as JsonText, operation));
  } catch (error) {
    if (error instanceof RevisionConflict) return foundText(412, error.current);
    const { status, ...failure } = describe(error);
    report(error);
    return failureText(status, failure);
  }
}
