// @ts-check
/// <reference lib="dom" />
/** The dialog that adds an entry, or edits one. */
import { byId, exactTime, say, timeLeft } from "./dom.js";
import { change, now, parse } from "./service.js";

const dialog = byId("editor", HTMLDialogElement);
const form = byId("edit-form", HTMLFormElement);
const title = byId("edit-title");
const keyInput = byId("edit-key", HTMLInputElement);
const valueInput = byId("edit-value", HTMLTextAreaElement);
const ttlInput = byId("edit-ttl", HTMLInputElement);
const ttlHint = byId("edit-ttl-hint");
const problem = byId("edit-problem");
const conflict = byId("edit-conflict");
const conflictText = byId("edit-conflict-text");
const currentValue = byId("edit-current");
const useCurrent = byId("edit-use-current", HTMLButtonElement);

/** The entry over which Save writes: with revision null, there must be none. */
/** @type {import("./service.js").Contents} */
let base = { value: null, revision: null, expires: null };
/** While this is true, Save does nothing. Disabled, it would lose the focus. */
let saving = false;
/** What the fields held when the dialog opened. */
let opened = "";

/** @param {{ key: string, contents: import("./service.js").Contents }} [entry] Absent: a new one */
export function openEditor(entry) {
  title.textContent = entry ? "Edit entry" : "Add an entry";
  keyInput.value = entry?.key ?? "";
  keyInput.readOnly = entry !== undefined;
  fill(entry?.contents ?? { value: null, revision: null, expires: null });
  if (!entry) valueInput.value = "";
  problem.textContent = "";
  conflict.hidden = true;
  opened = fields();
  dialog.showModal();
  (entry ? valueInput : keyInput).focus();
}

/** @param {import("./service.js").Contents} contents */
function fill(contents) {
  base = contents;
  valueInput.value = JSON.stringify(contents.value, null, 2);
  ttlInput.value = ttlInput.defaultValue = contents.expires === null ? "" : secondsLeft(contents);
  explainTtl();
}

function explainTtl() {
  const milliseconds = ttlInput.valueAsNumber * 1000;
  ttlHint.textContent = Number.isNaN(milliseconds)
    ? "Empty: never"
    : `${timeLeft(milliseconds)}, on ${exactTime(now() + milliseconds)}`;
}

/** @param {import("./service.js").Contents} contents */
function secondsLeft({ expires }) {
  return String(Math.max(1, Math.ceil(((expires ?? 0) - now()) / 1000)));
}

function fields() {
  return JSON.stringify([keyInput.value, valueInput.value, ttlInput.value]);
}

async function submit() {
  const key = keyInput.value;
  try {
    parse(valueInput.value);
  } catch (error) {
    valueInput.focus();
    const reason = error instanceof Error ? error.message : error;
    throw new Error(`The value is not JSON (${reason}). A text needs double quotes: "text".`);
  }
  // A ttl that was not edited keeps running out while the dialog is open.
  const isSameTtl = ttlInput.value === ttlInput.defaultValue && base.expires !== null;
  const ttl = isSameTtl ? secondsLeft(base) : ttlInput.value;
  const { revision } = base;
  const ends = ttl === "" ? "" : `,"ttl":${Number(ttl)}`;
  const current = await change(
    `{"op":"put","key":${JSON.stringify(key)},"value":${valueInput.value}${ends},` +
      `"ifRevision":${JSON.stringify(revision)}}`,
  );
  if (current !== null) return showConflict(current);
  dialog.close();
  say(`Saved ${key}`);
}

/** @param {import("./service.js").Contents} current */
function showConflict(current) {
  const isGone = current.revision === null;
  conflictText.textContent = isGone
    ? "Not saved: the entry has been deleted meanwhile. Save again to create it."
    : base.revision === null
    ? "Not saved: this key exists already. Save again to replace its value, which is now:"
    : "Not saved: the entry has changed meanwhile. Save again to replace its value, which is now:";
  currentValue.hidden = useCurrent.hidden = isGone;
  currentValue.textContent = isGone ? "" : JSON.stringify(current.value, null, 2);
  useCurrent.onclick = () => {
    fill(current);
    conflict.hidden = true;
    valueInput.focus();
  };
  base = current;
  conflict.hidden = false;
  conflict.scrollIntoView({ block: "nearest" });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (saving) return;
  problem.textContent = "";
  conflict.hidden = true;
  saving = true;
  submit()
    .catch((error) => problem.textContent = error instanceof Error ? error.message : String(error))
    .finally(() => saving = false);
});
ttlInput.addEventListener("input", explainTtl);
/** @param {Event} event */
function close(event) {
  if (fields() !== opened && !confirm("Discard what you have changed?")) event.preventDefault();
  else dialog.close();
}
dialog.addEventListener("cancel", close);
byId("edit-cancel", HTMLButtonElement).addEventListener("click", close);
