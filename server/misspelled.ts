/** Finds the setting that a misspelled name means. */
import { closestString } from "@std/text/closest-string";
import { levenshteinDistance } from "@std/text/levenshtein-distance";

/** Shorter names, such as LOG and HOST, are too close to other programs' variables. */
const MIN_LENGTH = 5;

/** Returns the setting that a name differs from in one or two letters, or in its case. */
export function meant(name: string, settings: string[]): string | undefined {
  if (settings.includes(name)) return undefined;
  const setting = closestString(name, settings.filter((it) => it.length >= MIN_LENGTH));
  const distance = levenshteinDistance(name.toUpperCase(), setting);
  return distance > (setting.length < 10 ? 1 : 2) ? undefined : setting;
}
