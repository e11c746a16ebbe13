/** The OpenAPI 3.1 document of the service, generated from the schemas that check the requests. */
import { z } from "zod";
import project from "../deno.json" with { type: "json" };
import { MAX_DEPTH, MAX_VALUE_BYTES } from "../stores/store.ts";
import { MAX_OPERATIONS } from "../stores/wire.ts";
import { MAX_MEMBERS } from "./bodies.ts";
import { NDJSON } from "./dumps.ts";
import { OperationSchema } from "./operations.ts";
import { QUERIES } from "./requests.ts";

const Value = z.unknown().meta({
  description: `Any JSON value, at most ${MAX_VALUE_BYTES} bytes and ${MAX_DEPTH} levels deep`,
});
const Entries = z.record(z.string().meta({ minLength: 1 }), Value).meta({
  description: "Values by their keys",
});
const expires = z.number().nullable().describe("Milliseconds since 1970, or null for never");
const revision = z.string().nullable().describe("Null where there is no entry");
const Contents = z.object({ value: Value, revision, expires });
const Problem = z.object({
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  outcome: z.enum(["unchanged", "unknown"]).optional().describe("With 503: what became of a write"),
  current: Entries.optional().describe("With 412: the current entry"),
  line: z.int().optional().describe("The first bad line of a restore"),
  restored: z.int().optional().describe("How many lines were restored"),
});

const SCHEMAS = {
  Value,
  Entries,
  Page: z.object({
    keys: z.array(z.string()),
    next: z.string().nullable().optional().describe("The next page's `after`; null at the end"),
  }),
  Problem,
  Operation: OperationSchema,
  Result: z.union([
    Contents.extend({ status: z.literal([200, 412]) }).describe("To get, delete, or a condition"),
    z.object({ status: z.literal([200, 201]), revision: z.string(), expires }).describe("To put"),
    Problem.pick({ status: true, detail: true, outcome: true }),
  ]),
  Change: Contents.extend({ key: z.string() }),
  Deleted: z.object({ deleted: z.int() }),
  Health: z.object({ status: z.literal("ok") }),
  Restored: z.object({
    restored: z.int(),
    expired: z.int().optional().describe("How many lines were left out, since they have expired"),
  }),
};

function ref(name: keyof typeof SCHEMAS) {
  return { $ref: `#/components/schemas/${name}` };
}

function schemaOf(schema: z.ZodType) {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input" });
  return rest;
}

function inQuery(schema: z.ZodObject) {
  const { properties = {}, required = [] } = schemaOf(schema);
  return Object.entries(properties).map(([name, schema]) => {
    const isText = Object(schema).type === "string";
    const empty = isText && { allowEmptyValue: true };
    return { name, in: "query", required: required.includes(name), schema, ...empty };
  });
}

const TEXT = { type: "string" };

/** A text, whose form JSON Schema cannot say. */
function text(description: string) {
  return { ...TEXT, description };
}

function inHeader(...names: string[]) {
  return names.map((name) => ({ name, in: "header", schema: TEXT }));
}

/** Returns what a body holds, from a schema for each media type. */
function content(schemas: Record<string, object>) {
  const entries = Object.entries(schemas).map(([type, schema]) => [type, { schema }]);
  return { content: Object.fromEntries(entries) };
}

function json(name: keyof typeof SCHEMAS) {
  return { "application/json": ref(name) };
}

function response(description: string, schemas?: Record<string, object>, headers?: string[]) {
  return {
    description,
    ...headers && { headers: Object.fromEntries(headers.map((name) => [name, { schema: TEXT }])) },
    ...schemas && content(schemas),
  };
}

/** HEAD has the parameters of GET, and its answers without the body. */
function head(operationId: string, { parameters, responses }: typeof LIST | typeof GET) {
  const heads = Object.entries(responses).map(([status, { content: _, ...head }]) => {
    return [status, head];
  });
  const summary = "The headers of GET";
  return { operationId, summary, parameters, responses: Object.fromEntries(heads) };
}

const ENTRY_HEADERS = ["ETag", "Expires"];
const ERROR_HEADERS = ["Accept-Encoding", "Allow", "Retry-After", "WWW-Authenticate"];
/** Every operation may answer with an error. */
const ERRORS = {
  default: response("What is wrong, and what is expected", {
    "application/problem+json": ref("Problem"),
  }, [...ENTRY_HEADERS, ...ERROR_HEADERS]),
};

const CONDITIONS = inHeader("If-Match", "If-None-Match");
const KEY = {
  name: "key",
  in: "path",
  required: true,
  description: "Percent-encoded, slashes too: 1 to 1,024 bytes of UTF-8, but neither . nor ..",
  schema: { ...TEXT, minLength: 1 },
};
const LINES = text('Lines of `{"key": value}`, or with `backup` `{"key", "value", "expires"}`');

/** `GET /`. Of backup, health, metrics and openapi, each stands alone. */
const LIST = {
  operationId: "list",
  summary: "Keys, entries or changes; or a backup, health, metrics or this document",
  parameters: [
    ...inQuery(QUERIES.list),
    ...[QUERIES.backup.pick({ backup: true }), QUERIES.health, QUERIES.metrics, QUERIES.openapi]
      .flatMap(inQuery)
      .map((parameter) => ({ ...parameter, required: false })),
    ...inHeader("Last-Event-ID"),
  ],
  responses: {
    200: response("What Accept prefers, or what the query asks for", {
      "application/json": {
        anyOf: [ref("Page"), ref("Health"), {
          type: "object",
          description: "With `openapi`: this document",
          required: ["openapi"],
          properties: { openapi: TEXT },
        }],
      },
      [NDJSON]: LINES,
      "text/event-stream": text(
        "Server-sent events; the data of each without a name is a Change as JSON. Those that are " +
          "called ready and position have an id to resume from. Expiry is not reported",
      ),
      "text/html": text("A page for browsers"),
      "text/plain": text("With `metrics`: Prometheus' text format"),
    }, ["Link", "X-Total-Count"]),
    ...ERRORS,
  },
};

const SET = {
  operationId: "set",
  summary: "Sets several keys, all or none; or restores a dump; or executes an array of operations",
  parameters: inQuery(QUERIES.write),
  requestBody: {
    required: true,
    ...content({
      "application/json": {
        oneOf: [{ ...ref("Entries"), maxProperties: MAX_MEMBERS }, {
          type: "array",
          maxItems: MAX_OPERATIONS,
          items: ref("Operation"),
        }],
      },
      "application/x-www-form-urlencoded": { type: "object", additionalProperties: TEXT },
      "multipart/form-data": { type: "object", additionalProperties: TEXT },
      [NDJSON]: LINES,
    }),
  },
  responses: {
    200: response("What was set, how many lines were restored, or the result of each operation", {
      "application/json": {
        anyOf: [ref("Entries"), ref("Restored"), { type: "array", items: ref("Result") }],
      },
    }),
    ...ERRORS,
  },
};

const REMOVE = {
  operationId: "removeAll",
  summary: "Removes all keys under a prefix; an empty prefix needs all",
  parameters: inQuery(QUERIES.remove),
  responses: { 200: response("How many keys were removed", json("Deleted")), ...ERRORS },
};

const GET = {
  operationId: "get",
  summary: "Returns an entry; null if there is none",
  parameters: CONDITIONS,
  responses: {
    200: response("The entry", {
      ...json("Entries"),
      "text/plain": text(
        "A string without its quotes, and U+FFFD for half surrogates; other values as JSON",
      ),
    }, ENTRY_HEADERS),
    304: response("Its tag is in If-None-Match", undefined, ENTRY_HEADERS),
    ...ERRORS,
  },
};

const ENTRY = {
  parameters: [KEY],
  get: GET,
  head: head("headOfEntry", GET),
  put: {
    operationId: "put",
    summary: "Sets a key",
    parameters: [...inQuery(QUERIES.write), ...CONDITIONS],
    requestBody: { required: true, ...content(json("Value")) },
    responses: {
      200: response("Replaced another value", json("Entries"), ENTRY_HEADERS),
      201: response("Created", json("Entries"), ENTRY_HEADERS),
      ...ERRORS,
    },
  },
  patch: {
    operationId: "extend",
    summary: "Extends the life of an entry; its value stays",
    parameters: [...inQuery(QUERIES.extend), ...CONDITIONS],
    responses: {
      200: response("The entry, with its new tag and time", json("Entries"), ENTRY_HEADERS),
      ...ERRORS,
    },
  },
  delete: {
    operationId: "remove",
    summary: "Removes a key, and returns its value",
    parameters: CONDITIONS,
    responses: { 200: response("The removed value, or null", json("Entries")), ...ERRORS },
  },
};

export function openApi() {
  const schemas = Object.entries(SCHEMAS).map(([name, schema]) => [name, schemaOf(schema)]);
  return {
    openapi: "3.1.1",
    info: {
      title: "kv",
      version: project.version,
      description: "A key-value store served over HTTP",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "." }], // beside this document, also behind a proxy that serves it under a path
    security: [{}, { bearer: [] }, { basic: [] }],
    paths: {
      "/": { get: LIST, head: head("headOfList", LIST), post: SET, delete: REMOVE },
      "/{key}": ENTRY,
    },
    components: {
      schemas: Object.fromEntries(schemas),
      securitySchemes: {
        bearer: {
          type: "http",
          scheme: "bearer",
          description: "A token of KV_TOKEN, or of KV_READ_TOKEN to read",
        },
        basic: { type: "http", scheme: "basic", description: "Any name, and a token" },
      },
    },
  };
}
