/** What tests of `kv.ts` share: an error's shape, what was logged meanwhile, a store that fails. */
import assert from "node:assert/strict";
import { z } from "zod";
import { type Store, StoreUnavailable } from "../stores/store.ts";

/** An error of the service, RFC 9457. `type` is absent, which means `about:blank`. */
const Problem = z.strictObject({
  title: z.string().min(1),
  status: z.int().min(400).max(599),
  detail: z.string().min(1),
  outcome: z.enum(["unchanged", "unknown"]).optional(),
  line: z.int().min(1).optional(),
  restored: z.int().min(0).optional(),
  current: z.record(z.string(), z.unknown()).optional(),
});
export type Problem = z.infer<typeof Problem>;

/** Checks that an answer is problem+json of its own status, and gives it. */
export async function readProblem(response: Response): Promise<Problem> {
  assert.equal(response.headers.get("Content-Type"), "application/problem+json");
  const problem = Problem.parse(await response.json());
  assert.equal(problem.status, response.status);
  return problem;
}

/** Runs `act` and gives what it printed to standard error, which is kept from the terminal. */
export async function logged(act: () => Promise<void>): Promise<string> {
  const lines: string[] = [];
  const { error } = console;
  console.error = (...values: unknown[]) => lines.push(values.join(" "));
  try {
    await act();
  } finally {
    console.error = error;
  }
  return lines.join("\n");
}

/** A store whose listing fails at its second page. */
export function failingListing(store: Store): Store {
  let pages = 0;
  return {
    ...store,
    list: (prefix, options) => {
      if (++pages === 2) throw new StoreUnavailable("gone", { outcome: "unchanged" });
      return store.list(prefix, options);
    },
  };
}
