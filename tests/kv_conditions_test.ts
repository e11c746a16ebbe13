import assert from "node:assert/strict";
import fc from "fast-check";
import { kv } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import { sqliteStore } from "../stores/sqlite.ts";
import type { Store } from "../stores/store.ts";
import { readProblem } from "./problem.ts";

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
      assert.equal(response.status, expected);
      assert.equal(etag, before?.etag ?? null);
      if (method === "HEAD" || expected === 304) assert.equal(await response.text(), "");
      else {
        const { current } = await readProblem(response);
        assert.deepEqual(current, { [key]: before?.value ?? null });
      }
    } else if (method === "PUT") {
      assert.equal(response.status, before ? 200 : 201);
      assert.ok(etag);
      assert.notEqual(etag, before?.etag);
      assert.deepEqual(await response.json(), { [key]: i });
      model.write(key, { value: i, etag });
    } else {
      assert.equal(response.status, 200);
      assert.equal(etag, method === "DELETE" ? null : before?.etag ?? null);
      const text = JSON.stringify({ [key]: before?.value ?? null });
      assert.equal(await response.text(), method === "HEAD" ? "" : text);
      if (method === "DELETE") model.write(key, null);
    }
    const entry = await store.get(key);
    assert.equal(entry ? `"${entry.revision}"` : undefined, model.entries.get(key)?.etag);
  }
}

const stores = { memory: () => memoryStore(), SQLite: () => sqliteStore(":memory:") };
for (const [name, open] of Object.entries(stores)) {
  Deno.test(`kv() on ${name} does what RFC 9110 section 13 asks for, in any sequence`, async () => {
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
