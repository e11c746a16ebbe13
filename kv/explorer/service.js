// @ts-check
/// <reference lib="dom" />
/** Calls to the service that this page belongs to. */

/** @typedef {{ value: unknown, revision: string | null, expires: number | null }} Contents */
/** @typedef {Contents & { status: number, detail?: string }} Answer An operation's */

/**
 * The address of this page, so that it works under a path prefix; without the name and the token that
 * it may have, which `fetch` refuses.
 */
export const SERVICE = location.origin + location.pathname.replace(/\/?$/, "/");

const NDJSON = "application/x-ndjson";
/** The most keys that the service lists at once. */
const MOST_LISTED = "1000";
/** Where a number may be rounded, or lose a zero at its end. */
const LOSES_DIGITS = /\d[.eE]|\d{16}|-0/;

/** How far the service's clock is ahead of this browser's, in milliseconds. */
let ahead = 0;

/** The service's time, in milliseconds since 1970. */
export function now() {
  return Date.now() + ahead;
}

const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
/** Older browsers round long numbers: there, a value that is edited could change unseen. */
export const KEEPS_DIGITS = rawJSON !== undefined;

/** Reads JSON and keeps every digit of its numbers, where the browser can. @param {string} text */
export function parse(text) {
  /** @type {(key: string, value: unknown, context?: { source?: string }) => unknown} */
  const keepDigits = (_, value, context) =>
    typeof value === "number" && context?.source && String(value) !== context.source && rawJSON
      ? rawJSON(context.source)
      : value;
  return LOSES_DIGITS.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
}

/** @param {unknown} cause @returns {never} */
function unreachable(cause) {
  throw new Error("The service cannot be reached", { cause });
}

/**
 * @param {string} query
 * @param {RequestInit & { accept?: string }} [init]
 */
async function send(query, { accept = "application/json", headers, ...init } = {}) {
  const request = { ...init, headers: { Accept: accept, ...headers } };
  const sent = Date.now();
  const response = await fetch(SERVICE + query, request).catch(unreachable);
  const date = Date.parse(response.headers.get("Date") ?? "");
  // It has whole seconds, and Deno's is up to a second late: a clock that is within both may be exact.
  const isWithin = sent < date + 2000 && date <= Date.now();
  ahead = isWithin ? 0 : date - Date.now() || 0;
  const type = response.headers.get("Content-Type") ?? "";
  if (response.ok && type.startsWith(accept)) return response;
  // A browser asks for another only where a page is loaded.
  if (response.status === 401) throw new Error("The token has changed: load the page again");
  // A proxy in between has error pages of its own.
  const { detail } = /\bjson\b/.test(type) ? await response.json() : {};
  throw new Error(detail ?? `The service answered with status ${response.status}`);
}

/**
 * @param {string} query
 * @param {RequestInit} [init]
 */
async function call(query, init) {
  const response = await send(query, init);
  return { answer: parse(await response.text().catch(unreachable)), headers: response.headers };
}

/**
 * A page of keys; `total` is how many there are in the store, where it can count them.
 *
 * @param {{ prefix: string, limit: string, after?: string }} query
 * @returns {Promise<{ keys: string[], next: string | null, total: number | null }>}
 */
export async function listKeys(query) {
  const { answer, headers } = await call(`?${new URLSearchParams(query)}`);
  const total = headers.get("X-Total-Count");
  return { ...answer, total: total === null ? null : Number(total) };
}

/** @param {string} prefix */
export async function countKeys(prefix) {
  let count = 0;
  let after = "";
  for (;;) {
    const page = await listKeys({ prefix, limit: MOST_LISTED, ...after !== "" && { after } });
    if (page.total !== null) return page.total;
    count += page.keys.length;
    if (page.next === null) return count;
    after = page.next;
  }
}

/**
 * Removes every key under a prefix, and returns how many there were.
 *
 * @param {string} prefix
 * @returns {Promise<number>}
 */
export async function removeKeys(prefix) {
  const query = new URLSearchParams({ prefix, ...prefix === "" && { all: "" } });
  const { answer } = await call(`?${query}`, { method: "DELETE" });
  return answer.deleted;
}

/**
 * Every entry under a prefix, one `{"key": value}` a line.
 *
 * @param {string} prefix
 * @param {AbortSignal} [signal]
 */
export function dump(prefix, signal) {
  const query = new URLSearchParams({ prefix });
  return send(`?${query}`, { accept: NDJSON, ...signal && { signal } });
}

/**
 * Writes the entries of lines, and returns how many there were, and how many had expired.
 *
 * @param {Blob} lines
 * @returns {Promise<{ restored: number, expired?: number }>}
 */
export async function restore(lines) {
  const headers = { "Content-Type": NDJSON };
  return (await call("", { method: "POST", headers, body: lines })).answer;
}

/**
 * Does operations, each given as JSON text. A key in a body reaches the service as it is, where a
 * proxy may rewrite one in a path (`a//b`).
 *
 * @param {string[]} operations
 * @returns {Promise<Answer[]>}
 */
export async function operate(operations) {
  if (operations.length === 0) return [];
  const { answer } = await call("", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: `[${operations.join()}]`,
  });
  return answer;
}

/**
 * Writes or removes one entry, if it still has the revision that was seen.
 *
 * @param {string} operation As JSON text
 * @returns {Promise<Contents | null>} What is there instead, if it has another revision
 */
export async function change(operation) {
  const [answer] = await operate([operation]);
  if (answer?.status === 412) return answer;
  if (answer === undefined || answer.status >= 400) {
    throw new Error(answer?.detail ?? "The service gave no answer");
  }
  return null;
}
