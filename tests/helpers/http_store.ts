/** Stores over a service that a test answers for. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { kv } from "../../kv.ts";
import { type HttpOptions, httpStore } from "../../stores/http/store.ts";
import { json } from "../../stores/json/text.ts";
import { memoryStore } from "../../stores/memory.ts";
import { type Store, StoreUnavailable } from "../../stores/store.ts";

/** A deadline, in milliseconds, that is longer than any stall of the machine. */
export const PATIENT = 240_000;

/** A deadline that a test waits for; half of it is longer than most stalls of the machine. */
export const HANG_DEADLINE = 8000;

export const READS: [string, (store: Store) => Promise<unknown>][] = [
  ["get", (store) => store.get("a")],
  ["list", (store) => store.list("")],
];
export const WRITES: [string, (store: Store) => Promise<unknown>][] = [
  ["set", (store) => store.set("a", json(1))],
  ["setAll", (store) => store.setAll(new Map([["a", json(1)]]))],
  ["delete", (store) => store.delete("a")],
];
export const CALLS = [...READS, ...WRITES];

/** Checks that a call rejects with StoreUnavailable. */
export async function isUnavailable(
  call: Promise<unknown>,
  outcome: "unchanged" | "unknown",
  message: RegExp,
): Promise<void> {
  const error = await assertRejects(() => call, Error);
  assert(error instanceof StoreUnavailable, String(error));
  assertMatch(error.message, message);
  assertEquals(error.outcome, outcome, error.message);
}

/** A store whose requests a function answers, and their URLs and bodies. */
export function answeredBy(
  answer: (url: string, init: RequestInit) => Response | Promise<Response>,
  { deadline = PATIENT, ...options }: HttpOptions = {},
) {
  const urls: string[] = [];
  const bodies: string[] = [];
  const fetch: typeof globalThis.fetch = async (input, init = {}) => {
    const body = init.body ? await new Response(init.body).text() : null;
    urls.push(String(input));
    bodies.push(body ?? "");
    return await answer(String(input), { ...init, body });
  };
  return {
    store: httpStore("http://localhost:5100", { deadline, ...options, fetch }),
    urls,
    bodies,
  };
}

/** A store over a service in memory, whose requests wait until `open` was called. */
export function gated() {
  const below = memoryStore();
  const app = kv(below);
  const gate = Promise.withResolvers<void>();
  const answered = answeredBy(async (url, init) => {
    await gate.promise;
    return await app.request(url, init);
  });
  return { ...answered, below, open: gate.resolve };
}

/** Never answers; rejects when the request's signal aborts. */
export function hang(_url: string, { signal }: RequestInit): Promise<Response> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

export function problem(status: number, members: Record<string, unknown> = {}): Response {
  const body = JSON.stringify({ title: "Error", status, detail: "a detail", ...members });
  return new Response(body, {
    status,
    headers: { "Content-Type": "application/problem+json" },
  });
}
