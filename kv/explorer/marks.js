// @ts-check
/// <reference lib="dom" />
/** Marks what is searched for, where it is shown. */

/** Older browsers have none. */
const marks = "highlights" in CSS ? new Highlight() : null;
if (marks) CSS.highlights.set("found", marks);

/**
 * Marks texts in place of those before.
 *
 * @param {Iterable<Element>} elements Each is searched
 * @param {string[]} wanted In lower case, none of them empty
 */
export function mark(elements, wanted) {
  marks?.clear();
  if (marks === null || wanted.length === 0) return;
  for (const element of elements) {
    const nodes = textsOf(element);
    const all = lowerCase(nodes.map(({ data }) => data).join(""));
    for (const text of wanted) {
      let node = 0;
      let start = 0;
      /** @param {number} at Not before the last one @returns {[Text, number]} */
      const place = (at) => {
        while (at - start > (nodes[node]?.length ?? Infinity)) start += nodes[node++]?.length ?? 0;
        return [/** @type {Text} */ (nodes[node]), at - start];
      };
      for (let at = all.indexOf(text); at >= 0; at = all.indexOf(text, at + text.length)) {
        const range = document.createRange();
        range.setStart(...place(at));
        range.setEnd(...place(at + text.length));
        marks.add(range);
      }
    }
  }
}

/**
 * In lower case, with each character where it was: "İ" becomes two, and so stays.
 *
 * @param {string} text
 */
function lowerCase(text) {
  const lower = text.toLowerCase();
  if (lower.length === text.length) return lower;
  return text.replace(/./gsu, (it) => it.toLowerCase().length > it.length ? it : it.toLowerCase());
}

/** @param {Element} element */
function textsOf(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  /** @type {Text[]} */
  const texts = [];
  while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
  return texts;
}
