/** Bodies that are rejected, and those that arrive slowly. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { BODY_TIMEOUT, MAX_MEMBERS } from "../kv/bodies.ts";
import { MAX_BODY_BYTES } from "../stores/wire.ts";
import { MAX_VALUE_BYTES } from "../stores/store.ts";
import { JSON_TYPE, post, put, readProblem, test } from "./helpers/kv_app.ts";
import { replaced } from "./helpers/replaced.ts";

// ---- What is rejected --------------------------------------------------------------------

test("rejects a body that is not JSON", async ({ app, store }) => {
  const latin1 = new Uint8Array([0x22, 0xe9, 0x22]);
  const surrogate = new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22]);
  const bodies = ["", " ", "{", "bar", "'bar'", "01", "NaN", "{}{}", '{"a":}', "[1,]", '"\n"'];
  for (const body of [...bodies, "\x00", latin1, surrogate]) {
    for (const [path, init] of [["/a", put(body)], ["/", post(body)]] as const) {
      const response = await app.request(path, init);
      assertEquals(response.status, 400);
      assertMatch((await readProblem(response)).detail, /^Cannot read (the JSON|operation 1): ./);
    }
  }
  for (const body of ["null", "true", '"text"', "1", "1.10", "12345678901234567890"]) {
    const response = await app.request("/", post(body));
    assertEquals(response.status, 400);
    assertMatch((await readProblem(response)).detail, /expected a JSON object or array$/);
  }
  assertEquals((await store.list("")).keys, []);
});

test("rejects a body that is neither JSON nor a form", async ({ app, store }) => {
  const types = [
    ...["text/plain", "application/jsonx", "text/json", "application/xml", ""],
    ...["application/json-seq", "application/json-patch", "application/json/x"],
    ...["application/x-ndjson-x", "application/x-www-form-urlencoded-x", "application/x+json-x"],
  ];
  for (const type of types) {
    for (const [path, init] of [["/a", put("1")], ["/", post("{}")]] as const) {
      const response = await app.request(path, { ...init, headers: { "Content-Type": type } });
      assertEquals(response.status, 415, type);
      assertMatch(
        (await readProblem(response)).detail,
        /: expected application\/json \(add the header "Content-Type: application\/json"\)$/,
      );
    }
  }
  for (const body of [new FormData(), new URLSearchParams("a=1"), new Uint8Array(1)]) {
    const response = await app.request("/a", { method: "PUT", body });
    assertEquals(response.status, 415);
    await readProblem(response);
  }
  assertEquals(await store.get("a"), null);
});

test("rejects a body that is compressed or only a part", async ({ app, store }) => {
  const types = ["application/json", "application/x-ndjson", "application/x-www-form-urlencoded"];
  for (const type of types) {
    const headers = { "Content-Type": type };
    const requests: [string, RequestInit][] = [["/", post('{"a":1}', headers)]];
    if (type === "application/json") requests.push(["/a", put("1")]);
    for (const [path, init] of requests) {
      const sent = (more: Record<string, string>) =>
        app.request(path, { ...init, headers: { ...init.headers, ...more } });
      const compressed = await sent({ "Content-Encoding": "gzip" });
      assertEquals(compressed.status, 415);
      assertEquals(compressed.headers.get("Accept-Encoding"), "identity");
      const { detail } = await readProblem(compressed);
      assertEquals(detail, 'Cannot read a body of encoding "gzip": expected identity');
      const part = await sent({ "Content-Range": "bytes 0-0/9" });
      assertEquals(part.status, 400);
      assertMatch((await readProblem(part)).detail, /expected no Content-Range$/);
    }
  }
  assertEquals((await store.list("")).keys, []);
  const encodings = { "Content-Encoding": "Identity", "Content-Type": "application/json ;a=b" };
  assertEquals((await app.request("/a", put("1", encodings))).status, 201);
});

test("rejects a value over 1 MiB, and accepts one of 1 MiB", async ({ app, store }) => {
  const largest = JSON.stringify("x".repeat(MAX_VALUE_BYTES - 2));
  const created = await app.request("/a", put(largest));
  assertEquals(created.status, 201);
  assertEquals(await created.text(), `{"a":${largest}}`);
  const larger = JSON.stringify("x".repeat(MAX_VALUE_BYTES - 1));
  for (const [path, init] of [["/b", put(larger)], ["/", post(`{"b":${larger}}`)]] as const) {
    const response = await app.request(path, init);
    assertEquals(response.status, 413);
    const { title, detail } = await readProblem(response);
    assertEquals(title, "Content Too Large");
    assertMatch(detail, /over 1048576 bytes/);
  }
  assertEquals((await store.list("")).keys, ["a"]);
});

test("rejects a body over 16 MiB, with or without Content-Length", async ({ app }) => {
  const chunk = new Uint8Array(1024 * 1024).fill(0x20);
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(chunk);
      sent += chunk.length;
    },
  });
  const told = post("{}", { ...JSON_TYPE, "Content-Length": String(MAX_BODY_BYTES + 1) });
  for (const init of [told, { ...post(endless), duplex: "half" }]) {
    const response = await app.request("/", init);
    assertEquals(response.status, 413);
    assertMatch((await readProblem(response)).detail, /^The body is over 16777216 bytes/);
  }
  assert(sent < 2 * MAX_BODY_BYTES);
});

test("rejects an object with too many keys, and sets none", async ({ app, store }) => {
  const keys = Array.from({ length: MAX_MEMBERS + 1 }, (_, i) => `k${i}`);
  const text = JSON.stringify(Object.fromEntries(keys.map((key) => [key, 1])));
  const form = new URLSearchParams(keys.map((key) => [key, "1"]));
  for (const init of [post(text), { method: "POST", body: form }]) {
    const response = await app.request("/", init);
    assertEquals(response.status, 413);
    assertMatch((await readProblem(response)).detail, /^Cannot set more than 10000 keys at once$/);
  }
  assertEquals((await store.list("")).keys, []);
  const most = text.replace(',"k1":1', "");
  assertEquals(await (await app.request("/", post(most))).text(), most);
});

test("says which header to add to JSON that is sent as a form", async ({ app, store }) => {
  const lines = '{"a":1}\n{"b":2}\n';
  const texts = ['{"foo":"bar"}', "[1]", '{"foo": "bar"}\n', ' \t\r\n{"foo":1}', "\ufeff[1]\r\n"];
  for (const text of [...texts, lines, lines.replaceAll("\n", "\r\n")]) {
    const headers = { "Content-Type": "application/x-www-form-urlencoded" };
    const response = await app.request("/", post(text, headers));
    assertEquals(response.status, 415);
    assertEquals(
      (await readProblem(response)).detail,
      'Cannot read JSON as a form: add the header "Content-Type: ' +
        `application/${text.startsWith('{"a"') ? "x-ndjson" : "json"}"`,
    );
  }
  assertEquals((await store.list("")).keys, []);
  const headers = { "Content-Type": "application/x-www-form-urlencoded" };
  for (const text of ["[a=1", "a]=1]", "{a=1", "a}=1}"]) {
    assertEquals((await app.request("/", post(text, headers))).status, 200, text);
  }
});

test("limits the fields and the bytes of a multipart form", async ({ app, store }) => {
  const form = (count: number, value: string) => {
    const form = new FormData();
    for (let i = 0; i < count; i++) form.set(`k${i}`, value);
    return { method: "POST", body: form };
  };
  assertEquals((await app.request("/", form(1000, "1"))).status, 200);
  assertEquals((await store.list("", { limit: 1000 })).keys.length, 1000);
  const many = await app.request("/", form(1001, "1"));
  assertEquals(many.status, 413);
  assertMatch((await readProblem(many)).detail, /^A multipart form has at most 1000 fields$/);
  const long = await app.request("/", form(5, "x".repeat(900_000)));
  assertEquals(long.status, 413);
  assertMatch((await readProblem(long)).detail, /^A multipart form is at most \d+ bytes$/);
});

test("rejects a field of a form that is longer than any value", async ({ app }) => {
  const body = `a=${"%41".repeat(MAX_VALUE_BYTES + 2000)}`;
  const headers = { "Content-Type": "application/x-www-form-urlencoded" };
  const response = await app.request("/", post(body, headers));
  assertEquals(response.status, 413);
  await readProblem(response);
});

test("rejects a body that is shorter than its Content-Length", async ({ app, store }) => {
  for (const type of ["application/json", "application/x-ndjson"]) {
    const headers = { "Content-Type": type, "Content-Length": "9" };
    const response = await app.request("/", post('{"a":1}', headers));
    assertEquals(response.status, 400);
    assertMatch((await readProblem(response)).detail, /The body ended early$/);
  }
  assertEquals(await store.get("b"), null);
});

// ---- Bodies in parts ------------------------------------------------------------------------

test("asks for a Content-Length where a cancelled upload looks like a complete one", async ({ app }) => {
  const init = () => put(new Blob(["1"]).stream(), JSON_TYPE);
  for (const served of [{ completed: Promise.resolve() }, { incoming: {}, outgoing: {} }]) {
    assertEquals((await app.request("/a", init(), served)).status, 411);
  }
  assertEquals((await app.request("/a", init())).status, 201);
});

test("reads a body the same, wherever it is cut into parts", async ({ app }) => {
  const sizes = fc.oneof(
    fc.integer({ min: 2, max: 20 }),
    ...[64, 128, 256].map((kib) => fc.integer({ min: -3, max: 3 }).map((n) => kib * 1024 + n)),
  );
  await fc.assert(
    fc.asyncProperty(
      sizes,
      fc.array(fc.nat({ max: 300 * 1024 }), { maxLength: 6 }),
      fc.boolean(),
      async (size, cuts, isTold) => {
        // Characters of several bytes are cut within.
        const value = `"${"é".repeat((size - 2) / 2)}${"x".repeat(size % 2)}"`;
        const bytes = new TextEncoder().encode(value);
        const ends = [...cuts.filter((cut) => cut < bytes.length), bytes.length].sort((a, b) =>
          a - b
        );
        const body = new ReadableStream<Uint8Array>({
          start(stream) {
            ends.forEach((end, i) => stream.enqueue(bytes.slice(ends[i - 1] ?? 0, end)));
            stream.close();
          },
        });
        const told = isTold ? { "Content-Length": String(bytes.length) } : {};
        const response = await app.request("/a", put(body, told as Record<string, string>));
        assert(response.ok);
        assertEquals(await response.text(), `{"a":${value}}`);
      },
    ),
    { numRuns: 100 },
  );
});

// ---- Slow clients ---------------------------------------------------------------------------

test("waits no longer than BODY_TIMEOUT for a body", async ({ app, store }) => {
  const { setTimeout } = globalThis;
  const quick = (run: () => void, after = 0) => setTimeout(run, after / 600);
  using _setTimeout = replaced(globalThis, { setTimeout: quick });
  for (
    const type of ["application/json", "application/x-ndjson", "multipart/form-data; boundary=x"]
  ) {
    const body = new ReadableStream<Uint8Array>({
      start: (stream) => stream.enqueue(new TextEncoder().encode('{"a":1}\n')),
    });
    const response = await app.request("/", post(body, { "Content-Type": type }));
    assertEquals(response.status, 408);
    assertMatch((await readProblem(response)).detail, /did not arrive within 60 seconds/);
  }
  assertEquals((await store.list("")).keys, ["a"], "the line that came whole");
});

test("waits no longer than BODY_TIMEOUT for a chunked body", async ({ app }) => {
  const { now } = performance;
  let passed = 0;
  using _now = replaced(performance, { now: () => now.call(performance) + passed });
  const body = new ReadableStream<Uint8Array>({
    async pull(stream) {
      // The second part never comes.
      if (passed > 0) return await new Promise(() => {});
      passed = BODY_TIMEOUT - 50;
      stream.enqueue(new TextEncoder().encode('{"a":'));
    },
  });
  const begun = now.call(performance);
  assertEquals((await app.request("/", post(body))).status, 408);
  assert(now.call(performance) - begun < BODY_TIMEOUT / 2);
});
