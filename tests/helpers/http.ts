/** Requests to a running service, as tests make them around what they check. */
import { assert } from "@std/assert";

const JSON_TYPE = { "Content-Type": "application/json" };

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
