// @ts-check
/// <reference lib="dom" />
/** Calls to the service that this page belongs to. */

/** @typedef {{ value: unknown, revision: string | null, expires: number | null }} Contents */
/** @typedef {Contents & { status: number, detail?: string }} Answer An operation's */

/**
 * The folder of this page, so that it works under a proxy's path prefix; without the name and the
 * token that its address may have, which `fetch` refuses.
 */
export const SERVICE = location.origin + new URL(".", location.href).pathname;

/** How far the service's clock is ahead of this browser's, in milliseconds. */
let ahead = 0;

/** The service's time, in milliseconds since 1970. */
export function now() {
  return Date.now() + ahead;
}

const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
/** Older browsers round long numbers: there, a value that is edited could change unseen. */
export const KEEPS_DIGITS = rawJSON !== undefined;

/**
 * Reads JSON and keeps every digit of its numbers, where the browser can.
 *
 * @param {string} text
 */
export function parse(text) {
  /** @type {(key: string, value: unknown, context?: { source?: string }) => unknown} */
  const keepDigits = (_, value, context) =>
    typeof value === "number" && context?.source && String(value) !== context.source && rawJSON
      ? rawJSON(context.source)
      : value;
  return JSON.parse(text, keepDigits);
}

/**
 * @param {string} query
 * @param {RequestInit} [init]
 */
async function call(query, init) {
  const response = await fetch(SERVICE + query, {
    ...init,
    headers: { Accept: "application/json", ...init?.headers },
  }).catch((cause) => {
    throw new Error("The service cannot be reached", { cause });
  });
  ahead = Date.parse(response.headers.get("Date") ?? "") - Date.now() || 0;
  const text = await response.text();
  const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
  const answer = isJson ? parse(text) : {};
  // A proxy in between has error pages of its own.
  if (!response.ok || !isJson) {
    throw new Error(answer.detail ?? `The service answered with status ${response.status}`);
  }
  return { answer, headers: response.headers };
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
