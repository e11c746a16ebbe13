// @ts-check
/// <reference lib="dom" />
/** Marks what is searched for, where it is shown. */

/** Older browsers have none. */
const marks = "highlights" in CSS ? new Highlight() : null;
if (marks) CSS.highlights.set("found", marks);

/**
 * Marks a text in place of the one before.
 *
 * @param {Iterable<Element>} elements Each is searched
 * @param {string} text In lower case
 */
export function mark(elements, text) {
  marks?.clear();
  if (marks === null || text === "") return;
  for (const element of elements) {
    const nodes = textsOf(element);
    const all = nodes.map(({ data }) => data).join("").toLowerCase();
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

/** @param {Element} element */
function textsOf(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  /** @type {Text[]} */
  const texts = [];
  while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
  return texts;
}
