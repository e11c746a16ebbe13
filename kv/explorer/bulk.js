// @ts-check
/// <reference lib="dom" />
/** What concerns many entries: a dump to download, lines to restore, a prefix to delete. */
import { byId, entryCount, explorer, failed, grouped, say } from "./dom.js";
import { query } from "./list.js";
import { confirmed } from "./question.js";
import { countKeys, dump, removeKeys, restore } from "./service.js";

/** How long a browser may take to begin a download, in milliseconds. */
const DOWNLOAD_BEGINS = 60_000;

const file = byId("file", HTMLInputElement);

async function download() {
  say("Reading the entries");
  const lines = await (await dump(query.prefix)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(lines);
  link.download = `kv-${new Date().toISOString().slice(0, 10)}.ndjson`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), DOWNLOAD_BEGINS);
  say(`Downloaded ${link.download}`);
}

/**
 * @param {Blob} lines One `{"key": value}` each
 * @param {string} name
 */
async function restoreLines(lines, name) {
  const size = `${grouped(Math.ceil(lines.size / 1024))} KiB`;
  const text = `Restore ${name} (${size})? Each line is an entry, and replaces that of its key.`;
  if (!await confirmed(text, "Restore")) return;
  say(`Restoring ${name}`);
  say(`Restored ${entryCount(await restore(lines))}`);
}

async function remove() {
  const { prefix } = query;
  say("Counting the entries");
  const count = entryCount(await countKeys(prefix));
  say("");
  const which = prefix === ""
    ? `all ${count}`
    : `${count} whose keys begin with ${JSON.stringify(prefix)}`;
  if (!await confirmed(`Delete ${which}?`, "Delete")) return;
  say(`Deleting ${count}`);
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

byId("download").addEventListener("click", () => download().catch(failed));
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
