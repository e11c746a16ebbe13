// @ts-check
/** Keys, times and numbers as people read them. */

/** A longer key is folded, or shortened in a message, in characters. */
export const SHORT_KEY = 100;

/**
 * A key that nobody takes for another: as JSON, with the characters escaped that cannot be seen or that
 * change the direction of the text.
 *
 * @param {string} key
 */
export function shownKey(key) {
  if (!/^[ "]| $| {2}|(?! )[\p{C}\p{Z}]/u.test(key)) return key;
  return unseenEscaped(JSON.stringify(key));
}

/**
 * JSON text, in which the characters are escaped that cannot be seen or that change the direction of
 * the text. Left as they are: the line breaks between its tokens, and half of a pair, where it is cut.
 *
 * @param {string} json
 */
export function unseenEscaped(json) {
  return json.replace(/(?![ \n\p{Cs}])[\p{C}\p{Z}]/gu, escaped);
}

/** @param {string} unseen */
function escaped(unseen) {
  const units = unseen.split("").map((unit) => unit.charCodeAt(0).toString(16).padStart(4, "0"));
  return `\\u${units.join("\\u")}`;
}

/** A key within a message, where a long one is shortened. @param {string} key */
export function named(key) {
  const shown = shownKey(key);
  const half = SHORT_KEY / 2;
  return shown.length > SHORT_KEY ? `${shown.slice(0, half)}…${shown.slice(-half)}` : shown;
}

/** The units in which a time is given, the longest first, in seconds. */
const UNITS =
  /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]);

const relative = new Intl.RelativeTimeFormat("en", { style: "short" });
const exact = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "long" });

/** @param {number} count */
export function grouped(count) {
  return count.toLocaleString("en");
}

/** @param {number} count */
export function entryCount(count) {
  return count === 1 ? "1 entry" : `${grouped(count)} entries`;
}

/** The last time that a Date holds. Another program of a Redis may have set a later one. */
const LAST_TIME = 8.64e15;

/** @param {number} time In milliseconds since 1970 */
export function dateOf(time) {
  return new Date(Math.min(time, LAST_TIME));
}

/** @param {number} time In milliseconds since 1970 */
export function exactTime(time) {
  return exact.format(dateOf(time));
}

/** A time in its unit: the longest that it has two of. @param {number} milliseconds */
export function inUnit(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  const [unit, length] = UNITS.find(([, length]) => seconds >= 2 * length) ?? ["second", 1];
  return { unit, length, count: Math.round(seconds / length) };
}

/** @param {number} milliseconds From now */
export function timeLeft(milliseconds) {
  const { count, unit } = inUnit(milliseconds);
  return relative.format(count, unit);
}
