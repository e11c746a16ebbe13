/** Errors of the store, as clients see them. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { kv } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Store, StoreFull, StoreUnavailable } from "../stores/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { operate, post, put, readProblem } from "./helpers/kv_app.ts";
import { scoped } from "./helpers/scoped.ts";

/** A store whose every call fails. */
function failingStore(error: Error): Store {
  const fail = () => Promise.reject(error);
  const calls = { get: fail, set: fail, setAll: fail, delete: fail, list: fail, watch: fail };
  return { ...calls, check: fail, close: fail };
}

const CALLS: [string, RequestInit][] = [
  ["/", {}],
  ["/a", {}],
  ["/a", put("1")],
  ["/a", put("1", { "If-Match": "*" })],
  ["/a", { method: "DELETE" }],
  ["/", post('{"a": 1}')],
];
const OPERATIONS = [
  { op: "get", key: "a" },
  { op: "put", key: "a", value: 1 },
  { op: "delete", key: "a" },
];

Deno.test("kv() answers 503 with the outcome while its store is unavailable", async () => {
  for (const outcome of ["unchanged", "unknown"] as const) {
    const app = kv(failingStore(new StoreUnavailable("redis://secret cannot", { outcome })));
    const log = await logged(async () => {
      for (const [path, init] of CALLS) {
        const response = await app.request(path, init);
        assertEquals(response.status, 503);
        assertEquals(response.headers.get("Retry-After"), "1");
        assertEquals(await readProblem(response), {
          title: "Service Unavailable",
          status: 503,
          detail: "The store is unavailable",
          outcome,
        });
      }
      const answer = { status: 503, detail: "The store is unavailable", outcome };
      assertEquals(await operate(app, OPERATIONS), [answer, answer, answer]);
    });
    assertEquals(new Set(log.split("\n")), new Set(["kv: redis://secret cannot"]));
  }
});

Deno.test("kv() answers 507 while its store is full", async () => {
  const app = kv(failingStore(new StoreFull("/var/secret is full")));
  const log = await logged(async () => {
    for (const [path, init] of CALLS) {
      const response = await app.request(path, init);
      assertEquals(response.status, 507);
      assertEquals(await readProblem(response), {
        title: "Insufficient Storage",
        status: 507,
        detail: "The store is full",
      });
    }
    const answer = { status: 507, detail: "The store is full" };
    assertEquals(await operate(app, OPERATIONS), [answer, answer, answer]);
  });
  assertEquals(new Set(log.split("\n")), new Set(["kv: /var/secret is full"]));
});

Deno.test("kv() answers 500 to an internal error, logs the stack and hides it from the client", async () => {
  const app = kv(failingStore(new Error("a secret")));
  const problem = {
    title: "Internal Server Error",
    status: 500,
    detail: "Internal error",
  };
  for (const [path, init] of CALLS) {
    const log = await logged(async () => {
      const response = await app.request(path, init);
      assertEquals(response.status, 500);
      assertEquals(await readProblem(response), problem);
    });
    assertMatch(log, /^kv: Error: a secret\n +at /);
  }
  const { title: _, ...answer } = problem;
  const log = await logged(async () => {
    assertEquals(await operate(app, OPERATIONS), [answer, answer, answer]);
  });
  assertMatch(log, /^kv: Error: a secret\n +at /);
});

Deno.test("kv() logs no control character that a client has sent", async () => {
  const text = "a\n\x1b[2Jkv: forged \u009b\u2028";
  for (const error of [new Error(text), new StoreUnavailable(text, { outcome: "unchanged" })]) {
    const log = await logged(async () => void await kv(failingStore(error)).request("/a"));
    assertMatch(log, /a\\u000a\\u001b\[2Jkv: forged \\u009b\\u2028/);
    assertNotMatch(log, /[^\P{C}\n]|\u2028/u);
  }
});

Deno.test("kv() quotes a part of a long text that a client has sent, from both ends", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const long = "x".repeat(50_000);
  const form = { "Content-Type": "application/x-www-form-urlencoded" };
  const requests: [string, RequestInit][] = [
    ["/", post(`${long}=1&${long}=2`, form)],
    ["/", post(`[{"op":"get","key":"a","${long}":1}]`)],
    [`/%${long}`, {}],
    [`/?${long}`, {}],
    [`/?${long}&${long}`, {}],
    [`/?prefix=%${long}`, {}],
    ["/a", put("1", { "Content-Type": `text/${long}` })],
    ["/a", put("1", { "Content-Type": `application/json; charset=${long}` })],
  ];
  for (const [path, init] of requests) {
    const response = await app.request(path, init);
    assert(response.status >= 400 && response.status < 500);
    const { detail } = await readProblem(response);
    assert(detail.length <= 1001, `${detail.length}`);
    assertMatch(detail, /^Cannot .*x…x/);
  }
});
