// @ts-check
/// <reference lib="dom" />
/** The dialog that asks before something is lost. */
import { byId, openDialog } from "./dom.js";

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
 * Resolves to whether a person wants it.
 *
 * @param {string} text
 * @param {string} action What the button says that does it
 * @returns {Promise<boolean>}
 */
export function confirmed(text, action) {
  questionText.textContent = text;
  yes.textContent = action;
  question.returnValue = "";
  openDialog(question);
  const once = { once: true };
  return new Promise((resolve) => {
    question.addEventListener("close", () => resolve(question.returnValue === "yes"), once);
  });
}
