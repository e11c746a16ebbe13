/** The service's OpenAPI document: that it is one, and that the service answers as it says. */
import { assert, assertEquals } from "@std/assert";
import { Validator } from "@seriousme/openapi-schema-validator";
import { z } from "zod";
import { kv } from "../kv.ts";
import { memoryStore } from "../stores/memory.ts";
import { MAX_PAGE, MAX_TTL } from "../stores/store.ts";
import { readProblem } from "./helpers/kv_app.ts";
import { scoped } from "./helpers/scoped.ts";

type Described = { content?: Record<string, { schema: object }>; headers?: object };

/** What any response of a server may have. */
const COMMON = /^(cache-control|content-|vary|x-content-type-options)/;
interface Operation {
  path: string;
  method: string;
  operationId: string;
  parameters?: { name: string; in: string; schema: object; allowEmptyValue?: boolean }[];
}
interface Document {
  paths: Record<
    string,
    Record<string, { responses: Record<string, Described>; requestBody?: Described }>
  >;
  components: { schemas: Record<string, z.core.JSONSchema.JSONSchema> };
}

async function documentOf(app: ReturnType<typeof kv>): Promise<Document> {
  const response = await app.request("/?openapi");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("Content-Type"), "application/json");
  return await response.json();
}

Deno.test("kv() serves a valid OpenAPI 3.1 document", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const validator = new Validator();
  const { valid, errors } = await validator.validate({ ...await documentOf(app) });
  assert(valid, JSON.stringify(errors));
  assertEquals(validator.version, "3.1");
  assertEquals((await app.request("/?openapi=1")).status, 400);
});

Deno.test("kv() responds with the statuses, types and schemas of its OpenAPI document", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const { paths, components } = await documentOf(app);
  const shapes = { $defs: components.schemas };
  const json = { "Content-Type": "application/json" };
  const lines = { "Content-Type": "application/x-ndjson" };
  const array = [
    { op: "put", key: "b", value: [1], ttl: 60, ifRevision: null },
    { op: "get", key: "b" },
    { op: "delete", key: "c" },
    { op: "get", key: "" },
  ];
  const cases: [string, RequestInit][] = [
    ["/a", { method: "PUT", body: "1", headers: json }],
    ["/a?ttl=60", { method: "PUT", body: "2", headers: json }],
    ["/a", { method: "PUT", body: "{", headers: json }],
    ["/a", { method: "PUT", body: "1", headers: { ...json, "If-Match": '"x"' } }],
    ["/a", {}],
    ["/a", { headers: { "If-None-Match": "*" } }],
    ["/a", { method: "HEAD" }],
    ["/a", { method: "HEAD", headers: { "If-None-Match": "*" } }],
    ["/a", { method: "PUT", body: "1", headers: { ...json, "Content-Encoding": "br" } }],
    ["/a", { method: "DELETE" }],
    ["/", { method: "POST", body: '{"a":{"b":null}}', headers: json }],
    ["/", { method: "POST", body: JSON.stringify(array), headers: json }],
    ["/", { method: "POST", body: '{"a":1}\n{}', headers: lines }],
    ["/", { method: "POST", body: '{"a":1,"c":2}', headers: json }],
    ["/?limit=1", {}],
    ["/?limit=1", { method: "HEAD" }],
    ["/", {}],
    ["/?prefix=x", { headers: { Accept: "application/x-ndjson" } }],
    ["/?metrics", {}],
  ];
  for (const [path, init] of cases) {
    const method = (init.method ?? "GET").toLowerCase();
    const described = paths[path.startsWith("/a") ? "/{key}" : "/"]?.[method]?.responses ?? {};
    const response = await app.request(path, init);
    const said = described[response.status] ?? described["default"];
    assert(response.status < 400 === (response.status in described), `${path} ${response.status}`);
    const names = Object.keys(said?.headers ?? {}).map((name) => name.toLowerCase());
    for (const name of response.headers.keys()) {
      assert(COMMON.test(name) || names.includes(name), `${method} ${path}: ${name}`);
    }
    const type = response.headers.get("Content-Type")?.split(";")[0];
    if (type === undefined || method === "head") assertEquals(said?.content, undefined);
    else assert(said?.content && type in said.content, `${method} ${path}: ${type}`);
    if (method === "head" || !type?.endsWith("/json") && !type?.endsWith("+json")) {
      await response.body?.cancel();
      continue;
    }
    const text = JSON.stringify({ ...shapes, ...said?.content?.[type]?.schema })
      .replaceAll("#/components/schemas/", "#/$defs/");
    const answer: unknown = type.startsWith("application/problem")
      ? await readProblem(response)
      : await response.json();
    // Strict: a member that is not described is an error, too.
    const schema = JSON.parse(text, (_, part) => {
      return part?.properties ? { ...part, additionalProperties: false } : part;
    });
    z.fromJSONSchema(schema).parse(answer);
  }
});

Deno.test("kv() describes parameters and operations for who generates a client", async () => {
  await using store = scoped(memoryStore());
  const app = kv(store);
  const { paths } = await documentOf(app);
  const operations = Object.entries(paths).flatMap(([path, { parameters: _, ...methods }]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation }))
  ) as unknown as Operation[];
  assertEquals(operations.map(({ path, method }) => `${method} ${path}`), [
    ...["get /", "head /", "post /", "delete /"],
    ...["get /{key}", "head /{key}", "put /{key}", "patch /{key}", "delete /{key}"],
  ]);
  const ids = operations.map(({ operationId }) => operationId);
  assertEquals(new Set(ids).size, operations.length);
  for (const { parameters = [] } of operations) {
    for (const { name, schema, allowEmptyValue, ...parameter } of parameters) {
      if (name !== "ttl" && name !== "limit") {
        // As in the Link of a page, and ?prefix=&all.
        if (parameter.in === "query") assert(allowEmptyValue, name);
        continue;
      }
      const maximum = name === "ttl" ? MAX_TTL : MAX_PAGE;
      assertEquals(schema, { type: "integer", minimum: 1, maximum });
    }
  }
  for (const body of [paths["/"]?.["get"]?.responses["200"], paths["/"]?.["post"]?.requestBody]) {
    assertEquals(Object(body?.content?.["application/x-ndjson"]?.schema).type, "string");
  }
});
