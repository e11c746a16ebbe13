// @ts-check
/// <reference lib="dom" />
/** The dialog that adds an entry, or edits one. */
import { byId, confirmed, failed, openDialog, say, unask } from "./dom.js";
import { coloured } from "./json.js";
import { change, now, parse } from "./service.js";
import { exactTime, grouped, inUnit, named, shownKey, timeLeft, unseenEscaped } from "./texts.js";

/** @typedef {import("./service.js").Contents} Contents */

const editor = byId("editor", HTMLDialogElement);
const form = byId("edit-form", HTMLFormElement);
const title = byId("edit-title");
const keyText = byId("edit-key-text");
const newKey = byId("edit-new-key");
const keyInput = byId("edit-key", HTMLTextAreaElement);
const valueInput = byId("edit-value", HTMLTextAreaElement);
const ttlInput = byId("edit-ttl", HTMLInputElement);
const unitInput = byId("edit-unit", HTMLSelectElement);
const ttlHint = byId("edit-ttl-hint");
const problem = byId("edit-problem");
const conflict = byId("edit-conflict");
const conflictText = byId("edit-conflict-text");
const currentValue = byId("edit-current");
const saveButton = byId("edit-save");
const useCurrent = byId("edit-use-current", HTMLButtonElement);
/** In seconds. */
const MAX_TTL = Number(ttlInput.max);

/** @type {Contents} */
const NOTHING = { value: null, revision: null, expires: null };
/** The key that is edited. A field may not hold it as it is, so it is never read from one. */
/** @type {string | null} */
let editedKey = null;
/** The entry over which Save writes: with revision null, there must be none. */
let base = NOTHING;
/**
 * The Save whose answer the dialog waits for, or null. Closed, it waits no longer: the answer may come
 * when it edits another entry.
 *
 * @type {symbol | null}
 */
let saving = null;
/** What the fields were before they were edited. */
let shownText = "";
let shownTtl = "";

/** @param {{ key: string, contents: Contents }} [entry] Absent: a new one */
export function openEditor(entry) {
  editedKey = entry?.key ?? null;
  title.textContent = entry ? "Edit entry" : "Add an entry";
  keyText.textContent = editedKey === null ? "" : shownKey(editedKey);
  newKey.hidden = keyInput.disabled = entry !== undefined;
  keyInput.value = "";
  fill(entry?.contents ?? NOTHING);
  if (!entry) valueInput.value = "";
  problem.textContent = "";
  conflict.hidden = true;
  shownText = typedText();
  openDialog(editor);
  (entry ? valueInput : keyInput).focus();
  valueInput.setSelectionRange(0, 0);
  valueInput.scrollTop = 0;
}

/** @param {Contents} contents */
function fill(contents) {
  base = contents;
  valueInput.value = unseenEscaped(JSON.stringify(contents.value, null, 2));
  showTtl(contents);
}

/** @param {Contents} contents */
function showTtl(contents) {
  // The row of an entry that has just expired may still be there.
  const { count, length } = inUnit(Math.max(1, (contents.expires ?? 0) - now()));
  ttlInput.value = contents.expires === null ? "" : String(count);
  unitInput.value = String(length);
  shownTtl = ttlText();
  explainTtl();
}

function ttlText() {
  return `${ttlInput.value} ${unitInput.value}`;
}

function isTtlEdited() {
  return ttlText() !== shownTtl;
}

function typedText() {
  return JSON.stringify([keyInput.value, valueInput.value]);
}

function isEdited() {
  return typedText() !== shownText || isTtlEdited();
}

function explainTtl() {
  const max = Math.floor(MAX_TTL / Number(unitInput.value));
  ttlInput.max = String(max);
  const ttl = secondsLeft();
  ttlHint.textContent = !ttlInput.validity.valid
    ? `Expected a whole number, from 1 to ${grouped(max)}`
    : ttl === null
    ? "Empty: never"
    : `${timeLeft(ttl * 1000)}, on ${exactTime(now() + ttl * 1000)}`;
}

/** Until the entry expires; null: never. A time that was not edited keeps running out. */
function secondsLeft() {
  if (base.expires !== null && !isTtlEdited()) {
    return Math.max(1, Math.ceil((base.expires - now()) / 1000));
  }
  return ttlInput.value === "" ? null : ttlInput.valueAsNumber * Number(unitInput.value);
}

async function submit() {
  if (saving !== null) return;
  problem.textContent = "";
  conflict.hidden = true;
  const own = Symbol();
  const isAwaited = () => saving === own;
  waitFor(own);
  const key = editedKey ?? keyInput.value;
  try {
    const current = await put(key);
    if (current === null) {
      if (isAwaited()) {
        unask(); // whether to discard what is saved
        editor.close();
      }
      say(`Saved ${named(key)}`);
    } else if (isAwaited()) {
      showConflict(current);
    } else {
      throw new Error(`${named(key)} was not saved, since it has changed meanwhile`);
    }
  } catch (error) {
    if (!isAwaited()) return failed(error);
    problem.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    if (isAwaited()) waitFor(null);
  }
}

/** @param {symbol | null} save */
function waitFor(save) {
  saving = save;
  // Disabled, they would lose the focus.
  for (const field of [keyInput, valueInput, ttlInput]) field.readOnly = save !== null;
  saveButton.textContent = save === null ? "Save" : "Saving…";
}

/**
 * Writes what was typed, and returns what is there instead if the entry has changed.
 *
 * @param {string} key
 */
async function put(key) {
  try {
    parse(valueInput.value);
  } catch (error) {
    valueInput.focus();
    const reason = error instanceof Error ? error.message : error;
    throw new Error(`The value is not JSON (${reason}). A text needs double quotes: "text".`);
  }
  const ttl = secondsLeft();
  return await change(
    `{"op":"put","key":${JSON.stringify(key)},"value":${valueInput.value}` +
      `${ttl === null ? "" : `,"ttl":${ttl}`},"ifRevision":${JSON.stringify(base.revision)}}`,
  );
}

/** @param {Contents} current */
function showConflict(current) {
  const isGone = current.revision === null;
  conflictText.textContent = isGone
    ? "Not saved: the entry has been deleted meanwhile. Save again to create it."
    : base.revision === null
    ? "Not saved: this key exists already. Save again to replace its value, which is now:"
    : "Not saved: the entry has changed meanwhile. Save again to replace its value, which is now:";
  currentValue.hidden = useCurrent.hidden = isGone;
  currentValue.replaceChildren(coloured(isGone ? "" : JSON.stringify(current.value, null, 2)));
  useCurrent.onclick = () => {
    fill(current);
    shownText = typedText();
    conflict.hidden = true;
    valueInput.focus();
  };
  base = current;
  // A time that was not edited is that of the entry.
  if (!isGone && !isTtlEdited()) showTtl(current);
  conflict.hidden = false;
  conflict.scrollIntoView({ block: "nearest" });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
ttlInput.addEventListener("input", explainTtl);
unitInput.addEventListener("input", explainTtl);
keyInput.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

// The browser then asks whether to leave the page.
addEventListener("beforeunload", (event) => editor.open && isEdited() && event.preventDefault());

/** @param {Event} event */
async function close(event) {
  event.preventDefault();
  if (!isEdited() || await confirmed("Discard what you have changed?", "Discard")) editor.close();
}
// Some browsers close a dialog at a second Escape, whatever is done with `cancel`.
editor.addEventListener("keydown", (event) => event.key === "Escape" && close(event));
editor.addEventListener("cancel", close);
editor.addEventListener("close", () => waitFor(null));
byId("edit-cancel").addEventListener("click", close);
