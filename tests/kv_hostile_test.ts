/**
 * What the service does with requests that no honest client sends. Nothing may make it fail, be
 * stored without a 2xx, or be answered with an error that is not problem+json.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { kv } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import type { Store } from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { readProblem } from "./helpers/kv_app.ts";

const name = fc.constantFrom(
  "prefix",
  "limit",
  "after",
  "ttl",
  "x",
  "",
  "__proto__",
  "%",
  "%ff",
  "health",
  "metrics",
  "openapi",
  "all",
);
const word = fc.oneof(
  fc.constantFrom("0", "1", "60", "-1", "1e9", "NaN", "", "*", "%", "%00", "%ff", "a", "b%2Fc"),
  fc.string({ unit: "binary", maxLength: 8 }),
);
const path = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom("/", "/a", "/b/c", "//", "/%2e%2e", "/%", "/a%zz") },
  fc.constantFrom(...AWKWARD_KEYS).map((key) => `/${encodeURIComponent(key)}`),
  fc.string({ unit: "binary", maxLength: 20 }).map((text) => `/${text}`),
  fc.webPath(),
);
const query = fc.array(fc.tuple(name, word), { maxLength: 3 }).map((pairs) =>
  pairs.length > 0 ? `?${pairs.map((pair) => pair.join("=")).join("&")}` : ""
);

const tags = fc.oneof(
  fc.constantFrom("*", "", ",", '"', '""', 'W/"a"', '"a", "b"', '"a', "a", '"\xff"', "**", "W/"),
  fc.string({ maxLength: 10 }),
);
const type = fc.constantFrom(
  "application/json",
  "application/json; charset=utf-16",
  "application/x-www-form-urlencoded",
  "multipart/form-data",
  "multipart/form-data; boundary=x",
  "text/plain",
  "application/json, text/html",
  "application/x-ndjson",
  "",
);
const header = fc.oneof(
  fc.tuple(fc.constant("Content-Type"), type),
  fc.tuple(fc.constantFrom("If-Match", "If-None-Match"), tags),
  fc.tuple(fc.constant("Sec-Fetch-Site"), fc.constantFrom("same-origin", "cross-site", "", "x")),
  fc.tuple(
    fc.constant("Accept"),
    fc.constantFrom("text/html", "application/x-ndjson", "text/event-stream", "x/y;q=z", ""),
  ),
  fc.tuple(fc.constant("Last-Event-ID"), fc.constantFrom("", "x", "0", "-1", "9".repeat(400))),
  fc.tuple(fc.constant("Origin"), fc.constantFrom("null", "", "http://localhost", "http://[", "x")),
  fc.tuple(fc.constant("Host"), fc.constantFrom("localhost", "evil.example", "", "[")),
  fc.tuple(fc.constant("Content-Length"), fc.constantFrom("0", "-1", "x", "99999999999", "1e9")),
  fc.tuple(fc.constant("Authorization"), fc.constantFrom("Bearer x", "Basic x", "")),
);

const key = fc.oneof(fc.constantFrom("a", "b/c", "", ".", "\ud800", ...AWKWARD_KEYS), fc.string());
const operation = fc.oneof(
  fc.record({
    op: fc.constantFrom("get", "put", "delete", "patch"),
    key,
    value: fc.jsonValue(),
    ttl: fc.oneof(fc.integer(), fc.double(), fc.constant("60")),
    ifRevision: fc.constantFrom(null, "", "x", 1),
  }, { requiredKeys: ["op", "key"] }),
  fc.record({ op: fc.constant("put"), key, value: fc.jsonValue() }),
  fc.record({ op: fc.constantFrom("get", "delete"), key }),
  fc.jsonValue(),
);
const body = fc.oneof(
  { weight: 2, arbitrary: fc.json() },
  fc.dictionary(key, fc.jsonValue()).map((object) => JSON.stringify(object)),
  { weight: 2, arbitrary: fc.array(operation, { maxLength: 5 }).map((it) => JSON.stringify(it)) },
  fc.uint8Array({ maxLength: 30 }),
  fc.string({ unit: "binary", maxLength: 30 }),
  fc.constantFrom(
    "1.10",
    '{"a":1e400}',
    '{"__proto__":1}',
    "[".repeat(3000),
    `${"[".repeat(3000)}1.0${"]".repeat(3000)}`,
    "a=1&b=2&a=3",
    '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
    "--x\r\n\r\n1\r\n--x--\r\n",
    "\ufeff{}",
    '{"a":1}\n{"b":2}\n',
    '{"a":1}\n{"b"',
    "\n\n\r\n",
    `{"a":"${"x".repeat(2 ** 21)}"}`,
  ),
);
const methods = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PUT",
  "DELETE",
  "PATCH",
  "PATCH",
  "OPTIONS",
  "put",
  "X",
];
const request = fc.record({
  method: fc.constantFrom(...methods),
  path,
  query,
  json: fc.boolean(),
  headers: fc.array(header, { maxLength: 3 }),
  body: fc.option(body),
});
type HostileRequest = typeof request extends fc.Arbitrary<infer T> ? T : never;

/** A store that counts the writes which it did. */
function countingStore() {
  const below = memoryStore();
  let writes = 0;
  const count = async <T>(write: Promise<T>) => {
    const result = await write;
    writes++;
    return result;
  };
  const store: Store = {
    ...below,
    set: (key, value, options) => count(below.set(key, value, options)),
    setAll: (values, options) => count(below.setAll(values, options)),
    delete: (key, options) => count(below.delete(key, options)),
  };
  return { store, writes: () => writes };
}

function toRequest({ method, path, query, json, headers, body }: HostileRequest): Request {
  const all = new Headers(json ? { "Content-Type": "application/json" } : {});
  for (const [name, value] of headers) {
    // What no header can carry is left to the test over sockets.
    if (/^[\x20-\x7e\x80-\xff]*$/.test(value)) all.set(name, value);
  }
  const bodyless = method === "GET" || method === "HEAD";
  return new Request(`http://localhost${path}${query}`, {
    method,
    headers: all,
    body: bodyless || body === null ? null : body,
  });
}

/** The number of writes that an answer acknowledges; a restore's lines are written as one. */
async function acknowledged(method: string, response: Response): Promise<number> {
  if (method === "POST" && !response.ok) {
    const { restored = 0 }: { restored?: number } = await response.clone().json();
    return Math.min(restored, 1);
  }
  if (!response.ok || method === "GET" || method === "HEAD") return 0;
  const answer: unknown = await response.clone().json();
  if (method === "DELETE" && Object(answer).deleted > 0) return Object(answer).deleted;
  if (!Array.isArray(answer)) return 1;
  const failed = (step: { status: number }) => step.status >= 400;
  assert(answer.every((step) => !failed(step) || [400, 412, 413].includes(step.status)));
  return answer.filter((step) => !failed(step)).length;
}

const EXPECTED = [200, 201, 304, 400, 403, 404, 405, 410, 412, 413, 415];

Deno.test("kv() answers any request, and stores only what it acknowledges", async () => {
  const { store, writes } = countingStore();
  const app = kv(store);
  const log = await logged(async () => {
    await fc.assert(
      fc.asyncProperty(request, async (hostile) => {
        const before = writes();
        const sent = toRequest(hostile);
        const response = await app.fetch(sent);
        assert(EXPECTED.includes(response.status), String(response.status));
        const done = await acknowledged(sent.method, response);
        const written = writes() - before;
        // The gets in an array are acknowledged too, and write nothing.
        assert(written <= done, `${written} writes, ${done} acknowledged`);
        if (response.status < 400) await response.body?.cancel();
        else if (sent.method === "HEAD") assertEquals(await response.text(), "");
        else await readProblem(response);
      }),
      { numRuns: 8000 },
    );
  });
  assertEquals(log, "");
  await store.close();
});
