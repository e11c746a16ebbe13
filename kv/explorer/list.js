// @ts-check
/// <reference lib="dom" />
/** The list: a page of the keys under a prefix, or of those that a search has found, as they change. */
import { byId, explorer, failed, focusRow, part, say, unsay } from "./dom.js";
import { mark } from "./marks.js";
import { Row } from "./row.js";
import { Search } from "./search.js";
import { listKeys, operate } from "./service.js";
import { entryCount, grouped, named } from "./texts.js";

const PAGE_SIZE = 50;
/** How often the list is fetched again while keys come and go, in milliseconds. */
const RELOAD_AFTER = 250;
/** How soon what could not be fetched is fetched again, in milliseconds. */
const AGAIN_AFTER = 4000;

const list = byId("entries");
const empty = byId("empty");
const nothingFound = byId("nothing-found");
/** Above and below the list. */
const navs = [...document.querySelectorAll("nav")].map((nav) => ({
  nav,
  previous: part(nav, ".previous", HTMLButtonElement),
  next: part(nav, ".next", HTMLButtonElement),
  range: part(nav, ".range"),
}));

/** What is asked for. A key may have a line break, which no input holds: it is not read from there. */
export const query = { prefix: "", contains: "" };

/** The rows of this page, by their keys. @type {Map<string, Row>} */
const rows = new Map();
/** The cursors of the pages up to this one, and how many entries come before each. */
let pages = [{ after: "", before: 0 }];
/** The cursor of the next page. @type {string | null} */
let nextCursor = null;
/** How many fetches of the list have begun: only the answer to the last one is shown. */
let loads = 0;
let reloading = false;
/** Whether the list has changed since its last fetch began. */
let outdated = false;
let marking = false;
let loadFailure = "";
/** @type {ReturnType<typeof setTimeout> | undefined} */
let again;
/** What the list has last begun to show, as JSON. At first all, which is not spoken. */
let begun = JSON.stringify(query);
/** Whether a screen reader is to be told how many entries there are. */
let toSpeak = false;
/** The search that the list shows. @type {Search | null} */
let search = null;

/** @param {Row} row */
function removed(row) {
  rows.delete(row.key);
  reloadSoon();
}

/** What the rows are searched for, in lower case. @returns {string[]} */
function wantedTexts() {
  return search?.wanted ?? [];
}

function thisPage() {
  return pages.at(-1) ?? { after: "", before: 0 };
}

export function goToFirstPage() {
  pages = [{ after: "", before: 0 }];
}

/** Begins to list what is asked for. From then on, {@linkcode received} is told of every change. */
export function begin() {
  loads++;
  const asked = JSON.stringify(query);
  if (asked !== begun) toSpeak = true;
  begun = asked;
  search?.stop();
  search = query.contains === "" ? null : new Search(query.prefix, query.contains);
  if (search === null) {
    refresh();
    return;
  }
  const begunSearch = search;
  place([...rows.values()].filter(({ key, contents }) => {
    return key.startsWith(query.prefix) && search?.matches(key, contents.value);
  }));
  showPosition(rows.size, null);
  search.run(progress).catch((error) => {
    if (begunSearch !== search) return;
    failed(error);
    setTimeout(() => begunSearch === search && begin(), AGAIN_AFTER);
  });
}

/** @param {Search} of */
function progress(of) {
  if (of !== search) return;
  if (rows.size < PAGE_SIZE || of.isOver) reloadSoon();
  else showPosition(rows.size, null);
}

/** Shows a change of an entry. @param {import("./service.js").Contents & { key: string }} change */
export function received({ key, ...contents }) {
  const row = rows.get(key);
  if (contents.revision === null || search?.matches(key, contents.value) === false) {
    const wasListed = search?.found.delete(key) ?? true;
    if (row) row.remove();
    else if (wasListed) reloadSoon(); // another page has one less
  } else if (row) {
    row.changedIn = loads;
    row.show(contents, wantedTexts());
    markSoon();
  } else {
    search?.found.add(key);
    reloadSoon();
  }
}

/** A page of keys. What a search has found is turned by the number of the first key. */
async function keysOfPage() {
  const { after } = thisPage();
  if (search === null) {
    const limit = String(PAGE_SIZE);
    return await listKeys({ prefix: query.prefix, limit, ...after !== "" && { after } });
  }
  const end = Number(after) + PAGE_SIZE;
  const next = end < search.found.size ? String(end) : null;
  return { keys: [...search.found].slice(Number(after), end), next, total: null };
}

/** Fetches this page's keys, and their values. */
async function load() {
  const number = ++loads;
  const page = await keysOfPage();
  const found = await operate(page.keys.map((key) => JSON.stringify({ op: "get", key })));
  if (number !== loads) return;
  // Nothing is left of the last page. A search may yet come to it.
  if (page.keys.length === 0 && pages.length > 1 && search?.isOver !== false) {
    pages.pop();
    return await load();
  }

  let failure = "";
  const shown = page.keys.flatMap((key, i) => {
    const contents = found[i];
    const row = rows.get(key) ?? new Row(key, removed);
    // A change that has come since this load began is newer.
    if (row.changedIn === number) return [row];
    if (contents === undefined || contents.revision === null) return [];
    if (contents.status >= 400) {
      failure = `Cannot read ${named(key)}: ${contents.detail}`;
      return [];
    }
    if (search?.matches(key, contents.value) === false) return [];
    row.show(contents, wantedTexts());
    return [row];
  });
  place(shown);
  nextCursor = page.next;
  if (page.total !== null) correctPosition(page.keys.length, page.total);
  showPosition(shown.length, page.total);
  if (failure) throw new Error(failure);
}

/** Fetches this page, and says why it cannot be fetched for as long as that is so. */
async function refresh() {
  try {
    await load();
    unsay(loadFailure);
  } catch (error) {
    failed(error);
    loadFailure = error instanceof Error ? error.message : String(error);
    clearTimeout(again);
    again = setTimeout(reloadSoon, AGAIN_AFTER);
  }
}

/** @param {Row[]} shown */
function place(shown) {
  const focused = document.activeElement;
  const focusedRow = focused?.closest("tr");
  const place = focusedRow?.sectionRowIndex ?? 0;
  for (const row of rows.values()) if (!shown.includes(row)) row.element.remove();
  rows.clear();
  shown.forEach((row, i) => {
    rows.set(row.key, row);
    // What is in its place is not touched: it may be selected, or just be clicked.
    const other = list.children[i];
    if (other !== row.element) list.insertBefore(row.element, other ?? null);
  });
  if (focusedRow?.isConnected === false) focusRow(place);
  else if (focused instanceof HTMLElement) focused.focus();
  markSoon();
}

/** Marks what is searched for, once for all that changes until the next frame. */
function markSoon() {
  if (marking) return;
  marking = true;
  requestAnimationFrame(() => {
    marking = false;
    mark(list.querySelectorAll(".key, .value"), wantedTexts());
  });
}

/**
 * Corrects how many entries come before this page, since some of them may have come or gone. On the
 * last page that is certain; after any other comes at least one more.
 *
 * @param {number} count How many keys this page has
 * @param {number} total
 */
function correctPosition(count, total) {
  const page = thisPage();
  if (pages.length === 1) return;
  if (nextCursor === null) page.before = Math.max(0, total - count);
  else page.before = Math.min(page.before, Math.max(0, total - count - 1));
}

/**
 * @param {number} count How many entries this page shows
 * @param {number | null} counted How many the store has, where it can count them
 */
function showPosition(count, counted) {
  const { before } = thisPage();
  const isOnly = pages.length === 1 && nextCursor === null;
  // On the last page it is known in any case.
  const total = search?.found.size ?? counted ?? (nextCursor === null ? before + count : null);
  const first = count === 0 ? "0" : `${grouped(before + 1)}–${grouped(before + count)}`;
  const range = total === null ? first : `${first} of ${grouped(total)}`;
  const position = isOnly ? entryCount(count) : range;
  const focused = document.activeElement;
  for (const { nav, previous, next, range: text } of navs) {
    nav.hidden = isOnly && nav !== navs[0]?.nav;
    previous.hidden = next.hidden = isOnly;
    previous.disabled = pages.length === 1;
    next.disabled = nextCursor === null;
    // A button that is disabled or hidden loses the focus.
    if (focused === next && next.disabled) previous.focus();
    if (focused === previous && previous.disabled) next.focus();
    if (isOnly && (focused === next || focused === previous)) byId("prefix").focus();
    text.textContent = search === null ? position : `${position} ${search.progress}`;
  }
  // A page may be empty where others are not.
  const isEmpty = isOnly && count === 0 && search?.isOver !== false;
  const isAsked = query.prefix !== "" || query.contains !== "";
  explorer.classList.toggle("empty", isEmpty);
  empty.hidden = !isEmpty || isAsked;
  nothingFound.hidden = !isEmpty || !isAsked;
  if (toSpeak && search?.isOver !== false) speak();
}

/** Tells a screen reader what the page has found. */
function speak() {
  toSpeak = false;
  const shown = nothingFound.hidden ? navs[0]?.range : nothingFound;
  say(shown?.textContent ?? "", "spoken");
}

/** Fetches the list once for all changes within {@linkcode RELOAD_AFTER}, and never twice at a time. */
async function reloadSoon() {
  outdated = true;
  if (reloading) return;
  reloading = true;
  while (outdated) {
    await new Promise((resolve) => setTimeout(resolve, RELOAD_AFTER));
    outdated = false;
    await refresh();
  }
  reloading = false;
}

/** @param {"previous" | "next"} way */
export async function turnPage(way) {
  if (way === "previous" && pages.length > 1) pages.pop();
  if (way === "next" && nextCursor !== null) {
    const before = search ? Number(nextCursor) : thisPage().before + rows.size;
    pages.push({ after: nextCursor, before });
  }
  // A second click may come before the next page and its cursor.
  nextCursor = null;
  toSpeak = true;
  await refresh();
}

for (const { previous, next } of navs) {
  previous.addEventListener("click", () => turnPage("previous").catch(failed));
  next.addEventListener("click", () => turnPage("next").catch(failed));
}
list.addEventListener("toggle", markSoon, true);
setInterval(() => rows.forEach((row) => row.tick()), 1000);
