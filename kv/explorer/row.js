// @ts-check
/// <reference lib="dom" />
/** An entry's row: what it shows, and its buttons. */
import { byId, confirmed, failed, focusRow, part, say } from "./dom.js";
import { openEditor } from "./editor.js";
import { element, tree } from "./json.js";
import { change, KEEPS_DIGITS, now } from "./service.js";
import { dateOf, exactTime, named, SHORT_KEY, shownKey, timeLeft } from "./texts.js";

const template = byId("entry", HTMLTemplateElement);

export class Row {
  /** @type {import("./service.js").Contents} */
  contents = { value: null, revision: null, expires: null };
  /** The number of the list's last fetch when a change of this entry came. */
  changedIn = 0;
  /** Which parts of the value are unfolded. @type {import("./json.js").Folds} */
  folds = new Map();
  /** @type {string[]} */
  wanted = [];

  /**
   * @param {string} key
   * @param {(row: Row) => void} removed Is called when the row is taken away
   */
  constructor(key, removed) {
    this.key = key;
    this.removed = removed;
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.element = part(copy, "tr", HTMLTableRowElement);
    this.value = part(copy, ".value");
    this.expires = part(copy, ".expires");
    this.time = document.createElement("time");
    const keyElement = part(copy, ".key");
    keyElement.textContent = shownKey(key);
    if (key.length > SHORT_KEY) {
      const summary = document.createElement("summary");
      keyElement.replaceWith(element("details", "", summary));
      summary.append(keyElement);
    }
    const copyButton = part(copy, ".copy");
    const editButton = part(copy, ".edit", HTMLButtonElement);
    const deleteButton = part(copy, ".delete");
    for (const button of [copyButton, editButton, deleteButton]) {
      // Named only for screen readers.
      button.setAttribute("aria-label", `${button.textContent} ${shownKey(key)}`);
    }
    editButton.disabled = !KEEPS_DIGITS;
    if (!KEEPS_DIGITS) editButton.title = "This browser would round long numbers";
    copyButton.addEventListener("click", () => this.copy().catch(failed));
    editButton.addEventListener("click", () => openEditor(this));
    deleteButton.addEventListener("click", () => this.delete().catch(failed));
  }

  /**
   * @param {import("./service.js").Contents} contents
   * @param {string[]} wanted The texts that are searched for, in lower case
   */
  show(contents, wanted) {
    if (contents.revision === this.contents.revision && `${wanted}` === `${this.wanted}`) return;
    this.contents = contents;
    this.wanted = wanted;
    const { activeElement } = document;
    const focused = this.value.contains(activeElement) ? activeElement : null;
    const scrolled = this.value.querySelector(".inside")?.scrollTop ?? 0;
    this.value.replaceChildren(tree(contents.value, this.folds, wanted));
    const inside = this.value.querySelector(".inside");
    if (inside) inside.scrollTop = scrolled;
    if (focused instanceof HTMLElement) {
      /** @type {NodeListOf<HTMLElement>} */
      const parts = this.value.querySelectorAll("summary, .inside[tabindex]");
      const same = [...parts].find(({ dataset }) => dataset["path"] === focused.dataset["path"]);
      (same ?? part(this.element, ".copy")).focus();
    }
    this.tick();
  }

  /** Shows the time that is left, and removes the row when there is none. */
  tick() {
    const { expires } = this.contents;
    if (expires === null) {
      this.expires.textContent = "never";
      return;
    }
    const left = expires - now();
    if (left <= 0) return this.remove();
    this.time.textContent = timeLeft(left);
    this.time.dateTime = dateOf(expires).toISOString();
    this.time.title = exactTime(expires);
    if (!this.time.isConnected) this.expires.replaceChildren(this.time);
  }

  /** Takes the row away. If it has the focus, that goes to the row beside it. */
  remove() {
    const place = this.element.sectionRowIndex;
    const hasFocus = this.element.contains(document.activeElement);
    this.element.remove();
    if (hasFocus) focusRow(place);
    this.removed(this);
  }

  async copy() {
    if (!navigator.clipboard) {
      throw new Error("Cannot copy: browsers allow it only on https or localhost");
    }
    await navigator.clipboard.writeText(JSON.stringify(this.contents.value));
    say(`Copied the value of ${named(this.key)}`);
  }

  async delete() {
    // The row goes on changing while it asks: what was shown before is to be deleted.
    const operation = { op: "delete", key: this.key, ifRevision: this.contents.revision };
    if (!await confirmed(`Delete ${named(this.key)}?`, "Delete")) return;
    const current = await change(JSON.stringify(operation));
    if (current === null || current.revision === null) return say(`Deleted ${named(this.key)}`);
    throw new Error(
      `${named(this.key)} was not deleted, since it has just changed. Look at it again.`,
    );
  }
}
