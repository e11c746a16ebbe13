/** JSON text: checked once, then kept as text, so that every number keeps its digits. */
import {
  InvalidArgument,
  type JsonText,
  MAX_DEPTH,
  MAX_VALUE_BYTES,
  ValueTooLarge,
} from "../store.ts";

/**
 * Returns the JSON text of a value. A number that {@linkcode parseJson} kept as written stays so.
 *
 * @throws {InvalidArgument} If the value has no JSON text (undefined, a function, a bigint, a cycle),
 * or is nested deeper than {@linkcode MAX_DEPTH}
 * @throws {ValueTooLarge} If the text is over {@linkcode MAX_VALUE_BYTES}
 *
 * @example
 * ```ts
 * import { json, parseJson } from "./text.ts";
 *
 * console.log(json(parseJson('{"price": 1.10}'))); // {"price":1.10}
 * ```
 */
export function json(value: unknown): JsonText {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new InvalidArgument("value", `Cannot store the value: ${(cause as Error).message}`);
  }
  if (text === undefined) {
    throw new InvalidArgument("value", `Cannot store ${typeof value}: expected a JSON value`);
  }
  if (byteLength(text, MAX_VALUE_BYTES) > MAX_VALUE_BYTES) throw new ValueTooLarge();
  if (text.length > 2 * MAX_DEPTH && depthOf(text) > MAX_DEPTH) throw tooDeep();
  return text as JsonText;
}

/** Returns the error of a value that is nested too deep. */
export function tooDeep(): InvalidArgument {
  const message = `Cannot store the value: it is nested deeper than ${MAX_DEPTH} levels`;
  return new InvalidArgument("value", message);
}

/** Returns how deep arrays and objects are nested in JSON text. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let isQuoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (isQuoted && char === "\\") i++;
    else if (char === '"') isQuoted = !isQuoted;
    else if (isQuoted) continue;
    else if (char === "[" || char === "{") deepest = Math.max(deepest, ++depth);
    else if (char === "]" || char === "}") depth--;
  }
  return deepest;
}

/**
 * Parses JSON text and keeps every digit: a number that JavaScript would print in another way
 * (`1.10`, `12345678901234567890`) becomes a `JSON.rawJSON` object, which `JSON.stringify` prints as
 * it was written.
 *
 * @throws {SyntaxError} If the text is not JSON
 * @throws {RangeError} If such a number is inside thousands of nested brackets
 */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  // Parsing with source text is several times slower, and rarely needed.
  return JSON.stringify(value) === text ? value : SourceJson.parse(text, keepDigits);
}

function keepDigits(_key: string, value: unknown, context: { source?: string }): unknown {
  return typeof value === "number" && context.source !== undefined &&
      JSON.stringify(value) !== context.source
    ? SourceJson.rawJSON(context.source)
    : value;
}

/** ECMAScript's "JSON.parse source text access", which TypeScript's library lacks. */
const SourceJson = JSON as unknown as {
  parse(text: string, reviver: typeof keepDigits): unknown;
  rawJSON(text: string): object;
};

const encoder = new TextEncoder();

/** Returns the bytes of UTF-8, or the UTF-16 units if those tell whether the limit is met. */
export function byteLength(text: string, limit: number): number {
  const isClear = text.length * 3 <= limit || text.length > limit;
  return isClear ? text.length : encoder.encode(text).length;
}
