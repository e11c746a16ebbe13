/** Which requests the servers accept: origins and host names. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv } from "../kv.ts";
import { JSON_TYPE, put, readProblem, test } from "./helpers/kv_app.ts";

test("rejects cross-site requests", async ({ app, store }) => {
  const cases: Record<string, string>[] = [
    { "Sec-Fetch-Site": "cross-site" },
    { "Sec-Fetch-Site": "same-site" },
    { "Sec-Fetch-Site": "cross-site", Origin: "http://localhost", Host: "localhost" },
    { Origin: "https://evil.example", Host: "localhost" },
    { Origin: "http://localhost:5000", Host: "localhost:5100" },
    { Origin: "http://localhost.evil.example", Host: "localhost" },
    { Origin: "null", Host: "localhost" },
    { Origin: "", Host: "localhost" },
  ];
  for (const headers of cases) {
    for (const method of ["GET", "POST", "PUT", "DELETE", "OPTIONS"]) {
      const path = method === "POST" ? "/" : "/a";
      const body = method === "POST" ? '{"a":1}' : method === "PUT" ? "1" : null;
      const init = { method, body, headers: { ...JSON_TYPE, ...headers } };
      const response = await app.request(path, init);
      assertEquals(response.status, 403, JSON.stringify(headers));
      assertEquals(response.headers.get("Access-Control-Allow-Origin"), null);
      assertMatch((await readProblem(response)).detail, /^Cross-site requests are not allowed$/);
    }
  }
  assertEquals(await store.get("a"), null);
});

test("accepts its own page, typed addresses and clients other than browsers", async (t) => {
  const cases: Record<string, string>[] = [
    {},
    { "Sec-Fetch-Site": "same-origin" },
    { "Sec-Fetch-Site": "none" },
    { Origin: "http://localhost:5100", Host: "localhost:5100" },
    { Origin: "https://localhost:5100", Host: "localhost:5100" },
  ];
  for (const headers of cases) {
    const response = await t.app.request("http://localhost:5100/a", put("1", headers));
    assert(response.ok, JSON.stringify(headers));
  }
});

test("rejects an unknown Host if it has no token", async ({ store }) => {
  const app = kv(store, { host: "kv.internal" });
  const foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"];
  for (const host of [...foreign, "[::2]", "kv.internal.example"]) {
    const response = await app.request(`http://${host}/`);
    assertEquals(response.status, 403, host);
    assertEquals(
      (await readProblem(response)).detail,
      `The Host "${host}" is not served here: use localhost, or set KV_TOKEN`,
    );
  }
  for (const host of ["localhost", "LOCALHOST:5100", "127.0.0.1", "127.1.2.3:80", "[::1]:5100"]) {
    assertEquals((await app.request(`http://${host}/`)).status, 200, host);
  }
  assertEquals((await app.request("http://kv.internal:5100/")).status, 200);
});
