/** Requests to a running service, as tests make them around what they check. */
import { assert } from "@std/assert";

const JSON_TYPE = { "Content-Type": "application/json" };

/** Returns the answer's text. */
export async function get(url: string): Promise<string> {
  return await (await fetch(url)).text();
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

async function send(url: string, init: RequestInit): Promise<void> {
  const response = await fetch(url, init);
  const text = await response.text();
  assert(response.ok, text);
}
