/** What tests of `kv.ts` share: a service over an empty store, requests, an error's shape. */
import { assertEquals, assertMatch } from "@std/assert";
import { z } from "zod";
import { kv, type KvOptions } from "../../kv.ts";
import { memoryStore } from "../../stores/memory.ts";
import { type Store, StoreUnavailable } from "../../stores/store.ts";

export const NOW = 1_700_000_000_000;
export const JSON_TYPE = { "Content-Type": "application/json" };
/** Headers of every answer. */
export const GUARDS = {
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
};

type App = ReturnType<typeof kv>;
interface TestKv {
  readonly app: App;
  readonly store: Store;
}

/** Registers a test of the service over an empty store, whose clock stands still. */
export function test(
  promise: string,
  check: (test: TestKv) => Promise<void>,
  options?: KvOptions,
): void {
  Deno.test(`kv() ${promise}`, async () => {
    const store = memoryStore({ now: () => NOW });
    try {
      await check({ app: kv(store, options), store });
    } finally {
      await store.close();
    }
  });
}

export function put(body: BodyInit, headers: Record<string, string> = {}): RequestInit {
  return { method: "PUT", body, headers: { ...JSON_TYPE, ...headers } };
}

export function post(body: BodyInit, headers: Record<string, string> = JSON_TYPE): RequestInit {
  return { method: "POST", body, headers };
}

/** Sends an array of operations and returns the answers. */
export async function operate(app: App, operations: unknown[]): Promise<Record<string, unknown>[]> {
  const response = await app.request("/", post(JSON.stringify(operations)));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  return await response.json();
}

export function etagOf(response: Response): string {
  const etag = response.headers.get("ETag") ?? "";
  assertMatch(etag, /^"[\x21\x23-\x7e]+"$/);
  return etag;
}

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

/** Checks that an answer is problem+json of its own status, and returns it. */
export async function readProblem(response: Response): Promise<Problem> {
  assertEquals(response.headers.get("Content-Type"), "application/problem+json");
  const problem = Problem.parse(await response.json());
  assertEquals(problem.status, response.status);
  return problem;
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
