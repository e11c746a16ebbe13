/**
 * Environment variables that look like a setting with a slip in its name.
 *
 * @module
 */
import { closestString } from "@std/text/closest-string";
import { levenshteinDistance } from "@std/text/levenshtein-distance";
import { SETTINGS } from "./config.ts";

/** Names below this length are too close to those of other programs' variables: LOG, HOST. */
const MIN_LENGTH = 5;

/**
 * Returns a sentence for each variable whose name differs from a setting's in one or two letters.
 *
 * @example
 * ```ts
 * import { misspelled } from "./misspelled.ts";
 *
 * console.log(misspelled(["USE_SESSION_STOR"])[0]);
 * // The environment variable USE_SESSION_STOR has no effect: did you mean USE_SESSION_STORE?
 * ```
 */
export function misspelled(variables: string[]): string[] {
  const settings = SETTINGS.filter((name) => name.length >= MIN_LENGTH);
  return variables.filter((name) => !SETTINGS.includes(name)).flatMap((name) => {
    const setting = closestString(name, settings);
    const distance = levenshteinDistance(name.toUpperCase(), setting);
    if (distance > (setting.length < 10 ? 1 : 2)) return [];
    return `The environment variable ${name} has no effect: did you mean ${setting}?`;
  });
}
