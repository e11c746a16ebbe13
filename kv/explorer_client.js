// @ts-check
/// <reference lib="dom" />
/**
 * What the explorer page does in a browser: it lists a page of keys, follows the service's changes,
 * copies and removes. Whatever is stored becomes text, never markup.
 */

/** @typedef {{ value: unknown, revision: string | null, expires: number | null }} Contents */

/** Without the name and the token that the page's address may have: `fetch` refuses these. */
const SERVICE = location.origin;
const PAGE_SIZE = 50;
/** The longest text of a value that is shown; the button copies all of it. */
const SHOWN_LENGTH = 300;
/** How often the list is fetched anew while keys come and go, in milliseconds. */
const RELOAD_AFTER = 250;
/** How soon a stream that the service has refused is asked for again, in milliseconds. */
const WATCH_AGAIN_AFTER = 2000;

const filter = byId("filter", HTMLInputElement);
const status = byId("status", HTMLElement);
const live = byId("live", HTMLElement);
const list = byId("entries", HTMLElement);
const template = byId("entry", HTMLTemplateElement);
const empty = byId("empty", HTMLElement);
const previous = byId("previous", HTMLButtonElement);
const next = byId("next", HTMLButtonElement);
const pageNumber = byId("page", HTMLElement);

/** The rows of this page, by their keys. @type {Map<string, Row>} */
const rows = new Map();
/** The cursors of the pages up to this one. */
let cursors = [""];
/** The cursor of the next page. @type {string | null} */
let nextCursor = null;
/** How often the list was begun to be fetched: an answer to an earlier time is too late. */
let loads = 0;
let reloading = false;
/** Whether the list has changed since it was last begun to be fetched. */
let outdated = false;
/** How far the service's clock is ahead of this browser's, in milliseconds. */
let ahead = 0;
/** @type {EventSource | undefined} */
let source;

class Row {
  /** @type {Contents} */
  contents = { value: null, revision: null, expires: null };
  /** The load that was the last one when the service told of a change. */
  toldIn = 0;

  /** @param {string} key */
  constructor(key) {
    this.key = key;
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.element = part(copy, "tr");
    this.value = part(copy, ".value");
    this.expires = part(copy, ".expires");
    part(copy, ".key").textContent = key;
    for (
      const [name, act] of /** @type {const} */ ([["copy", this.copy], ["delete", this.delete]])
    ) {
      const button = part(copy, `.${name}`);
      button.setAttribute("aria-label", `${button.textContent} ${key}`);
      button.addEventListener("click", () => act.call(this).catch(failed));
    }
  }

  /** @param {Contents} contents */
  show(contents) {
    this.contents = contents;
    const text = JSON.stringify(contents.value);
    const rest = text.length - SHOWN_LENGTH;
    this.value.textContent = rest > 0 ? `${text.slice(0, SHOWN_LENGTH)}… (${rest} more)` : text;
    this.tick();
  }

  /** Shows the time that is left, and removes the row when there is none. */
  tick() {
    const { expires } = this.contents;
    if (expires !== null && expires <= Date.now() + ahead) return this.remove();
    this.expires.textContent = expires === null ? "never" : timeUntil(expires);
  }

  /** Takes the row away. If it has the focus, that goes to the row beside it. */
  remove() {
    const beside = this.element.nextElementSibling ?? this.element.previousElementSibling;
    const focus = beside?.querySelector(".delete") ?? filter;
    const hasFocus = this.element.contains(document.activeElement);
    rows.delete(this.key);
    this.element.remove();
    if (hasFocus && focus instanceof HTMLElement) focus.focus();
    reloadSoon();
  }

  async copy() {
    if (!navigator.clipboard) {
      throw new Error("Cannot copy: a browser does only on https or localhost");
    }
    await navigator.clipboard.writeText(JSON.stringify(this.contents.value));
    status.textContent = `Copied the value of ${this.key}`;
  }

  async delete() {
    if (!confirm(`Delete ${this.key}?`)) return;
    const headers = { "If-Match": `"${this.contents.revision}"` };
    await call(`/${encodeURIComponent(this.key)}`, { method: "DELETE", headers });
    status.textContent = `Deleted ${this.key}`;
  }
}

/** Fetches this page's keys, and what they hold. */
async function load() {
  const load = ++loads;
  const after = cursors.at(-1) ?? "";
  const query = new URLSearchParams({ prefix: filter.value, limit: String(PAGE_SIZE) });
  if (after !== "") query.set("after", after);
  const page = await call(`/?${query}`);
  /** @type {string[]} */
  const keys = page.keys;
  /** @type {Contents[]} */
  const found = keys.length === 0 ? [] : await call("/", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(keys.map((key) => ({ op: "get", key }))),
  });
  if (load !== loads) return;

  const shown = keys.flatMap((key, i) => {
    const contents = found[i];
    const row = rows.get(key) ?? new Row(key);
    // What was told since this load began is newer.
    if (row.toldIn === load) return [row];
    if (contents === undefined || contents.revision === null) return [];
    if (row.contents.revision !== contents.revision) row.show(contents);
    return [row];
  });
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

  nextCursor = page.next;
  next.disabled = nextCursor === null;
  previous.disabled = cursors.length === 1;
  pageNumber.textContent = `Page ${cursors.length}`;
  // A page may be empty where others are not.
  empty.hidden = shown.length > 0 || cursors.length > 1 || nextCursor !== null;
}

/** Fetches the list once for all changes of a moment, and not before it has come. */
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

/** Begins to watch what is under the prefix. The list is fetched when the service is ready. */
function watch() {
  source?.close();
  // A browser has six connections to a service, and each page that watches keeps one.
  if (document.hidden) return;
  const opened = new EventSource(`${SERVICE}/?${new URLSearchParams({ prefix: filter.value })}`);
  source = opened;
  opened.addEventListener("ready", () => {
    live.textContent = "Live";
    live.className = "on";
    load().catch(failed);
  });
  opened.addEventListener("message", ({ data }) => {
    const { key, ...contents } = parse(data);
    const row = rows.get(key);
    if (contents.revision === null) row?.remove();
    else if (row) {
      row.toldIn = loads;
      row.show(contents);
    } else reloadSoon();
  });
  opened.addEventListener("error", () => {
    live.textContent = "Not connected: trying again";
    live.className = "";
    // Otherwise the browser tries again.
    if (opened.readyState !== EventSource.CLOSED) return;
    setTimeout(() => opened === source && watch(), WATCH_AGAIN_AFTER);
  });
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 */
async function call(path, init) {
  const response = await fetch(`${SERVICE}${path}`, {
    ...init,
    headers: { Accept: "application/json", ...init?.headers },
  });
  ahead = Date.parse(response.headers.get("Date") ?? "") - Date.now() || 0;
  const answer = parse(await response.text());
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

/**
 * Reads JSON and keeps every digit of its numbers, where the browser can.
 *
 * @param {string} text
 */
function parse(text) {
  const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
  /** @type {(key: string, value: unknown, context?: { source?: string }) => unknown} */
  const keepDigits = (_, value, context) =>
    typeof value === "number" && context?.source && String(value) !== context.source && rawJSON
      ? rawJSON(context.source)
      : value;
  return JSON.parse(text, keepDigits);
}

/** @param {unknown} error */
function failed(error) {
  status.textContent = error instanceof Error ? error.message : String(error);
}

/** @param {number} time In milliseconds since 1970 */
function timeUntil(time) {
  const seconds = Math.ceil((time - Date.now() - ahead) / 1000);
  const relative = new Intl.RelativeTimeFormat("en", { style: "short" });
  for (
    const [unit, length] of /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60]])
  ) {
    if (seconds >= 2 * length) return relative.format(Math.floor(seconds / length), unit);
  }
  return relative.format(seconds, "second");
}

/**
 * @param {DocumentFragment} fragment
 * @param {string} selector
 */
function part(fragment, selector) {
  const element = fragment.querySelector(selector);
  if (!(element instanceof HTMLElement)) throw new Error(`The page has no ${selector}`);
  return element;
}

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 */
function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`The page has no ${id}`);
  return element;
}

filter.addEventListener("input", () => {
  cursors = [""];
  watch();
});
previous.addEventListener("click", () => {
  if (cursors.length > 1) cursors.pop();
  load().catch(failed);
});
next.addEventListener("click", () => {
  if (nextCursor !== null) cursors.push(nextCursor);
  // A second click may come before the page does, which has a cursor of its own.
  nextCursor = null;
  load().catch(failed);
});
document.addEventListener("visibilitychange", watch);
setInterval(() => rows.forEach((row) => row.tick()), 1000);
watch();
