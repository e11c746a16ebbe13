/**
 * Arrays of operations, which many calls travel in as one request.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { json, RevisionConflict, type Store } from "../stores/store.ts";
import { entryText } from "./entries.ts";
import { describe, report } from "./problem.ts";
import { check } from "./requests.ts";

/** The most operations in one array. */
export const MAX_OPERATIONS = 1000;

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
]);

/** Does the operations side by side; those on one key take effect in their order. */
export async function performAll(store: Store, operations: unknown[]): Promise<string> {
  if (operations.length > MAX_OPERATIONS) {
    throw new HTTPException(413, {
      message: `Cannot do ${operations.length} operations: expected ${MAX_OPERATIONS} at most`,
    });
  }
  const answers = await Promise.all(operations.map((operation) => performOne(store, operation)));
  return `[${answers.join(",")}]`;
}

async function performOne(store: Store, operation: unknown): Promise<string> {
  try {
    const step = check(Operation, operation, "the operation");
    if (step.op === "get") return entryText(await store.get(step.key), { status: 200 });
    if (step.op === "delete") {
      return entryText(await store.delete(step.key, step), { status: 200 });
    }
    const written = await store.set(step.key, json(step.value), step);
    return entryText(written, { status: written.created ? 201 : 200 });
  } catch (error) {
    if (error instanceof RevisionConflict) return entryText(error.current, { status: 412 });
    const { status, detail, outcome } = describe(error);
    report(status, error);
    return JSON.stringify({ status, detail, outcome });
  }
}
