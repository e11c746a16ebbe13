// @ts-check
/// <reference lib="dom" />
/** JSON as people read it: in colours, and folded. */
import { grouped, unseenEscaped } from "./texts.js";

/** A string (a name, if a colon follows), a number or a word. A text may end within a string. */
const TOKEN = /("[^"\\]*(?:\\.[^"\\]*)*"?)(\s*:)?|-?\d[\d.eE+-]*|true|false|null/g;
/** A longer text is shown without colours, in characters: its parts would be too many. */
const COLOURED_LENGTH = 10_000;
/** A longer value folds, in characters. */
const SHORT = 80;
/** How much of a folded text is shown, in characters: of the whole value, and of its parts. */
const FOLDED_VALUE = 300;
const FOLDED_PART = 60;
/** How much is shown before what is searched for, in characters. */
const BEFORE_WANTED = 20;
/** A part is unfolded at first up to this length, in characters, and this depth. */
const UNFOLDED_LENGTH = 500;
const UNFOLDED_DEPTH = 4;
/** How many members of a container are shown. */
const MOST_MEMBERS = 1000;

const { isRawJSON } = /** @type {{ isRawJSON?: (value: unknown) => boolean }} */ (JSON);

/** Whether a person has unfolded a part, by its path. @typedef {Map<string, boolean>} Folds */

/**
 * Returns JSON text with its tokens in colours, and what cannot be seen as escapes.
 *
 * @param {string} json
 */
export function coloured(json) {
  const text = unseenEscaped(json);
  const all = document.createDocumentFragment();
  let end = 0;
  for (const match of text.length > COLOURED_LENGTH ? [] : text.matchAll(TOKEN)) {
    const [token, string = token, colon] = match;
    const kind = colon
      ? "name"
      : token[0] === '"'
      ? "string"
      : /\d/.test(token)
      ? "number"
      : "word";
    all.append(text.slice(end, match.index), element("span", kind, string));
    end = match.index + string.length;
  }
  all.append(text.slice(end));
  return all;
}

/**
 * Returns a value. A long one is folded, and unfolds to a line for each member.
 *
 * @param {unknown} value
 * @param {Folds} folds
 * @param {string[]} wanted What the start of a folded value is to show one of, in lower case
 * @param {{ before: string, after: string, path: string, depth: number }} [place] In its container
 * @returns {HTMLElement}
 */
export function tree(value, folds, wanted, place) {
  const { before, after, path, depth } = place ?? { before: "", after: "", path: "", depth: 0 };
  const text = JSON.stringify(value);
  const members = membersOf(value);
  // On a line of their own: a short value, and a member that has no members.
  if (depth === 0 ? text.length <= SHORT : members.length === 0 && text.length <= UNFOLDED_LENGTH) {
    return element("div", "line", coloured(before + text + after));
  }
  const details = document.createElement("details");
  const first = members.length === 0 ? "" : text.slice(0, 1);
  const length = depth === 0 ? FOLDED_VALUE : FOLDED_PART;
  const isCut = text.length > length;
  const at = isCut && wanted.length > 0 ? placeOf(wanted, text) - BEFORE_WANTED : 0;
  const start = Math.max(at, first.length);
  const end = isCut ? Math.max(at, 0) + length : text.length;
  const shown = text.slice(start, end);
  const folded = element("span", "folded", at > 0 ? `… ${unseenEscaped(shown)}` : coloured(shown));
  folded.append(end < text.length ? "…" : after);
  const opening = before + first;
  const line = element("span", opening === "" ? "line folded" : "line", coloured(opening), folded);
  const summary = element("summary", "", line);
  // An unfolded text leaves its size in the line that folds it.
  if (members.length === 0) {
    summary.append(element("small", "", `${grouped(text.length)} characters`));
  } else if (isCut) {
    const size = members.length === 1 ? "1 member" : `${grouped(members.length)} members`;
    summary.append(element("small", "folded", size));
  }
  summary.dataset["path"] = path;
  details.append(summary);

  /** Makes what is inside once it is unfolded. */
  function unfold() {
    if (!details.open || details.childElementCount > 1) return;
    const inside = element("div", "inside");
    // It may scroll, and the keyboard has to reach it.
    if (depth === 0) inside.tabIndex = 0;
    details.append(inside);
    if (members.length === 0) inside.append(coloured(text + after));
    else details.append(element("div", "line", text.slice(-1) + after));
    members.slice(0, MOST_MEMBERS).forEach(([name, member], i) => {
      inside.append(tree(member, folds, wanted, {
        before: Array.isArray(value) ? "" : `${JSON.stringify(name)}: `,
        after: i < members.length - 1 ? "," : "",
        path: `${path}/${name}`,
        depth: depth + 1,
      }));
    });
    const more = members.length - MOST_MEMBERS;
    if (more > 0) inside.append(`… and ${grouped(more)} more, which Copy has`);
  }

  const isUnfolded = depth > 0 && depth <= UNFOLDED_DEPTH && text.length <= UNFOLDED_LENGTH;
  details.open = folds.get(path) ?? isUnfolded;
  unfold();
  summary.addEventListener("click", () => folds.set(path, !details.open));
  details.addEventListener("toggle", unfold);
  return details;
}

/**
 * Where a text has one of others, or -1.
 *
 * @param {string[]} wanted
 * @param {string} text
 */
function placeOf(wanted, text) {
  const lower = text.toLowerCase();
  return Math.max(...wanted.map((it) => lower.indexOf(it)));
}

/** @param {unknown} value */
function membersOf(value) {
  const isContainer = typeof value === "object" && value !== null && !isRawJSON?.(value);
  return isContainer ? Object.entries(value) : [];
}

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(string | Node)} content
 */
export function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}
