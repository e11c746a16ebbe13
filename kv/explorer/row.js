// @ts-check
/// <reference lib="dom" />
/** An entry's row: what it shows, and its buttons. */
import { byId, exactTime, failed, part, say, timeLeft } from "./dom.js";
import { change, KEEPS_DIGITS, now } from "./service.js";

/** Longer keys and values are cut short until the row is opened, in characters. */
const SHORT_VALUE = 80;
const SHORT_KEY = 100;
/** The most that is shown of a value in a closed row, in characters. */
const CLOSED_VALUE = 300;
/** How long a button says that it has copied, in milliseconds. */
const COPIED_TIME = 2000;

const template = byId("entry", HTMLTemplateElement);

/** @typedef {{ removed: (row: Row) => void, edit: (row: Row) => void }} RowEvents */

export class Row {
  /** @type {import("./service.js").Contents} */
  contents = { value: null, revision: null, expires: null };
  /** The number of the list's last fetch when a change of this entry came. */
  changedIn = 0;

  /**
   * @param {string} key
   * @param {RowEvents} events
   */
  constructor(key, events) {
    this.key = key;
    this.events = events;
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.element = part(copy, "tr");
    this.value = part(copy, ".value");
    this.details = part(copy, "details", HTMLDetailsElement);
    this.start = part(copy, "summary bdi");
    this.whole = part(copy, "pre");
    this.expires = part(copy, ".expires");
    this.copyButton = part(copy, ".copy");
    this.editButton = part(copy, ".edit", HTMLButtonElement);
    this.deleteButton = part(copy, ".delete");
    this.time = document.createElement("time");
    part(copy, ".key").textContent = key;
    for (const button of [this.copyButton, this.editButton, this.deleteButton]) {
      label(button, button.textContent ?? "", key);
    }
    this.editButton.disabled = !KEEPS_DIGITS;
    if (!KEEPS_DIGITS) this.editButton.title = "This browser would round long numbers";
    this.copyButton.addEventListener("click", () => this.copy().catch(failed));
    this.editButton.addEventListener("click", () => events.edit(this));
    this.deleteButton.addEventListener("click", () => this.delete().catch(failed));
    this.details.addEventListener("toggle", () => this.showWhole());
  }

  /** @param {import("./service.js").Contents} contents */
  show(contents) {
    this.contents = contents;
    const text = JSON.stringify(contents.value);
    const isShort = text.length <= SHORT_VALUE && this.key.length <= SHORT_KEY;
    this.value.hidden = !isShort;
    this.details.hidden = isShort;
    const rest = text.length - CLOSED_VALUE;
    const start = rest > 0 ? `${text.slice(0, CLOSED_VALUE)}… (${rest} more)` : text;
    this.start.textContent = isShort ? "" : start;
    this.value.textContent = isShort ? text : "";
    this.showWhole();
    this.tick();
  }

  showWhole() {
    this.whole.textContent = this.details.open ? JSON.stringify(this.contents.value, null, 2) : "";
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
    this.time.dateTime = new Date(expires).toISOString();
    this.time.title = exactTime(expires);
    if (!this.time.isConnected) this.expires.replaceChildren(this.time);
  }

  /** Takes the row away. If it has the focus, that goes to the row beside it. */
  remove() {
    const beside = this.element.nextElementSibling ?? this.element.previousElementSibling;
    const focus = beside?.querySelector(".delete") ?? document.getElementById("filter");
    const hasFocus = this.element.contains(document.activeElement);
    this.element.remove();
    if (hasFocus && focus instanceof HTMLElement) focus.focus();
    this.events.removed(this);
  }

  async copy() {
    if (!navigator.clipboard) {
      throw new Error("Cannot copy: browsers allow it only on https or localhost");
    }
    await navigator.clipboard.writeText(JSON.stringify(this.contents.value));
    say(`Copied the value of ${this.key}`, "spoken");
    label(this.copyButton, "Copied", this.key);
    setTimeout(() => label(this.copyButton, "Copy", this.key), COPIED_TIME);
  }

  async delete() {
    // Firefox goes on receiving changes while it asks: what was shown before is to be deleted.
    const operation = { op: "delete", key: this.key, ifRevision: this.contents.revision };
    if (!confirm(`Delete ${this.key}?`)) return;
    const current = await change(JSON.stringify(operation));
    if (current === null || current.revision === null) return say(`Deleted ${this.key}`);
    throw new Error(`${this.key} was not deleted, since it has just changed. Look at it again.`);
  }
}

/**
 * @param {HTMLElement} button
 * @param {string} text
 * @param {string} key Named only for screen readers
 */
function label(button, text, key) {
  button.textContent = text;
  button.setAttribute("aria-label", `${text} ${key}`);
}
