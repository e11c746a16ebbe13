// @ts-check
/** Keys as people read them, and the characters that people cannot. */

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

/**
 * A key within a message, where a long one is shortened.
 *
 * @param {string} key
 */
export function named(key) {
  const shown = shownKey(key);
  const half = SHORT_KEY / 2;
  return shown.length > SHORT_KEY ? `${shown.slice(0, half)}…${shown.slice(-half)}` : shown;
}
