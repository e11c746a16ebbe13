/** Conditional requests: each rule by an example, and all of them against a model. */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { kv } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import { sqliteStore } from "../stores/sqlite/store.ts";
import { json } from "../stores/json/text.ts";
import { RevisionConflict, type Store } from "../stores/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { etagOf, GUARDS, NOW, post, put, readProblem, test } from "./helpers/kv_app.ts";
import { replaced } from "./helpers/replaced.ts";

test("rejects a POST with a condition, and writes nothing", async ({ app, store }) => {
  const types = { '{"a":1}': "application/json", '{"a": 1}\n': "application/x-ndjson" };
  for (const [body, type] of Object.entries(types)) {
    for (const name of ["If-Match", "If-None-Match"]) {
      const response = await app.request("/", post(body, { "Content-Type": type, [name]: "*" }));
      assertEquals(response.status, 400);
      assertMatch((await readProblem(response)).detail, /^Cannot set on a condition: PUT/);
    }
  }
  assertEquals(await store.get("a"), null);
});

test("answers 304 if the client has the current entry", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1), { ttl: 60 });
  for (const tags of [`"${revision}"`, `W/"${revision}"`, `"x", "${revision}"`, "*"]) {
    for (const method of ["GET", "HEAD"]) {
      const init = { method, headers: { "If-None-Match": tags } };
      const response = await app.request("/a", init);
      assertEquals(response.status, 304, tags);
      assertEquals(Object.fromEntries(response.headers), {
        ...GUARDS,
        "cache-control": "no-cache, max-age=0, no-transform",
        etag: `"${revision}"`,
        expires: new Date(NOW + 60_000).toUTCString(),
        vary: "Accept",
      });
      assertEquals(await response.text(), "");
    }
  }
  const headers = { "If-None-Match": "*", "Accept": "text/plain" };
  const plain = await app.request("/a", { headers });
  assertEquals([plain.status, plain.headers.get("ETag")], [304, `W/"${revision}-text"`]);
  const other = await app.request("/a", { headers: { "If-None-Match": '"x"' } });
  assertEquals(other.status, 200);
  assertEquals(await other.text(), '{"a":1}');
  const missing = await app.request("/b", { headers: { "If-None-Match": "*" } });
  assertEquals(missing.status, 200);
  assertEquals(await missing.text(), '{"b":null}');
});

test("writes only over an entry that matches If-Match", async ({ app, store }) => {
  for (const list of ["TAG", '"x","TAG', '"x" , TAG', '"a,b", TAG', 'W/"x", TAG', "*"]) {
    for (const init of [put("2"), { method: "DELETE" }]) {
      const { revision } = await store.set("a", json(1));
      const headers = { ...init.headers, "If-Match": list.replace(/"?TAG/, `"${revision}"`) };
      const response = await app.request("/a", { ...init, headers });
      assertEquals(response.status, 200, list);
      assertNotEquals((await store.get("a"))?.value, "1", list);
    }
  }
});

test("answers 412 with the current entry and its ETag", async ({ app, store }) => {
  const { revision } = await store.set("a", json([1]), { ttl: 60 });
  const conditions: [string, string][] = [
    ["If-Match", '"stale"'],
    ["If-Match", '"stale", "staler"'],
    ["If-Match", `W/"${revision}"`],
    ["If-None-Match", "*"],
    ["If-None-Match", `"${revision}"`],
    ["If-None-Match", `"x", W/"${revision}"`],
    ["If-Match", `W/"${revision}-text"`],
    ["If-None-Match", `W/"${revision}-text"`],
  ];
  for (const [name, value] of conditions) {
    for (const init of [put("2"), { method: "DELETE" }]) {
      const headers = { ...init.headers, [name]: value };
      const response = await app.request("/a", { ...init, headers });
      assertEquals(response.status, 412, `${name}: ${value}`);
      assertEquals(response.headers.get("ETag"), `"${revision}"`);
      assertEquals(response.headers.get("Expires"), new Date(NOW + 60_000).toUTCString());
      const { title, current } = await readProblem(response);
      assertEquals(title, "Precondition Failed");
      assertEquals(current, { a: [1] });
      assertEquals((await store.get("a"))?.revision, revision);
    }
  }
});

test("answers 412 to If-Match if there is no entry", async ({ app, store }) => {
  for (const tags of ["*", '"stale"']) {
    for (const init of [put("2"), { method: "DELETE" }, {}]) {
      const headers = { ...init.headers, "If-Match": tags };
      const response = await app.request("/a", { ...init, headers });
      assertEquals(response.status, 412);
      assertEquals(response.headers.get("ETag"), null);
      assertEquals((await readProblem(response)).current, { a: null });
      assertEquals(await store.get("a"), null);
    }
  }
});

test("creates an entry with If-None-Match: *, and only creates", async ({ app }) => {
  const only = { "If-None-Match": "*" };
  assertEquals((await app.request("/a", put("1", only))).status, 201);
  assertEquals((await app.request("/a", put("2", only))).status, 412);
  assertEquals(await (await app.request("/a")).text(), '{"a":1}');
});

test("accepts one of 20 simultaneous conditional writes", async ({ app }) => {
  const created = await app.request("/a", put("0"));
  const headers = { "If-Match": etagOf(created) };
  const writers = Array.from({ length: 20 }, (_, i) => app.request("/a", put(`${i}`, headers)));
  const statuses = (await Promise.all(writers)).map(({ status }) => status);
  assertEquals(statuses.sort(), [200, ...Array(19).fill(412)]);
});

test("checks a condition again after a write in between", async ({ store }) => {
  let writes = 0;
  const between = async (key: string) => {
    if (++writes < 4) await store.set(key, json(`between ${writes}`));
  };
  const busy: Store = {
    ...store,
    set: async (key, value, options) => {
      await between(key);
      return await store.set(key, value, options);
    },
    delete: async (key, options) => {
      await between(key);
      return await store.delete(key, options);
    },
  };
  for (const init of [put("2"), { method: "DELETE" }]) {
    writes = 0;
    const { revision } = await store.set("a", json(1));
    const once = { ...init.headers, "If-Match": `"${revision}"` };
    const conflict = await kv(busy).request("/a", { ...init, headers: once });
    assertEquals(conflict.status, 412);
    assertEquals((await readProblem(conflict)).current, { a: "between 1" });
    const always = { ...init.headers, "If-Match": "*" };
    const done = await kv(busy).request("/a", { ...init, headers: always });
    assertEquals(done.status, 200);
    assertEquals(writes, 4);
  }
});

test("ignores empty elements in a list of tags, RFC 9110 section 5.6.1", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  for (const list of [`,"${revision}"`, `"x",,"${revision}"`, `"${revision}", `, `, "x", ,`]) {
    const response = await app.request("/a", { headers: { "If-Match": list } });
    assertEquals(response.status, list.includes(revision) ? 200 : 412, list);
  }
});

test("rejects a malformed condition", async ({ app, store }) => {
  const { revision } = await store.set("a", json(1));
  const bad = [revision, "abc", '"abc', 'abc"', '"a" "b"', 'w/"a"', '*, "a"', '"a b"', "**"];
  for (const tags of bad) {
    for (const name of ["If-Match", "If-None-Match"]) {
      for (const init of [put("2"), { method: "DELETE" }, {}]) {
        const headers = { ...init.headers, [name]: tags };
        const response = await app.request("/a", { ...init, headers });
        assertEquals(response.status, 400, tags);
        assertEquals(
          (await readProblem(response)).detail,
          `Cannot read ${name}: expected * or a list of tags in double quotes`,
        );
      }
    }
  }
  assertEquals((await store.get("a"))?.revision, revision);
});

// ---- Against a model -----------------------------------------------------------------------

/** What the model knows of an entry. */
interface Known {
  readonly value: number;
  readonly etag: string;
}

/** A tag that a request names: of the entry as it is, as it was once, or of none. */
const tag = fc.record({
  which: fc.constantFrom("current", "earlier", "other key's", "none"),
  weak: fc.boolean(),
});
type Tag = typeof tag extends fc.Arbitrary<infer T> ? T : never;
const condition = fc.option(
  fc.oneof(fc.constant("*" as const), fc.array(tag, { minLength: 1, maxLength: 3 })),
  { nil: undefined },
);
type Condition = Tag[] | "*" | undefined;
const step = fc.record({
  method: fc.constantFrom("GET", "HEAD", "PUT", "PUT", "DELETE"),
  key: fc.constantFrom("a", "b/c"),
  ifMatch: condition,
  ifNoneMatch: condition,
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A Map that follows RFC 9110, section 13.2.2, to the letter. */
class Model {
  readonly entries = new Map<string, Known>();
  readonly earlier = new Map<string, string>();

  /** The header's text of one tag. */
  text(key: string, { which, weak }: Tag): string {
    const other = key === "a" ? "b/c" : "a";
    const opaque = {
      "current": this.entries.get(key)?.etag,
      "earlier": this.earlier.get(key),
      "other key's": this.entries.get(other)?.etag,
      "none": undefined,
    }[which] ?? '"none"';
    return weak ? `W/${opaque}` : opaque;
  }

  header(key: string, condition: Exclude<Condition, undefined>): string {
    return condition === "*" ? "*" : condition.map((tag) => this.text(key, tag)).join(", ");
  }

  /** What the conditions make of a request: null where it is to be done. */
  precondition({ method, key, ifMatch, ifNoneMatch }: Step): 304 | 412 | null {
    const etag = this.entries.get(key)?.etag;
    if (ifMatch === "*" && etag === undefined) return 412;
    if (Array.isArray(ifMatch)) {
      const strong = ifMatch.some((tag) => !tag.weak && this.text(key, tag) === etag);
      if (!strong) return 412;
    }
    const read = method === "GET" || method === "HEAD";
    if (ifNoneMatch === "*" && etag !== undefined) return read ? 304 : 412;
    if (Array.isArray(ifNoneMatch)) {
      const weak = ifNoneMatch.some((tag) => this.text(key, { ...tag, weak: false }) === etag);
      if (weak) return read ? 304 : 412;
    }
    return null;
  }

  write(key: string, entry: Known | null): void {
    const before = this.entries.get(key);
    if (before) this.earlier.set(key, before.etag);
    if (entry) this.entries.set(key, entry);
    else this.entries.delete(key);
  }
}

async function runAgainstModel(store: Store, steps: Step[]): Promise<void> {
  const app = kv(store);
  const model = new Model();
  for (const [i, step] of steps.entries()) {
    const { method, key, ifMatch, ifNoneMatch } = step;
    const before = model.entries.get(key);
    const expected = model.precondition(step);
    const headers = new Headers();
    if (ifMatch) headers.set("If-Match", model.header(key, ifMatch));
    if (ifNoneMatch) headers.set("If-None-Match", model.header(key, ifNoneMatch));
    if (method === "PUT") headers.set("Content-Type", "application/json");
    const body = method === "PUT" ? String(i) : null;
    const response = await app.request(`/${encodeURIComponent(key)}`, { method, headers, body });
    const etag = response.headers.get("ETag");
    if (expected !== null) {
      assertEquals(response.status, expected);
      assertEquals(etag, before?.etag ?? null);
      if (method === "HEAD" || expected === 304) assertEquals(await response.text(), "");
      else {
        const { current } = await readProblem(response);
        assertEquals(current, { [key]: before?.value ?? null });
      }
    } else if (method === "PUT") {
      assertEquals(response.status, before ? 200 : 201);
      assert(etag);
      assertNotEquals(etag, before?.etag);
      assertEquals(await response.json(), { [key]: i });
      model.write(key, { value: i, etag });
    } else {
      assertEquals(response.status, 200);
      assertEquals(etag, method === "DELETE" ? null : before?.etag ?? null);
      const text = JSON.stringify({ [key]: before?.value ?? null });
      assertEquals(await response.text(), method === "HEAD" ? "" : text);
      if (method === "DELETE") model.write(key, null);
    }
    const entry = await store.get(key);
    assertEquals(entry ? `"${entry.revision}"` : undefined, model.entries.get(key)?.etag);
  }
}

const stores = { memory: () => memoryStore(), SQLite: () => sqliteStore(":memory:") };
for (const [name, open] of Object.entries(stores)) {
  Deno.test(`kv() on ${name} follows RFC 9110 section 13 in any sequence of requests`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const store = open();
        try {
          await runAgainstModel(store, steps);
        } finally {
          await store.close();
        }
      }),
      { numRuns: name === "memory" ? 600 : 60 },
    );
  });
}

test("ends a write that others always overtake", async ({ store }) => {
  const { revision } = await store.set("a", json(1));
  const current = { key: "a", value: json(1), revision, expires: null };
  const busy = { ...store, delete: () => Promise.reject(new RevisionConflict("a", current)) };
  let time = 0;
  using _now = replaced(performance, { now: () => time += 100 });
  const log = await logged(async () => {
    const response = await kv(busy).request("/a", { method: "DELETE" });
    assertEquals(response.status, 503);
    assertEquals((await readProblem(response)).outcome, "unchanged");
  });
  assertEquals(log, "kv: The key has too many writers");
});
