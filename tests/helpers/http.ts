/** Servers in this process, and requests to a running one as tests make them around what they check. */
import { assert } from "@std/assert";

/** A session id, as the source of a regular expression. */
export const UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

const JSON_TYPE = { "Content-Type": "application/json" };

/** Serves on a free port of loopback until the end of the scope. */
export function serve(handler: Deno.ServeHandler<Deno.NetAddr>) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, handler);
  return Object.assign(server, { url: `http://127.0.0.1:${server.addr.port}` });
}

/** Returns the text of a successful response. */
export async function get(url: string, headers: Record<string, string> = {}): Promise<string> {
  return await send(url, { headers });
}

export async function put(url: string, json: string): Promise<void> {
  await send(url, { method: "PUT", body: json, headers: JSON_TYPE });
}

export async function post(url: string, json: string): Promise<void> {
  await send(url, { method: "POST", body: json, headers: JSON_TYPE });
}

export async function remove(url: string): Promise<void> {
  await send(url, { method: "DELETE" });
}

/** Returns the session cookie of a first visit, as a browser sends it back. */
export async function cookieOf(url: string): Promise<string> {
  const response = await fetch(url);
  await response.body?.cancel();
  return response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
}

async function send(url: string, init: RequestInit): Promise<string> {
  const response = await fetch(url, init);
  const text = await response.text();
  assert(response.ok, text);
  return text;
}
