/** kv/bulk_writes.ts: requests that write many entries. */
import { assertEquals, assertMatch } from "@std/assert";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import { MAX_KEY_BYTES, StoreUnavailable } from "../stores/store.ts";
import { AWKWARD_KEYS } from "./conformance/store.ts";
import { logged } from "./helpers/captured_errors.ts";
import { failingListing, post, readProblem, test } from "./helpers/kv_app.ts";

test("sets the keys of an object and returns it", async ({ app }) => {
  const response = await app.request("/", post('{"foo": "bar", "n": {"a": [1, null]}}'));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  assertEquals(await response.text(), '{"foo":"bar","n":{"a":[1,null]}}');
  assertEquals(await (await app.request("/foo")).json(), { foo: "bar" });
  assertEquals(await (await app.request("/n")).json(), { n: { a: [1, null] } });
});

test("sets nothing for an empty object", async ({ app, store }) => {
  const response = await app.request("/", post("{}"));
  assertEquals(response.status, 200);
  assertEquals(await response.text(), "{}");
  assertEquals((await store.list("")).keys, []);
});

test("sets all keys of an object, or none", async ({ app, store }) => {
  for (const bad of ['""', '"."', '".."', '"\\ud800"', `"${"x".repeat(MAX_KEY_BYTES + 1)}"`]) {
    const response = await app.request("/", post(`{"good": 1, ${bad}: 1}`));
    assertEquals(response.status, 400, bad);
    assertMatch((await readProblem(response)).detail, /^Cannot use the key/);
  }
  const tooLarge = await app.request("/", post(`{"good": 1, "a": "${"x".repeat(2 ** 20)}"}`));
  assertEquals(tooLarge.status, 413);
  assertEquals((await store.list("")).keys, []);
});

test("sets the keys of a form to texts", async ({ app, store }) => {
  const form = new FormData();
  form.set("n", "1");
  form.set("é/\u{1f600}", 'a "text"\r\n');
  form.set("empty", "");
  const forms = [form, new URLSearchParams({ n: "1", "é/\u{1f600}": 'a "text"\r\n', empty: "" })];
  for (const body of forms) {
    const response = await app.request("/", { method: "POST", body });
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("Content-Type"), "application/json");
    assertEquals(await response.text(), '{"n":"1","é/\u{1f600}":"a \\"text\\"\\r\\n","empty":""}');
    assertEquals((await store.get("n"))?.value, '"1"');
    assertEquals((await store.delete("é/\u{1f600}"))?.value, '"a \\"text\\"\\r\\n"');
  }
});

test("decodes the three escapes in the names of a multipart form", async ({ app }) => {
  const form = new FormData();
  form.set('q"q\r\n%41', "1%22");
  const response = await app.request("/", { method: "POST", body: form });
  assertEquals(await response.json(), { 'q"q\r\n%41': "1%22" });
});

test("rejects a form with a repeated key, a file or a syntax error", async ({ app, store }) => {
  const twice = new FormData();
  twice.append("a", "1");
  twice.append("a", "2");
  const file = new FormData();
  file.append("good", "1");
  file.append("a", new File(["text"], "a.txt"));
  const cases: [BodyInit, string | undefined, RegExp][] = [
    [twice, undefined, /^Cannot set "a" from the form: expected each key once$/],
    [new URLSearchParams("a=1&b=2&a=3"), undefined, /"a" from the form: expected each key once$/],
    [file, undefined, /^Cannot set "a" from the form: expected a text, not a file$/],
    [new URLSearchParams("good=1&=2"), undefined, /^Cannot use the key ""/],
    ["no form", "multipart/form-data; boundary=x", /^Cannot read the form/],
    ["no form", "multipart/form-data", /^Cannot read the form/],
  ];
  for (const [body, type, detail] of cases) {
    const init = { method: "POST", body, headers: type ? { "Content-Type": type } : {} };
    const response = await app.request("/", init);
    assertEquals(response.status, 400);
    assertMatch((await readProblem(response)).detail, detail);
  }
  assertEquals((await store.list("")).keys, []);
});

test("rejects a multipart form that is cut off or has a part without a name", async ({ app, store }) => {
  const part = (name: string) => `--x\r\nContent-Disposition: form-data${name}\r\n\r\n1\r\n`;
  const a = part('; name="a"');
  const cases: [string, RegExp][] = [
    [a, /: expected --x-- at its end$/],
    [`${a}${part('; name="b"')}--x`, /: expected --x-- at its end$/],
    [`${a}${part('; name="b"').slice(0, -3)}`, /: expected --x-- at its end$/],
    [`${a} --x--\r\n`, /: expected --x-- at its end$/],
    [`${a}${part("")}--x--`, /: expected a name in each part$/],
    [`${a}--x\r\n\r\n1\r\n--x--\r\n`, /: expected a name in each part$/],
    [`${a}${part('; name="b;c"')}--x--`, /: expected no ; and no = in a name$/],
    [`${a}${part('; name="b=c"')}--x--`, /: expected no ; and no = in a name$/],
    [`${a}${part('; name="\ufeffb"')}--x--`, /: expected no byte order mark in a part$/],
    [`${a}${part("; name=\ufeffb")}--x--`, /: expected no byte order mark in a part$/],
    [a.replace("1", "\ufeff1") + "--x--", /: expected no byte order mark in a part$/],
  ];
  const headers = { "Content-Type": "multipart/form-data; boundary=x" };
  for (const [body, detail] of cases) {
    const response = await app.request("/", post(body, headers));
    assertEquals(response.status, 400, body);
    assertMatch((await readProblem(response)).detail, detail);
  }
  assertEquals((await store.list("")).keys, []);
  const text = a.replace("1", "1 --x--\r\n--x 2");
  const whole = `before\r\n${text}--x-- \t\r\n\r\n\ufeffafter\r\n${a}`;
  const response = await app.request("/", post(whole, headers));
  assertEquals(await response.json(), { a: "1 --x--\r\n--x 2" });
});

test("takes a multipart form whose parts have headers of 2 KiB, and no longer ones", async ({ app }) => {
  const headers = { "Content-Type": "multipart/form-data; boundary=x" };
  const name = "k".repeat(MAX_KEY_BYTES);
  for (const [length, status] of [[2048, 200], [2049, 413]] as const) {
    const head = `--x\r\nContent-Disposition: form-data; name="${name}"\r\nX: `;
    const part = `${head.padEnd(length - 4, "x")}\r\n\r\n1\r\n`;
    const response = await app.request("/", post(`${part}--x--\r\n`, headers));
    assertEquals(response.status, status);
    if (status === 200) assertEquals(await response.json(), { [name]: "1" });
    else assertMatch((await readProblem(response)).detail, /at most 2048 bytes of headers$/);
  }
});

test("rejects a form that is not UTF-8, and sets nothing of it", async ({ app, store }) => {
  const urlencoded = "application/x-www-form-urlencoded";
  const multipart = "multipart/form-data; boundary=x";
  const latin1 = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
  const part = (value: string, type = "") =>
    latin1(`--x\r\nContent-Disposition: form-data; name="k"\r\n${type}\r\n${value}\r\n--x--\r\n`);
  const cases: [string | Uint8Array<ArrayBuffer>, string, number][] = [
    ["good=1&k=%FF", urlencoded, 400],
    ["good=1&%FF=1", urlencoded, 400],
    ["good=1&k=%C3", urlencoded, 400],
    ["good=1&k=%ed%a0%80", urlencoded, 400],
    [latin1("good=1&k=\xe9"), urlencoded, 400],
    [part("\xe9"), multipart, 400],
    ["k=%E9", `${urlencoded}; charset=iso-8859-1`, 415],
    ["k=1", `${urlencoded};charset="windows-1252"`, 415],
    [part("1"), `${multipart}; charset=latin1`, 415],
    [part("1", "Content-Type: text/plain; Charset=latin1\r\n"), multipart, 415],
    ['{"k":1}', "application/json; charset=utf-16", 415],
    ['{"k":1}', "application/json; charset = utf-16", 415],
    ['{"k":1}\n', "application/x-ndjson; charset=iso-8859-1", 415],
  ];
  for (const [body, type, status] of cases) {
    const response = await app.request("/", post(body, { "Content-Type": type }));
    assertEquals(response.status, status, `${type} ${body}`);
    assertMatch((await readProblem(response)).detail, /expected UTF-8$/);
  }
  assertEquals((await store.list("")).keys, []);
});

test("takes the bytes of a form as they are meant", async ({ app }) => {
  const type = "application/x-www-form-urlencoded";
  const cases: [string, unknown][] = [
    ["\ufeffk=1", { k: "1" }],
    ["k=%EF%BF%BD+%F0%9F%98%80", { k: "\ufffd \u{1f600}" }],
    ["k=100%&%zz=%2", { k: "100%", "%zz": "%2" }],
    ["k&a=b=c&&", { k: "", a: "b=c" }],
  ];
  for (const [body, answer] of cases) {
    for (const charset of ["", ";charset=UTF-8", '; Charset="utf-8"', "; charset=us-ascii"]) {
      const response = await app.request("/", post(body, { "Content-Type": type + charset }));
      assertEquals(await response.json(), answer);
    }
  }
});

test("accepts any key in an object", async ({ app, store }) => {
  const body = `{${AWKWARD_KEYS.map((key, i) => `${JSON.stringify(key)}:${i}`).join(",")}}`;
  const response = await app.request("/", post(body));
  assertEquals(response.status, 200);
  assertEquals(await response.json(), JSON.parse(body));
  for (const [i, key] of AWKWARD_KEYS.entries()) {
    assertEquals((await store.get(key))?.value, String(i), JSON.stringify(key));
  }
});

test("deletes the keys under a prefix; all of them only if asked to", async ({ app, store }) => {
  const names = Array.from({ length: 150 }, (_, i) => `f${i}`);
  await store.setAll(new Map([...names, "bar", "g"].map((key) => [key, json(1)])));
  for (const path of ["/", "/?all", "/?prefix=", "/?prefix=f&x=1", "/?prefix=f&all=1"]) {
    const response = await app.request(path, { method: "DELETE" });
    assertEquals(response.status, 400, path);
    await readProblem(response);
  }
  const conditional = { method: "DELETE", headers: { "If-Match": "*" } };
  assertEquals((await app.request("/?prefix=f", conditional)).status, 400);
  const some = await app.request("/?prefix=f", { method: "DELETE" });
  assertEquals(some.status, 200);
  assertEquals(await some.json(), { deleted: 150 });
  assertEquals((await store.list("")).keys, ["bar", "g"]);
  const all = await app.request("/?prefix=&all", { method: "DELETE" });
  assertEquals(await all.json(), { deleted: 2 });
  assertEquals((await store.list("")).keys, []);
});

test("counts the keys that it has deleted itself", async ({ store }) => {
  await store.setAll(new Map(["a1", "a2", "a3"].map((key) => [key, json(1)])));
  const app = kv({
    ...store,
    async delete(key) {
      if (key === "a2") await store.delete(key); // another client was faster
      return await store.delete(key);
    },
  });
  const response = await app.request("/?prefix=a", { method: "DELETE" });
  assertEquals(await response.json(), { deleted: 2 });
});

test("says that it does not know the outcome of a delete that stopped midway", async ({ store }) => {
  await store.setAll(new Map(Array.from({ length: 100 }, (_, i) => [`k${i}`, json(i)])));
  const app = kv(failingListing(store));
  await logged(async () => {
    const response = await app.request("/?prefix=k", { method: "DELETE" });
    assertEquals(response.status, 503);
    assertEquals((await readProblem(response)).outcome, "unknown");
  });
  assertEquals((await store.list("")).keys.length, 36);
});

test("says that a delete which could not list the keys has removed none", async ({ store }) => {
  await store.set("k", json(1));
  const gone = new StoreUnavailable("gone", { outcome: "unchanged" });
  const app = kv({ ...store, list: () => Promise.reject(gone) });
  await logged(async () => {
    const response = await app.request("/?prefix=k", { method: "DELETE" });
    assertEquals(response.status, 503);
    assertEquals((await readProblem(response)).outcome, "unchanged");
  });
  assertEquals((await store.list("")).keys, ["k"]);
});
