// @ts-check
/// <reference lib="dom" />
/** What concerns many entries: lines to restore, a prefix to delete. */
import { byId, confirmed, explorer, failed, say } from "./dom.js";
import { query } from "./list.js";
import { countKeys, removeKeys, restore } from "./service.js";
import { entryCount, grouped } from "./texts.js";

const file = byId("file", HTMLInputElement);

/**
 * @param {Blob} lines As Download or dump.ts writes them
 * @param {string} name
 */
async function restoreLines(lines, name) {
  const size = `${grouped(Math.ceil(lines.size / 1024))} KiB`;
  const text = `Restore ${name} (${size})? Each line is an entry, and replaces that of its key.`;
  if (!await confirmed(text, "Restore")) return;
  say(`Restoring ${name}`, "busy");
  const { restored, expired = 0 } = await restore(lines).catch((error) => {
    const isFirst = /^Cannot restore line 1:/.test(error.message);
    const before = isFirst ? "" : " Lines before may be restored.";
    throw new Error(`${error.message}.${before}`, { cause: error });
  });
  const rest = expired > 0 ? `; ${entryCount(expired)} had expired` : "";
  say(`Restored ${entryCount(restored)}${rest}`);
}

async function remove() {
  const { prefix } = query;
  say("Counting the entries", "busy");
  const count = entryCount(await countKeys(prefix));
  say("");
  const question = prefix === ""
    ? `Delete everything: ${count}?`
    : `Delete ${count} with the prefix ${JSON.stringify(prefix)}?`;
  if (!await confirmed(question, "Delete")) return;
  say(`Deleting ${count}`, "busy");
  say(`Deleted ${entryCount(await removeKeys(prefix))}`);
}

/**
 * Whether something is dragged that can be restored here, and not into a field.
 *
 * @param {DragEvent} event
 */
function isForUs({ dataTransfer, target }) {
  const isField = target instanceof Element && target.closest("input, textarea, dialog") !== null;
  const isOpen = document.querySelector("dialog[open]") !== null;
  const types = dataTransfer?.types ?? [];
  return !isField && !isOpen && (types.includes("Files") || types.includes("text/plain"));
}

byId("remove").addEventListener("click", () => remove().catch(failed));
byId("restore").addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  const [chosen] = file.files ?? [];
  if (chosen) restoreLines(chosen, chosen.name).catch(failed);
  // The same file may be chosen again.
  file.value = "";
});
addEventListener("dragover", (event) => {
  if (!isForUs(event)) return;
  event.preventDefault();
  explorer.classList.add("dropping");
});
addEventListener("dragleave", () => explorer.classList.remove("dropping"));
addEventListener("drop", (event) => {
  explorer.classList.remove("dropping");
  if (!isForUs(event)) return;
  event.preventDefault();
  const [dropped] = event.dataTransfer?.files ?? [];
  const text = event.dataTransfer?.getData("text/plain") ?? "";
  const lines = dropped ?? new Blob([text]);
  restoreLines(lines, dropped?.name ?? "the text that was dropped").catch(failed);
});
