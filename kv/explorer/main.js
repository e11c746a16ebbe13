// @ts-check
/// <reference lib="dom" />
/**
 * The explorer page in a browser: what is asked for, and the stream of the service's changes.
 * Whatever is stored becomes text, never markup.
 */
import "./bulk.js";
import { byId, explorer } from "./dom.js";
import { openEditor } from "./editor.js";
import { begin, goToFirstPage, query, received } from "./list.js";
import { parse, SERVICE } from "./service.js";

/** How soon a rejected stream is asked for again, in milliseconds. */
const WATCH_AGAIN_AFTER = 2000;
/** How long a person who types has to pause until the list follows, in milliseconds. */
const TYPING = 200;
/** A stream that is silent for longer is lost: the service sends an event every 4 s. In milliseconds. */
const SILENCE = 12_000;

const live = byId("live");
/** @type {["prefix" | "contains", HTMLInputElement][]} */
const fields = [
  ["prefix", byId("prefix", HTMLInputElement)],
  ["contains", byId("contains", HTMLInputElement)],
];
/** @type {EventSource | undefined} */
let source;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let silence;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing;
/** Whether the reason for a rejected stream has been shown. */
let isExplained = false;

/** Follows the changes under the prefix. The list is fetched when the service is ready. */
function watch() {
  source?.close();
  clearTimeout(silence);
  // A browser has six connections to a service, and each page that watches keeps one.
  if (document.hidden) return;
  const { prefix } = query;
  const opened = new EventSource(`${SERVICE}?${new URLSearchParams({ prefix })}`);
  source = opened;

  function lost() {
    if (!explorer.classList.contains("lost")) {
      live.textContent = `Not connected since ${new Date().toLocaleTimeString("en")}, trying again`;
    }
    live.className = "";
    explorer.classList.add("lost");
    // Otherwise the browser tries again.
    if (opened.readyState !== EventSource.CLOSED) return;
    setTimeout(() => opened === source && watch(), WATCH_AGAIN_AFTER);
    // What is stored can be listed without a stream, or there is a reason to show.
    if (!isExplained) begin();
    isExplained = true;
  }

  /** A service that hangs, and a network that is cut, end no stream. */
  function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => {
      opened.close();
      lost();
    }, SILENCE);
  }

  heard();
  for (const event of ["ready", "message", "position"]) opened.addEventListener(event, heard);
  opened.addEventListener("ready", () => {
    // A screen reader would say it again.
    if (live.textContent !== "Live") live.textContent = "Live";
    live.className = "on";
    explorer.classList.remove("lost");
    isExplained = false;
    begin();
  });
  opened.addEventListener("message", ({ data }) => received(parse(data)));
  opened.addEventListener("error", lost);
}

/** Lists what is asked for. */
function follow() {
  byId("clear").hidden = query.prefix + query.contains === "";
  // What is found is not all that is under the prefix.
  byId("download").hidden = byId("remove").hidden = query.contains !== "";
  byId("whole-prefix").hidden = query.contains === "";
  const { prefix } = query;
  const backup = new URLSearchParams({ backup: "", prefix });
  byId("download", HTMLAnchorElement).href = `${SERVICE}?${backup}`;
  byId("remove").textContent = prefix === "" ? "Delete all" : "Delete these";
  goToFirstPage();
  watch();
}

/** Keeps what is asked for in the address, for a reload. */
function keep() {
  const asked = new URLSearchParams(Object.entries(query).filter(([, text]) => text !== ""));
  // Relative: an address with a name and a token in it may not be set.
  history.replaceState(null, "", asked.size === 0 ? "." : `?${asked}`);
}

/** @param {URLSearchParams} wanted */
function ask(wanted) {
  for (const [name, field] of fields) {
    query[name] = field.value = wanted.get(name) ?? "";
    // An input drops line breaks: such a text is shown as JSON, and only Show all changes it.
    field.readOnly = field.value !== query[name];
    if (field.readOnly) field.value = JSON.stringify(query[name]);
  }
  follow();
}

for (const [name, field] of fields) {
  field.addEventListener("input", () => {
    query[name] = field.value;
    clearTimeout(typing);
    typing = setTimeout(() => {
      keep();
      follow();
    }, TYPING);
  });
}
byId("clear").addEventListener("click", () => {
  ask(new URLSearchParams());
  keep();
  // The button is gone, and the focus with it.
  fields[0]?.[1].focus();
});
byId("add").addEventListener("click", () => openEditor());
const http = location.protocol === "https:" ? "https" : "http";
const { host, pathname } = new URL(SERVICE);
byId("command").textContent = `${http} ${host}${pathname === "/" ? "" : pathname} foo=bar`;
document.addEventListener("visibilitychange", watch);
byId("plain").remove();
byId("scripted").hidden = false;
ask(new URL(location.href).searchParams);
