/**
 * Plain data: what JSON holds and gives back as it was.
 *
 * @module
 */
import { MAX_DEPTH } from "../stores/store.ts";

/**
 * Says where a value has something that JSON does not give back as it was, and what it is; null if
 * there is nothing. A member of an object that is undefined may be missing afterwards.
 */
export function problemForJson(value: unknown, path = "", depth = 0): string | null {
  switch (typeof value) {
    case "string":
    case "boolean":
      return null;
    case "number":
      return Number.isFinite(value) ? null : at(path, String(value));
    case "object":
      break;
    default:
      return at(path, typeof value);
  }
  if (value === null) return null;
  if (depth > MAX_DEPTH) return `it is nested over ${MAX_DEPTH} levels deep`;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const problem = problemForJson(value[i], `${path}${path && "."}${i}`, depth + 1);
      if (problem !== null) return problem;
    }
    return null;
  }
  if (!isPlain(value)) return at(path, `a ${value.constructor?.name || "class instance"}`);
  for (const key of Object.keys(value)) {
    const member = (value as Record<string, unknown>)[key];
    if (member === undefined) continue;
    const problem = problemForJson(member, path === "" ? key : `${path}.${key}`, depth + 1);
    if (problem !== null) return problem;
  }
  return null;
}

/** Freezes plain data, so that a change of it in place is an error and not lost. */
export function freeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  if (!Array.isArray(value) && !isPlain(value)) return value;
  Object.freeze(value);
  for (const member of Object.values(value)) freeze(member);
  return value;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function at(path: string, what: string): string {
  return path === "" ? `it is ${what}` : `"${path}" is ${what}`;
}
