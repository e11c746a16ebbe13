/** The OpenAPI 3.1 document of the service, generated from the schemas that check the requests. */
import { z } from "zod";
import project from "../deno.json" with { type: "json" };
import { MAX_DEPTH, MAX_VALUE_BYTES } from "../stores/store.ts";
import { MAX_OPERATIONS } from "../stores/wire.ts";
import { MAX_MEMBERS } from "./bodies.ts";
import { NDJSON } from "./dumps.ts";
import { OperationSchema } from "./operations.ts";
import {
  BackupQuery,
  HealthQuery,
  ListQuery,
  MetricsQuery,
  OpenApiQuery,
  RemoveQuery,
  TtlQuery,
  WriteQuery,
} from "./requests.ts";

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
    const empty = isText ? { allowEmptyValue: true } : {};
    return { name, in: "query", required: required.includes(name), schema, ...empty };
  });
}

const TEXT = { type: "string" };

function inHeader(...names: string[]) {
  return names.map((name) => ({ name, in: "header", schema: TEXT }));
}

const ENTRY_HEADERS = ["ETag", "Expires"];

/** What a body holds, by its media type. */
type Content = Record<string, object>;

function content(schemas: Content) {
  const entries = Object.entries(schemas).map(([type, schema]) => [type, { schema }]);
  return { content: Object.fromEntries(entries) };
}

function headersOf(names: string[]) {
  return { headers: Object.fromEntries(names.map((name) => [name, { schema: TEXT }])) };
}

/** A response: how it is described, its content, and its headers. */
type Expected = [description: string, schemas?: Content | undefined, headers?: string[]];

/** Returns the responses of a method. Errors are alike. */
function responses(expected: Record<number, Expected>) {
  const entries = Object.entries(expected).map(([status, [description, schemas, headers]]) => {
    return [status, {
      description,
      ...headers && headersOf(headers),
      ...schemas && content(schemas),
    }];
  });
  return {
    ...Object.fromEntries(entries),
    default: {
      description: "What is wrong, and what is expected",
      ...headersOf([
        "Accept-Encoding",
        "Allow",
        ...ENTRY_HEADERS,
        "Retry-After",
        "WWW-Authenticate",
      ]),
      ...content({ "application/problem+json": ref("Problem") }),
    },
  };
}

const jsonOf = (name: keyof typeof SCHEMAS) => ({ "application/json": ref(name) });
const CONDITIONS = inHeader("If-Match", "If-None-Match");
const KEY = {
  name: "key",
  in: "path",
  required: true,
  description: "Percent-encoded, slashes too: 1 to 1,024 bytes of UTF-8, but neither . nor ..",
  schema: { type: "string", minLength: 1 },
};
const NOT_MODIFIED = "Its tag is in If-None-Match";

/** HEAD has the parameters of GET, and its answers without the body. */
function head(operationId: string, { parameters, responses }: Read) {
  const heads = Object.entries(responses).map(([status, response]) => {
    const { content: _, ...head } = response;
    return [status, head];
  });
  return {
    operationId,
    summary: "The headers of GET",
    parameters,
    responses: Object.fromEntries(heads),
  };
}

interface Read {
  parameters: object[];
  responses: Record<string, { content?: object }>;
}

/** A text, whose form JSON Schema cannot say. */
function text(description: string) {
  return { type: "string", description };
}

const LINES = text('Lines of `{"key": value}`, or with `backup` `{"key", "value", "expires"}`');

/** `GET /`. Of backup, health, metrics and openapi, each stands alone. */
const LIST = {
  operationId: "list",
  summary: "Keys, entries or changes; or a backup, health, metrics or this document",
  parameters: [
    ...inQuery(ListQuery),
    ...[BackupQuery.pick({ backup: true }), HealthQuery, MetricsQuery, OpenApiQuery]
      .flatMap(inQuery)
      .map((parameter) => ({ ...parameter, required: false })),
    ...inHeader("Last-Event-ID"),
  ],
  responses: responses({
    200: ["What Accept prefers, or what the query asks for", {
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
    }, ["Link", "X-Total-Count"]],
  }),
};

const SET = {
  operationId: "set",
  summary: "Sets several keys, all or none; or restores a dump; or executes an array of operations",
  parameters: inQuery(WriteQuery),
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
  responses: responses({
    200: ["What was set, how many lines were restored, or the result of each operation", {
      "application/json": {
        anyOf: [ref("Entries"), ref("Restored"), { type: "array", items: ref("Result") }],
      },
    }],
  }),
};

const REMOVE = {
  operationId: "removeAll",
  summary: "Removes all keys under a prefix; an empty prefix needs all",
  parameters: inQuery(RemoveQuery),
  responses: responses({ 200: ["How many keys were removed", jsonOf("Deleted")] }),
};

const GET = {
  operationId: "get",
  summary: "Returns an entry; null if there is none",
  parameters: CONDITIONS,
  responses: responses({
    200: ["The entry", {
      ...jsonOf("Entries"),
      "text/plain": text(
        "A string without its quotes, and U+FFFD for half surrogates; other values as JSON",
      ),
    }, ENTRY_HEADERS],
    304: [NOT_MODIFIED, undefined, ENTRY_HEADERS],
  }),
};

const ENTRY = {
  parameters: [KEY],
  get: GET,
  head: head("headOfEntry", GET),
  put: {
    operationId: "put",
    summary: "Sets a key",
    parameters: [...inQuery(WriteQuery), ...CONDITIONS],
    requestBody: { required: true, ...content(jsonOf("Value")) },
    responses: responses({
      200: ["Replaced another value", jsonOf("Entries"), ENTRY_HEADERS],
      201: ["Created", jsonOf("Entries"), ENTRY_HEADERS],
    }),
  },
  patch: {
    operationId: "extend",
    summary: "Extends the life of an entry; its value stays",
    parameters: [...inQuery(TtlQuery), ...CONDITIONS],
    responses: responses({
      200: ["The entry, with its new tag and time", jsonOf("Entries"), ENTRY_HEADERS],
    }),
  },
  delete: {
    operationId: "remove",
    summary: "Removes a key, and returns its value",
    parameters: CONDITIONS,
    responses: responses({ 200: ["The removed value, or null", jsonOf("Entries")] }),
  },
};

/**
 * Returns the OpenAPI document of the service.
 *
 * @example
 * ```ts
 * import { openApi } from "./openapi.ts";
 *
 * console.log(Object.keys(openApi().paths)); // [ "/", "/{key}" ]
 * ```
 */
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
