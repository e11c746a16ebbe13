/** What a read and a write of the key-value service cost, beside other stores over HTTP. */
import { join } from "node:path";
import { type Line, type Options, type Started, takeTurns, type Variant } from "./load.ts";
import { Servers } from "./servers.ts";
import { ratioTable, resultTable } from "./tables.ts";

/** How many keys are read and written, in turn. */
const KEYS = 1000;
const JSON_TYPE = "application/json";
const FORM_TYPE = "application/x-www-form-urlencoded";

const GET = "ours, GET /key, SQLite";
const POST = "ours, POST /, SQLite, synced";
const PUT = "ours, PUT /key, SQLite, synced";
const MEMORY_GET = "ours, GET /key, memory";
const MEMORY_POST = "ours, POST /, memory";
const MEMORY_PUT = "ours, PUT /key, memory";
const BARE = "Deno.serve, one short text";
const GET_LIMIT = "Deno.serve, GET /key by hand, SQLite";
const POST_LIMIT = "Deno.serve, POST / by hand, SQLite, synced";
const MEMORY_GET_LIMIT = "Deno.serve, GET /key by hand, memory";
const WEBDIS_GET = "Webdis GET";
const WEBDIS_SET = "Webdis SET, not synced";
const ETCD_GET = "etcd, v2 GET";
const ETCD_PUT = "etcd, v2 PUT, synced";
const ETCD3_GET = "etcd, v3 range";
const ETCD3_PUT = "etcd, v3 put, synced";

/** Reads and writes of small values, a thousand keys in turn. */
export async function keyValues(options: Options): Promise<string> {
  await using servers = new Servers();
  const variants: Variant[] = [];
  const add = (
    name: string,
    kind: Variant["kind"],
    started: Started,
    line: (key: string) => Line,
  ) => variants.push({ name, kind, servers: started, lines: forKeys(line) });

  for (
    const [store, get, post, put] of [
      [await servers.kv(), GET, POST, PUT],
      [await servers.kv(":memory:"), MEMORY_GET, MEMORY_POST, MEMORY_PUT],
    ] as const
  ) {
    add(post, "ours", store, postOf);
    add(put, "ours", store, (key) => write("PUT", `/${key}`, JSON_TYPE, '"value"'));
    add(get, "ours", store, (key) => read(`/${key}`));
  }
  add(BARE, "limit", await servers.limit("deno.js"), (key) => read(`/${key}`));
  const FILE = join(await servers.directory(), "entries.db");
  const byHand = await servers.limit("entry.js", { FILE });
  add(GET_LIMIT, "limit", byHand, (key) => read(`/${key}`));
  add(POST_LIMIT, "limit", byHand, postOf);
  add(MEMORY_GET_LIMIT, "limit", await servers.limit("entry.js"), (key) => read(`/${key}`));

  const webdis = await servers.webdis(await servers.redis());
  add(WEBDIS_SET, "peer", webdis, (key) => read(`/SET/${key}/value`));
  add(WEBDIS_GET, "peer", webdis, (key) => read(`/GET/${key}`));

  const etcd = await servers.etcd();
  add(ETCD_PUT, "peer", etcd, (key) => write("PUT", `/v2/keys/${key}`, FORM_TYPE, "value=value"));
  add(ETCD_GET, "peer", etcd, (key) => read(`/v2/keys/${key}`));
  const v3 = (key: string) => ({ key: btoa(key) });
  add(ETCD3_PUT, "peer", etcd, (key) => {
    const body = JSON.stringify({ ...v3(key), value: btoa("value") });
    return write("POST", "/v3/kv/put", JSON_TYPE, body);
  });
  add(ETCD3_GET, "peer", etcd, (key) => {
    return write("POST", "/v3/kv/range", JSON_TYPE, JSON.stringify(v3(key)));
  });

  for (const { name, servers, lines } of variants) {
    if ([POST, MEMORY_POST, WEBDIS_SET, ETCD_PUT, ETCD3_PUT].includes(name)) {
      await sendEach(servers, lines);
    }
  }
  const results = await takeTurns(variants, options);
  const ratios = ratioTable(results, [
    [GET, GET_LIMIT],
    [GET, WEBDIS_GET],
    [GET, ETCD_GET],
    [MEMORY_GET, MEMORY_GET_LIMIT],
    [POST, POST_LIMIT],
    [POST, ETCD_PUT],
    [POST, WEBDIS_SET],
    [PUT, ETCD_PUT],
    [PUT, WEBDIS_SET],
  ]);
  return `${resultTable(results, "Request")}\n\n${ratios}`;
}

/** Sends each request once, so that every key exists before any is read. */
async function sendEach({ url }: Started, lines: Line[]): Promise<void> {
  for (let i = 0; i < lines.length; i += 50) {
    await Promise.all(
      lines.slice(i, i + 50).map(async ({ method, path, type, body }) => {
        const headers = type ? { "Content-Type": type } : {};
        const response = await fetch(url + path, { method, headers, body: body ?? null });
        await response.body?.cancel();
        if (!response.ok) throw new Error(`${url}${path} answered ${response.status}`);
      }),
    );
  }
}

function forKeys(line: (key: string) => Line): Line[] {
  return Array.from({ length: KEYS }, (_, i) => line(`key${i}`));
}

function postOf(key: string): Line {
  return write("POST", "/", JSON_TYPE, `{"${key}":"value"}`);
}

function read(path: string): Line {
  return { method: "GET", path };
}

function write(method: "POST" | "PUT", path: string, type: string, body: string): Line {
  return { method, path, type, body };
}
