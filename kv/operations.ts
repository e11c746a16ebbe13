/**
 * Arrays of operations, which many calls travel in as one request.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { isRawNumber, json } from "../stores/json_text.ts";
import { RevisionConflict, type Store } from "../stores/store.ts";
import {
  failureText,
  foundText,
  MAX_OPERATIONS,
  type Operation as WireOperation,
  writtenText,
} from "../stores/wire.ts";
import { describe, report } from "./errors.ts";
import { check } from "./requests.ts";

/** About the most characters of an answer that is sent in one piece. */
const WHOLE_LENGTH = 16 * 1024 * 1024;

/** One of an array. */
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

/**
 * Does the operations side by side. Writes to one key take effect in their order; a `get` may be done
 * before the writes that stand before it.
 *
 * @returns The text of an array of their answers, as a stream where one text might not hold it
 */
export async function performAll(
  store: Store,
  operations: unknown[],
): Promise<string | ReadableStream<Uint8Array>> {
  if (operations.length > MAX_OPERATIONS) {
    throw new HTTPException(413, {
      message: `Cannot do ${operations.length} operations: expected ${MAX_OPERATIONS} at most`,
    });
  }
  const answers = await Promise.all(operations.map((operation) => performOne(store, operation)));
  const length = answers.reduce((sum, { length }) => sum + length, 0);
  if (length <= WHOLE_LENGTH) return `[${answers.join(",")}]`;
  function* text() {
    let before = "[";
    // Shifted, so that what was sent can be collected.
    for (let text = answers.shift(); text !== undefined; text = answers.shift()) {
      yield before + text;
      before = ",";
    }
    yield "]";
  }
  return ReadableStream.from(text()).pipeThrough(new TextEncoderStream());
}

async function performOne(store: Store, operation: unknown): Promise<string> {
  try {
    const step = check(Operation, withPlainTtl(operation), "the operation");
    if (step.op === "get") return foundText(200, await store.get(step.key));
    if (step.op === "delete") return foundText(200, await store.delete(step.key, step));
    return writtenText(await store.set(step.key, json(step.value), step));
  } catch (error) {
    if (error instanceof RevisionConflict) return foundText(412, error.current);
    const { status, ...failure } = describe(error);
    report(status, error);
    return failureText(status, failure);
  }
}

/** A ttl that was kept as it was written, as Python writes a number of seconds: `60.0`. */
function withPlainTtl(operation: unknown): unknown {
  const { ttl } = Object(operation);
  return isRawNumber(ttl) ? { ...Object(operation), ttl: Number(JSON.stringify(ttl)) } : operation;
}
