/** A client that is generated from the service's OpenAPI document, against the service. */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { runToEnd, startServer, temporaryDirectory } from "../helpers/programs.ts";

const GENERATOR = "npm:openapi-typescript@7.13.0";

/** Does every row of the service's table, with the generated types. */
const CLIENT = `
import createClient from "npm:openapi-fetch@0.17.0";
import type { paths } from "./paths.ts";

const { GET, HEAD, POST, PUT, PATCH, DELETE } = createClient<paths>({ baseUrl: Deno.args[0] });
const asText = { parseAs: "text" } as const;
const key = (key: string) => ({ path: { key } });
const show = (row: string, { data, error, response }: {
  data?: unknown; error?: { detail: string }; response: Response;
}) => console.log(row, response.status, JSON.stringify(data ?? error?.detail ?? null).slice(0, 60));
const lines = {
  headers: { "Content-Type": "application/x-ndjson" },
  body: '{"c": 3}\\n',
  bodySerializer: (body: unknown) => String(body),
};

show("object", await POST("/", { params: { query: { ttl: 60 } }, body: { "a/b": [1], b: "two" } }));
show("form", await POST("/", {
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
  body: { f: "x" },
  bodySerializer: (body) => new URLSearchParams(Object.entries(body).map(([k, v]) => [k, String(v)])),
}));
show("lines", await POST("/", lines));
const operations = await POST("/", {
  body: [{ op: "put", key: "p", value: 1, ifRevision: null }, { op: "get", key: "b" }],
});
show("array", { ...operations, data: (operations.data as { status: number }[]).map((it) => it.status) });
show("get", await GET("/{key}", { params: key("a/b") }));
show("head", await HEAD("/{key}", { params: key("b") }));
show("text", await GET("/{key}", { params: key("b"), headers: { Accept: "text/plain" }, ...asText }));
show("no text", await GET("/{key}", { params: key("x"), headers: { Accept: "text/plain" } }));
show("create", await PUT("/{key}", { params: { ...key("n"), query: { ttl: 9 } }, body: { n: 1.5 } }));
show("replace", await PUT("/{key}", { params: key("n"), body: null }));
show("conflict", await PUT("/{key}", {
  params: { ...key("n"), header: { "If-None-Match": "*" } },
  body: 1,
}));
show("extend", await PATCH("/{key}", { params: { ...key("n"), query: { ttl: 60 } } }));
show("bad ttl", await PATCH("/{key}", { params: { ...key("n"), query: { ttl: 0 } } }));
show("remove", await DELETE("/{key}", { params: key("n") }));
show("list", await GET("/", { params: { query: { prefix: "" } } }));
show("page", await GET("/", { params: { query: { limit: 1 } } }));
show("heads", await HEAD("/", {}));
show("dump", await GET("/", { headers: { Accept: "application/x-ndjson" }, ...asText }));
show("backup", await GET("/", { params: { query: { backup: "", prefix: "c" } }, ...asText }));
const events = await GET("/", { headers: { Accept: "text/event-stream" }, parseAs: "stream" });
const reader = events.data?.getReader();
const first = new TextDecoder().decode((await reader?.read())?.value).split("\\n")[0];
show("events", { ...events, data: first });
await reader?.cancel();
show("page", await GET("/", { headers: { Accept: "text/html" }, ...asText }));
show("health", await GET("/", { params: { query: { health: "" } } }));
show("metrics", await GET("/", { params: { query: { metrics: "" } }, ...asText }));
show("openapi", await GET("/", { params: { query: { openapi: "" } } }));
show("delete", await DELETE("/", { params: { query: { prefix: "a" } } }));
show("delete all", await DELETE("/", { params: { query: { prefix: "", all: "" } } }));
// @ts-expect-error Numbers are numbers
() => PUT("/{key}", { params: { ...key("n"), query: { ttl: "60" } }, body: 1 });
`;

const SHOWN = `object 200 {"a/b":[1],"b":"two"}
form 200 {"f":"x"}
lines 200 {"restored":1}
array 200 [201,200]
get 200 {"a/b":[1]}
head 200 null
text 200 "two"
no text 404 "There is no entry \\"x\\""
create 201 {"n":{"n":1.5}}
replace 200 {"n":null}
conflict 412 "The condition for
extend 200 {"n":null}
bad ttl 400 "Cannot keep an entry for
remove 200 {"n":null}
list 200 {"keys":["a/b","b","c","f","p"]}
page 200 {"keys":["a/b"],"next":"a/b"}
heads 200 null
dump 200 "{\\"a/b\\": [1]}\\n
backup 200 "{\\"key\\": \\"c\\"
events 200 "event: ready"
page 200 "<!DOCTYPE html>
health 200 {"status":"ok"}
metrics 200 "# HELP kv_
openapi 200 {"openapi":"3.1.1"
delete 200 {"deleted":1}
delete all 200 {"deleted":4}`;

Deno.test("A client generated from the OpenAPI document does each row of the service's table", async () => {
  await using service = await startServer("kv.ts", { env: { DBM: ":memory:" } });
  await using directory = await temporaryDirectory();
  const cwd = directory.path;
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await runToEnd(Deno.execPath(), args, { cwd });
    assertEquals(code, 0, stderr);
    return stdout.trimEnd().split("\n");
  };
  await run(...["run", "-A", "--no-lock", GENERATOR, `${service.url}/?openapi`, "-o", "paths.ts"]);
  await Deno.writeTextFile(join(cwd, "client.ts"), CLIENT);
  const shown = await run("run", "-A", "--no-lock", "--check", "client.ts", service.url);
  const wanted = SHOWN.split("\n");
  assertEquals(shown.map((line, i) => line.slice(0, wanted[i]?.length)), wanted);
});
