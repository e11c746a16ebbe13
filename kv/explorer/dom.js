// @ts-check
/// <reference lib="dom" />
/** The page's elements, its dialogs and its messages. */

/**
 * Returns the first element below `root` that a selector finds.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} [type] By default any element
 */
export function part(root, selector, type) {
  const element = root.querySelector(selector);
  if (!(element instanceof (type ?? HTMLElement))) throw new Error(`The page has no ${selector}`);
  return /** @type {T} */ (element);
}

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [type] By default any element
 */
export function byId(id, type) {
  return part(document, `#${id}`, type);
}

/** The whole page. */
export const explorer = byId("explorer");

/**
 * Gives the focus to a row of the list: that at a place, or the last. If there is none, to the prefix.
 *
 * @param {number} place
 */
export function focusRow(place) {
  const buttons = [...document.querySelectorAll("#entries .delete")];
  const button = buttons[place] ?? buttons.at(-1);
  (button instanceof HTMLElement ? button : byId("prefix")).focus();
}

/**
 * Opens a dialog, and resolves when it is closed. Then the browser gives the focus back to the button
 * that had it; if the button is gone with its row, the row in its place gets the focus.
 *
 * @param {HTMLDialogElement} dialog
 * @returns {Promise<void>}
 */
export function openDialog(dialog) {
  const row = document.activeElement?.closest("tr");
  const place = row?.sectionRowIndex ?? 0;
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.open) return; // closed and opened again, before the event came
      if (row?.isConnected === false) focusRow(place);
      resolve();
    };
  });
}

const question = byId("question", HTMLDialogElement);
const questionText = byId("question-text");
const yes = byId("question-yes");
// A browser's own Escape may close the dialog below as well.
question.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.preventDefault();
  question.close();
});

/**
 * Resolves to whether a person wants it. A question that is open stays as it was read.
 *
 * @param {string} text
 * @param {string} action What the button says that does it
 * @returns {Promise<boolean>}
 */
export async function confirmed(text, action) {
  if (question.open) return false;
  questionText.textContent = text;
  yes.textContent = action;
  question.returnValue = "";
  await openDialog(question);
  return question.returnValue === "yes";
}

/** Answers an open question with no. */
export function unask() {
  question.close();
}

/** How long a message is shown, and an error, in milliseconds. */
const MESSAGE_TIME = 5_000;
const ERROR_TIME = 20_000;

const status = byId("status");
/** @type {ReturnType<typeof setTimeout> | undefined} */
let messageTimer;

/**
 * Shows a message at the foot of the window.
 *
 * @param {string} text
 * @param {"done" | "error" | "busy" | "spoken"} kind "busy": stays until the next "done" or "error";
 *   "spoken": is only for screen readers
 */
export function say(text, kind = "done") {
  if (kind === "spoken" && status.className === "busy") return;
  // A screen reader would say an error again each time that it is tried.
  if (kind !== "error" || status.textContent !== text) status.textContent = text;
  status.className = kind;
  clearTimeout(messageTimer);
  if (kind === "busy") return;
  const time = kind === "error" ? ERROR_TIME : MESSAGE_TIME;
  messageTimer = setTimeout(() => status.textContent = "", time);
}

/** Ends a message, if it is still shown. @param {string} text */
export function unsay(text) {
  if (status.textContent === text) say("");
}

/** @param {unknown} error */
export function failed(error) {
  say(error instanceof Error ? error.message : String(error), "error");
}
