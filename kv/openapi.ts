/**
 * The service described for programs: OpenAPI 3.1, made of the schemas that check the requests.
 *
 * @module
 */
import { z } from "zod";
import project from "../deno.json" with { type: "json" };
import { MAX_DEPTH, MAX_VALUE_BYTES } from "../stores/store.ts";
import { MAX_OPERATIONS } from "../stores/wire.ts";
import { NDJSON } from "./dumps.ts";
import { Operation } from "./operations.ts";
import {
  HealthQuery,
  ListQuery,
  MAX_MEMBERS,
  MetricsQuery,
  NoQuery,
  OpenApiQuery,
  WriteQuery,
} from "./requests.ts";

const Value = z.unknown().meta({
  description: `Any JSON value, at most ${MAX_VALUE_BYTES} bytes and ${MAX_DEPTH} levels deep`,
});
const Entries = z.record(z.string(), Value).meta({ description: "Values by their keys" });
const expires = z.number().nullable().describe("Milliseconds since 1970, or null for never");
const revision = z.string().nullable().describe("Null where there is no entry");
const Contents = z.object({ value: Value, revision, expires });
const Page = z.object({
  keys: z.array(z.string()),
  next: z.string().nullable().optional().describe("The next page's `after`; null at the end"),
});
const Problem = z.object({
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  outcome: z.enum(["unchanged", "unknown"]).optional().describe("Of a write that failed: 503"),
  current: Entries.optional().describe("The entry that is there instead: 412"),
  line: z.int().optional().describe("The first bad line of a restore"),
  restored: z.int().optional().describe("How many lines of a restore were written"),
});
const Answer = z.union([
  Contents.extend({ status: z.literal([200, 412]) }).describe("To get, delete, or a condition"),
  z.object({ status: z.literal([200, 201]), revision: z.string(), expires }).describe("To put"),
  Problem.pick({ status: true, detail: true, outcome: true }),
]);
const Change = Contents.extend({ key: z.string() });

const SCHEMAS = { Value, Entries, Page, Problem, Operation, Answer, Change };

/** A schema of {@linkcode SCHEMAS}. */
function ref(name: keyof typeof SCHEMAS) {
  return { $ref: `#/components/schemas/${name}` };
}

function schemaOf(schema: z.ZodType) {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input" });
  return rest;
}

/** The parameters of a query. */
function inQuery(schema: z.ZodObject) {
  const { properties = {}, required = [] } = schemaOf(schema);
  return Object.entries(properties).map(([name, schema]) => {
    return { name, in: "query", required: required.includes(name), schema };
  });
}

function inHeader(...names: string[]) {
  return names.map((name) => ({ name, in: "header", schema: { type: "string" } }));
}

function body(content: Record<string, object>) {
  return { content: typed(content) };
}

function typed(content: Record<string, object>) {
  return Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema }]));
}

/** The answers of an operation; every error that is not told apart is problem+json, too. */
function responses(answers: Record<string, { description: string; content?: object }>) {
  const problem = body({ "application/problem+json": ref("Problem") });
  return { ...answers, default: { description: "What is wrong, and what is wanted", ...problem } };
}

const json = (name: keyof typeof SCHEMAS) => body({ "application/json": ref(name) });
const NOT_MODIFIED = { 304: { description: "It has a tag of If-None-Match" } };
const TEXT = { type: "string" };
const KEY = {
  name: "key",
  in: "path",
  required: true,
  description: "Percent-encoded, slashes too: 1 to 1,024 bytes of UTF-8, but neither . nor ..",
  schema: { type: "string", minLength: 1 },
};

/** Everything that GET / can be asked for: health, metrics and openapi come alone. */
const LIST = {
  summary: "Keys, entries, changes, or what the service tells of itself",
  parameters: [
    ...inQuery(ListQuery),
    ...[HealthQuery, MetricsQuery, OpenApiQuery].flatMap((schema) =>
      inQuery(schema).map((parameter) => ({ ...parameter, required: false, allowEmptyValue: true }))
    ),
    ...inHeader("Last-Event-ID"),
  ],
  responses: responses({
    200: {
      description: "Keys, or a page of them; by Accept, all entries, changes, or a page to look at",
      ...body({
        "application/json": { anyOf: [ref("Page"), { type: "object" }] },
        [NDJSON]: ref("Entries"),
        "text/event-stream": ref("Change"),
        "text/html": TEXT,
        "text/plain": TEXT,
      }),
    },
  }),
};

const SET = {
  summary: "Sets several keys, all or none; or restores a dump; or does an array of operations",
  parameters: inQuery(WriteQuery),
  requestBody: {
    required: true,
    ...body({
      "application/json": {
        oneOf: [{ ...ref("Entries"), maxProperties: MAX_MEMBERS }, {
          type: "array",
          maxItems: MAX_OPERATIONS,
          items: ref("Operation"),
        }],
      },
      "application/x-www-form-urlencoded": { type: "object", additionalProperties: TEXT },
      "multipart/form-data": { type: "object", additionalProperties: TEXT },
      [NDJSON]: ref("Entries"),
    }),
  },
  responses: responses({
    200: {
      description: "What was set; {restored: number of lines}; or an answer for each operation",
      ...body({
        "application/json": {
          oneOf: [ref("Entries"), { type: "array", items: ref("Answer") }],
        },
      }),
    },
  }),
};

const ENTRY = {
  parameters: [KEY],
  get: {
    summary: "Gets an entry; its value is null where there is none",
    parameters: [...inQuery(NoQuery), ...inHeader("If-Match", "If-None-Match")],
    responses: responses({
      200: { description: "The entry, with ETag and Expires", ...json("Entries") },
      ...NOT_MODIFIED,
    }),
  },
  put: {
    summary: "Sets a key",
    parameters: [...inQuery(WriteQuery), ...inHeader("If-Match", "If-None-Match")],
    requestBody: { required: true, ...json("Value") },
    responses: responses({
      200: { description: "Written over another value", ...json("Entries") },
      201: { description: "Written where nothing was", ...json("Entries") },
    }),
  },
  delete: {
    summary: "Removes a key, and gives what it held",
    parameters: inHeader("If-Match", "If-None-Match"),
    responses: responses({ 200: { description: "What it held, or null", ...json("Entries") } }),
  },
};

/**
 * The description of the service, by version 3.1 of the OpenAPI Specification.
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
    servers: [{ url: "/" }],
    security: [{}, { bearer: [] }, { basic: [] }],
    paths: { "/": { get: LIST, post: SET }, "/{key}": ENTRY },
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
