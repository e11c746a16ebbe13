// @ts-check
/// <reference lib="dom" />
/**
 * The explorer page in a browser: lists a page of keys, follows the service's changes, copies, edits
 * and removes. Whatever is stored becomes text, never markup.
 */
import { byId, failed, grouped, part, say } from "./dom.js";
import { openEditor } from "./editor.js";
import { Row } from "./row.js";
import { listKeys, operate, parse, SERVICE } from "./service.js";

const PAGE_SIZE = 50;
/** How often the list is fetched again while keys come and go, in milliseconds. */
const RELOAD_AFTER = 250;
/** How soon a rejected stream is asked for again, in milliseconds. */
const WATCH_AGAIN_AFTER = 2000;

const filter = byId("filter", HTMLInputElement);
const main = byId("explorer");
const live = byId("live");
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
/** @type {EventSource | undefined} */
let source;

const rowEvents = {
  /** @param {Row} row */
  removed(row) {
    rows.delete(row.key);
    reloadSoon();
  },
  edit: openEditor,
};

function thisPage() {
  return pages.at(-1) ?? { after: "", before: 0 };
}

/** Fetches this page's keys, and their values. */
async function load() {
  const load = ++loads;
  const { after } = thisPage();
  const query = { prefix: filter.value, limit: String(PAGE_SIZE), ...after !== "" && { after } };
  const page = await listKeys(query);
  const found = await operate(page.keys.map((key) => JSON.stringify({ op: "get", key })));
  if (load !== loads) return;

  const shown = page.keys.flatMap((key, i) => {
    const contents = found[i];
    const row = rows.get(key) ?? new Row(key, rowEvents);
    // A change that has come since this load began is newer.
    if (row.changedIn === load) return [row];
    if (contents === undefined || contents.revision === null) return [];
    if (row.contents.revision !== contents.revision) row.show(contents);
    return [row];
  });
  place(shown);
  nextCursor = page.next;
  showPosition(shown.length, page.total);
}

/** @param {Row[]} shown */
function place(shown) {
  const focused = document.activeElement;
  for (const row of rows.values()) if (!shown.includes(row)) row.element.remove();
  rows.clear();
  shown.forEach((row, i) => {
    rows.set(row.key, row);
    // What is in its place is not touched: it may be selected, or just be clicked.
    const other = list.children[i];
    if (other !== row.element) list.insertBefore(row.element, other ?? null);
  });
  if (focused instanceof HTMLElement && focused.isConnected) focused.focus();
}

/**
 * @param {number} count How many entries this page shows
 * @param {number | null} counted How many the store has, where it can count them
 */
function showPosition(count, counted) {
  const { before } = thisPage();
  const isOnly = pages.length === 1 && nextCursor === null;
  // On the last page the total is known in any case.
  const total = nextCursor === null ? before + count : counted;
  const range = count === 0 ? "0" : `${grouped(before + 1)}–${grouped(before + count)}`;
  const focused = document.activeElement;
  for (const { nav, previous, next, range: text } of navs) {
    nav.hidden = isOnly && (count === 0 || nav !== navs[0]?.nav);
    previous.hidden = next.hidden = isOnly;
    previous.disabled = pages.length === 1;
    next.disabled = nextCursor === null;
    // A disabled button loses the focus.
    if (focused === next && next.disabled) previous.focus();
    if (focused === previous && previous.disabled) next.focus();
    text.textContent = isOnly
      ? count === 1 ? "1 entry" : `${count} entries`
      : total === null
      ? range
      : `${range} of ${grouped(total)}`;
  }
  // A page may be empty where others are not.
  const isEmpty = isOnly && count === 0;
  main.classList.toggle("empty", isEmpty);
  empty.hidden = !isEmpty || filter.value !== "";
  nothingFound.hidden = !isEmpty || filter.value === "";
}

/** Fetches the list once for all changes within {@linkcode RELOAD_AFTER}, and never twice at a time. */
async function reloadSoon() {
  outdated = true;
  if (reloading) return;
  reloading = true;
  while (outdated) {
    await new Promise((resolve) => setTimeout(resolve, RELOAD_AFTER));
    outdated = false;
    await load().catch(failed);
  }
  reloading = false;
}

/** Follows the changes under the prefix. The list is fetched when the service is ready. */
function watch() {
  source?.close();
  // A browser has six connections to a service, and each page that watches keeps one.
  if (document.hidden) return;
  const opened = new EventSource(`${SERVICE}?${new URLSearchParams({ prefix: filter.value })}`);
  source = opened;
  opened.addEventListener("ready", () => {
    live.textContent = "Live";
    live.className = "on";
    main.classList.remove("lost");
    load().catch(failed);
  });
  opened.addEventListener("message", ({ data }) => {
    const { key, ...contents } = parse(data);
    const row = rows.get(key);
    if (contents.revision === null) row?.remove();
    else if (row) {
      row.changedIn = loads;
      row.show(contents);
    } else reloadSoon();
  });
  opened.addEventListener("error", () => {
    if (!main.classList.contains("lost")) {
      live.textContent = `Not connected since ${new Date().toLocaleTimeString("en")}, trying again`;
    }
    live.className = "";
    main.classList.add("lost");
    // Otherwise the browser tries again.
    if (opened.readyState !== EventSource.CLOSED) return;
    setTimeout(() => opened === source && watch(), WATCH_AGAIN_AFTER);
  });
}

/** Shows what is under the prefix, which the address keeps for a reload. */
function applyFilter() {
  const address = new URL(location.href);
  if (filter.value === "") address.searchParams.delete("prefix");
  else address.searchParams.set("prefix", filter.value);
  history.replaceState(null, "", address);
  pages = [{ after: "", before: 0 }];
  watch();
}

async function turnPage() {
  await load();
  say(navs[0]?.range.textContent ?? "", "spoken");
}

for (const { previous, next } of navs) {
  previous.addEventListener("click", () => {
    if (pages.length > 1) pages.pop();
    turnPage().catch(failed);
  });
  next.addEventListener("click", () => {
    if (nextCursor !== null) {
      pages.push({ after: nextCursor, before: thisPage().before + rows.size });
    }
    // A second click may come before the next page and its cursor.
    nextCursor = null;
    turnPage().catch(failed);
  });
}
filter.value = new URL(location.href).searchParams.get("prefix") ?? "";
filter.addEventListener("input", applyFilter);
byId("clear-filter", HTMLButtonElement).addEventListener("click", () => {
  filter.value = "";
  applyFilter();
  filter.focus();
});
for (const add of document.querySelectorAll("button.add")) {
  add.addEventListener("click", () => openEditor());
}
const http = location.protocol === "https:" ? "https" : "http";
const { host, pathname } = new URL(SERVICE);
byId("command").textContent = `${http} ${host}${pathname === "/" ? "" : pathname} foo=bar`;
document.addEventListener("visibilitychange", watch);
setInterval(() => rows.forEach((row) => row.tick()), 1000);
watch();
