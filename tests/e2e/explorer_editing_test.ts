/// <reference lib="dom" />
/** Changes made on the service's page, in Chromium and Firefox, by mouse and keyboard. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Browser, ElementHandle, Page } from "puppeteer-core";
import { kv } from "../../kv.ts";
import { json } from "../../stores/json/text.ts";
import { memoryStore } from "../../stores/memory.ts";
import { noViolations, stepInBoth, testInBrowsers, visit } from "../helpers/browsers.ts";
import { answer, hurry, press, rows, rowsAre, text } from "../helpers/explorer.ts";
import { get, post, put, remove } from "../helpers/http.ts";
import { eventually, startServer, temporaryDirectory } from "../helpers/programs.ts";

testInBrowsers("The explorer page, changing entries,", async (t, browsers) => {
  const step = stepInBoth(t, browsers);
  await step("copies and deletes by the keyboard", copyAndDelete);
  await step("keeps the focus in the list when a dialog's entry is gone", keepFocus);
  await step("adds and edits over the revision seen", addAndEdit);
  await step("keeps what is typed while an earlier Save is answered late", keepTyped);
  await step("opens a long value at its start, in a box that grows", growValue);
  await step("takes no key from a field that cannot hold it", oddKeys);
  await step("asks one question at a time, for as long as it is one", askOnce);
  await step("edits when an entry expires", editTime);
  await step("deletes a prefix, and says first how many entries that is", deletePrefix);
  await step("downloads a dump, and restores the lines of a file", dumpAndRestore);
  await step("says that it restores or deletes for as long as it does", sayBusy);
});

async function copyAndDelete(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, '{"a":{"b":1.10},"c/d?":2}');
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("two rows", async () => (await rows(page)).length === 2);
  // A page may write to the clipboard only in a window that has the focus.
  await page.evaluate(() => {
    const writeText = (text: string) => Promise.resolve(document.title = text);
    Object.defineProperty(navigator, "clipboard", { value: { writeText } });
  });
  await page.focus("tbody .copy");
  await page.keyboard.press("Enter");
  const status = () => text(page, "#status");
  await eventually("a message", async () => await status() === "Copied the value of a");
  assertEquals(await page.title(), '{"b":1.10}');

  await page.focus("tr:last-child .delete");
  const isAsked = async () => await text(page, "#question[open] p") === "Delete c/d??";
  for (const no of ["Enter", "Escape"] as const) {
    await page.keyboard.press("Enter");
    await eventually("a question", isAsked);
    await page.keyboard.press(no); // Enter: the focus is on Cancel
    await eventually("no question", async () => !await isAsked());
    assertEquals(await get(`${kv.url}/c%2Fd%3F`), '{"c/d?":2}');
  }
  await page.keyboard.press("Enter");
  await eventually("a question", isAsked);
  await noViolations(page);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await eventually("a message", async () => await text(page, "#status") === "Deleted c/d?");
  assert(
    await page.$eval("#status", (e) => e.getBoundingClientRect().bottom <= innerHeight),
    "seen",
  );
  assertEquals(await get(`${kv.url}/c%2Fd%3F`), '{"c/d?":null}');
  await rowsAre(page, [["a", '{"b":1.10}', "never"]]);
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  await eventually("the focus in the row beside it", async () => await focused() === "Delete a");

  await page.keyboard.press("Enter");
  await eventually("a question", async () => await text(page, "#question[open] p") !== "");
  await put(`${kv.url}/a`, "5");
  await rowsAre(page, [["a", "5", "never"]]);
  assertEquals(await answer(page, "Delete"), "Delete a?");
  const message = "a was not deleted, since it has just changed. Look at it again.";
  await eventually("a refusal", async () => await text(page, "#status") === message);
  assertEquals(await get(`${kv.url}/a`), '{"a":5}');

  await page.focus("tbody .delete");
  await page.keyboard.press("Enter");
  await answer(page, "Delete");
  await eventually("no row", async () => (await rows(page)).length === 0);
  const activeId = () => page.evaluate(() => document.activeElement?.id);
  await eventually("the focus where no row is left", async () => await activeId() === "prefix");
}

async function keepFocus(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, '{"a":1,"b":2,"c":3}');
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  let left = ["a", "b", "c"];
  const shown = () =>
    eventually("the rows", async () => `${(await rows(page)).map(([key]) => key)}` === `${left}`);
  await shown();
  const focused = () =>
    page.evaluate(() => {
      const element = document.activeElement;
      return element?.getAttribute("aria-label") ?? element?.id;
    });
  // Where a value is unfolded, which then changes.
  const lines = (count: number) => JSON.stringify(Array.from({ length: count }, (_, i) => i));
  await put(`${kv.url}/a`, lines(300));
  const value = (expected: RegExp) =>
    eventually(`${expected}`, async () => expected.test(await text(page, "tr:first-child .value")));
  await value(/300 members/);
  await page.focus("tbody summary");
  await page.keyboard.press("Enter");
  await eventually("its parts", async () => await text(page, "tbody .inside") !== "");
  await page.keyboard.press("Tab");
  const focusedPart = () => page.evaluate(() => document.activeElement?.className);
  await put(`${kv.url}/a`, lines(301));
  await value(/301 members/);
  assertEquals(await focusedPart(), "inside");
  await put(`${kv.url}/a`, "1");
  await value(/^1$/);
  assertEquals(await focusedPart(), "copy plain", "in the row, whose value has no parts");

  const gone = [["b", ".edit", "Delete c"], ["c", ".delete", "Delete a"], ["a", ".edit", "prefix"]];
  for (const [key = "", button, next] of gone) {
    await page.focus(`tr:nth-child(${left.indexOf(key) + 1}) ${button}`);
    const opener = await focused();
    for (const isGone of [false, true]) {
      if (isGone) await openTwice(page);
      else await page.keyboard.press("Enter");
      await eventually("a dialog", async () => await text(page, "dialog[open]") !== "");
      if (isGone) {
        await remove(`${kv.url}/${key}`);
        left = left.filter((it) => it !== key);
      }
      await shown();
      await page.keyboard.press("Escape");
      await eventually("no dialog", async () => await text(page, "dialog[open]") === "");
      const expected = isGone ? next : opener;
      await eventually(`the focus on ${expected}`, async () => await focused() === expected);
    }
  }
}

/** Opens the dialog of the button that has the focus, closes it and opens it again, all at once. */
async function openTwice(page: Page): Promise<void> {
  await page.evaluate(() => {
    const button = document.activeElement as HTMLElement;
    button.click();
    document.querySelector<HTMLDialogElement>("dialog[open]")?.close();
    button.click();
  });
}

async function addAndEdit(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/taken?ttl=200000`, "1.10");
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("the row", async () => (await rows(page)).length === 1);
  const problem = (expected: RegExp) =>
    eventually(
      `${expected}`,
      async () => expected.test(await text(page, "#edit-problem, #edit-conflict:not([hidden])")),
    );
  const save = () => page.keyboard.press("Enter");

  // By the keyboard alone: the focus begins in the key.
  await page.focus("#add");
  await save();
  await page.keyboard.type("a//b");
  await page.keyboard.press("Tab");
  await page.keyboard.type("bare");
  await page.focus("#edit-save");
  await save();
  await problem(/is not JSON .* needs double quotes/);
  assertEquals(await page.evaluate(() => document.activeElement?.id), "edit-value");
  await retype(page, "#edit-value", '{"n": 1.50}');
  await page.focus("#edit-save");
  await save();
  await rowsAre(page, [["a//b", '{"n":1.50}', "never"], ["taken", "1.10", "in 2 days"]]);
  await eventually("the answer", async () => await text(page, "#status") === "Saved a//b");

  await page.click("#add");
  await page.type("#edit-key", "taken");
  await page.type("#edit-value", "2");
  await page.focus("#edit-save");
  await save();
  await problem(/this key exists already.*1\.10/s);
  assertEquals(await get(`${kv.url}/taken`), '{"taken":1.10}');
  await noViolations(page, ["light"]);
  for (let i = 0; i < 3; i++) {
    // A browser may close a dialog at a second Escape.
    for (let k = 0; k < 2; k++) await page.keyboard.press("Escape");
    assertEquals(await text(page, "#question[open] p"), "");
    assertEquals(await text(page, "#editor[open] h2"), "Add an entry", "what was typed is kept");
  }
  await page.click("#edit-cancel");
  assertEquals(await answer(page, "Cancel"), "Discard what you have changed?");
  assertEquals(await text(page, "#editor[open] h2"), "Add an entry");
  await page.click("#edit-cancel");
  await answer(page, "Discard");
  await eventually("no dialog", async () => await text(page, "dialog[open]") === "");

  await press(page, "tr:last-child .edit");
  await retype(page, "#edit-value", "2.00");
  await put(`${kv.url}/taken?ttl=400000`, "3.00");
  await page.focus("#edit-save");
  await save();
  await problem(/has changed meanwhile.*3\.00/s);
  assertEquals(await get(`${kv.url}/taken`), '{"taken":3.00}');
  const time = await page.$$eval(
    ".ttl > *",
    (all) => all.map((e) => (e as HTMLInputElement).value),
  );
  assertEquals(time, ["5", "86400"], "a time that was not edited is that which Save keeps");
  await save();
  await rowsAre(page, [["a//b", '{"n":1.50}', "never"], ["taken", "2.00", "in 5 days"]]);

  await press(page, "tr:last-child .edit");
  await retype(page, "#edit-value", "4");
  await put(`${kv.url}/taken`, "5");
  await page.click("#edit-save");
  await problem(/has changed meanwhile/);
  await page.click("#edit-use-current");
  await page.click("#edit-cancel");
  assertEquals(await text(page, "dialog[open]"), "", "nothing was typed since");
}

/** A service that answers changes when it is told to. */
async function startSlow() {
  const store = memoryStore();
  const service = kv(store);
  let answered = Promise.resolve();
  let counted = Promise.resolve();
  const stop = new AbortController();
  const { signal } = stop;
  const options = { hostname: "127.0.0.1", port: 0, onListen() {}, signal };
  const server = Deno.serve(options, async (request) => {
    const { method } = request;
    const text = method === "POST" ? await request.text() : undefined;
    const isChange = method === "DELETE" || text !== undefined && !text.includes('"op":"get"');
    if (isChange) await answered;
    if (request.url.includes("limit=1000")) await counted;
    if (text === undefined) return service.fetch(request);
    const { url, headers } = request;
    return service.fetch(new Request(url, { method, headers, body: text }));
  });
  return {
    store,
    url: `http://localhost:${server.addr.port}`,
    /** Returns what lets it answer again. */
    hold(): () => void {
      const { promise, resolve } = Promise.withResolvers<void>();
      answered = promise;
      return resolve;
    },
    /** The same for the pages of keys that Delete counts. */
    holdCount(): () => void {
      const { promise, resolve } = Promise.withResolvers<void>();
      counted = promise;
      return resolve;
    },
    async [Symbol.asyncDispose]() {
      stop.abort(); // also what is held
      await server.finished;
      await store.close();
    },
  };
}

async function keepTyped(browser: Browser): Promise<void> {
  await using slow = await startSlow();
  const { store } = slow;
  await store.set("a", json("a"));
  await store.set("b", json("b"));
  await using visited = await visit(browser, slow.url);
  const { page } = visited;
  await rowsAre(page, [["a", '"a"', "never"], ["b", '"b"', "never"]]);
  const typed = () =>
    page.$eval("#edit-value", (field) => {
      const { value, readOnly } = field as HTMLTextAreaElement;
      return { value, readOnly };
    });
  const told = (expected: string) =>
    eventually(expected, async () => await text(page, "#status") === expected);
  const discard = async () => {
    await page.click("#edit-cancel");
    await answer(page, "Discard");
    await eventually("no dialog", async () => await text(page, "dialog[open]") === "");
  };
  /** Saves a, does not wait for the answer, and types into b. */
  const saveAndEditAnother = async (value: string) => {
    await press(page, "tr:first-child .edit");
    await retype(page, "#edit-value", value);
    await page.click("#edit-save");
    assertEquals(await text(page, "#edit-save"), "Saving…");
    assert((await typed()).readOnly, "what is typed now would be lost");
    await discard();
    await press(page, "tr:last-child .edit");
    await retype(page, "#edit-value", '"of b"');
  };
  const isKept = async () => {
    assertEquals(await text(page, "#editor[open] bdi"), "b");
    assertEquals(await typed(), { value: '"of b"', readOnly: false });
    assertEquals(await text(page, "#edit-conflict:not([hidden]), #edit-problem"), "");
  };

  let release = slow.hold();
  await saveAndEditAnother('"new"');
  release();
  await told("Saved a");
  await isKept();
  await discard();

  release = slow.hold();
  await saveAndEditAnother('"newer"');
  await store.set("a", json("of another client"));
  release();
  await told("a was not saved, since it has changed meanwhile");
  await isKept();

  const asked: string[] = [];
  page.on("dialog", async (dialog) => {
    asked.push(dialog.type());
    await dialog.accept();
  });
  await page.reload();
  assertEquals(asked, ["beforeunload"]);
  await rowsAre(page, [["a", '"of another client"', "never"], ["b", '"b"', "never"]]);
  await page.reload();
  assertEquals(asked.length, 1, "there was nothing to lose");

  // By few clicks, without which a browser may close several dialogs at one Escape.
  await rowsAre(page, [["a", '"of another client"', "never"], ["b", '"b"', "never"]]);
  await press(page, "tr:last-child .edit");
  await retype(page, "#edit-value", '"of b"');
  for (let i = 0; i < 10; i++) {
    await page.keyboard.press("Escape");
    assertEquals(await text(page, "#editor[open] bdi"), "b", `after Escape ${i + 1}`);
  }
  if (await text(page, "#question[open] p") !== "") await answer(page, "Cancel");
  await isKept();
  await page.close(); // its stream of changes would keep the server
}

async function askOnce(browser: Browser): Promise<void> {
  await using slow = await startSlow();
  await slow.store.set("a", json(1));
  await slow.store.set("b", json(2));
  await using visited = await visit(browser, slow.url);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "never"], ["b", "2", "never"]]);
  const status = (expected: string) =>
    eventually(expected, async () => await text(page, "#status") === expected);
  const asked = () => text(page, "#question[open] p");

  let release = slow.holdCount();
  await press(page, "#remove");
  await status("Counting the entries");
  await press(page, "tr:first-child .delete");
  assertEquals(await asked(), "Delete a?");
  release();
  await status("");
  assertEquals(await answer(page, "Delete"), "Delete a?");
  await rowsAre(page, [["b", "2", "never"]]);

  release = slow.hold();
  await page.focus(".edit");
  await page.keyboard.press("Enter");
  await retype(page, "#edit-value", "3");
  await page.focus("#edit-save");
  await page.keyboard.press("Enter");
  await page.focus("#edit-cancel");
  await page.keyboard.press("Enter");
  await eventually("a question", async () => await asked() === "Discard what you have changed?");
  release();
  await status("Saved b");
  assertEquals(await asked(), "", "there is nothing left to discard");
  const focused = () => page.evaluate(() => document.activeElement?.ariaLabel);
  await eventually("the focus in the row", async () => await focused() === "Edit b");
  await page.close(); // its stream of changes would keep the server
}

async function retype(page: Page, selector: string, text: string): Promise<void> {
  await page.$eval(selector, (field) => (field as HTMLTextAreaElement).value = "");
  await page.type(selector, text);
}

async function growValue(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/long`, JSON.stringify(Array.from({ length: 300 }, (_, i) => i)));
  await put(`${kv.url}/short`, "1");
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("two rows", async () => (await rows(page)).length === 2);
  const box = () =>
    page.$eval("#edit-value", (it) => {
      const { scrollTop, scrollHeight, clientHeight, selectionStart } = it as HTMLTextAreaElement;
      return { scrollTop, hidden: scrollHeight - clientHeight, clientHeight, selectionStart };
    });
  await press(page, "tr:first-child .edit");
  const long = await box();
  assertEquals([long.scrollTop, long.selectionStart], [0, 0], "it opens at its start");
  assert(long.hidden > 1000, "it is not higher than the window");
  await page.click("#edit-cancel");

  await press(page, "tr:last-child .edit");
  const small = await box();
  assert(small.clientHeight < long.clientHeight);
  for (let i = 0; i < 5; i++) await page.keyboard.press("Enter");
  const grown = await box();
  assert(grown.clientHeight > small.clientHeight, "it grows");
  assertEquals(grown.hidden, 0, "all of it is seen");
}

async function oddKeys(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, '{"line\\nbreak":1,"line\\r\\nbreak":2,"linebreak":3}');
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("three rows", async () => (await rows(page)).length === 3);
  for (const [i, value] of ["10", "20"].entries()) {
    await press(page, `tr:nth-child(${i + 1}) .edit`);
    await retype(page, "#edit-value", value);
    await page.click("#edit-save");
    await eventually("no dialog", async () => await text(page, "dialog[open]") === "");
  }
  await rowsAre(page, [
    ['"line\\nbreak"', "10", "never"],
    ['"line\\r\\nbreak"', "20", "never"],
    ["linebreak", "3", "never"],
  ]);

  await page.click("#add");
  await page.type("#edit-value", "4");
  await page.focus("#edit-key");
  await page.keyboard.type("new");
  await page.keyboard.down("Shift");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Shift");
  await page.keyboard.type("line");
  await page.keyboard.press("Enter");
  const saved = async () => await get(`${kv.url}/new%0Aline`) === '{"new\\nline":4}';
  await eventually("the key as it was typed", saved);
}

async function editTime(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/a?ttl=200000`, "1");
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "in 2 days"]]);
  const edit = async () => {
    await press(page, ".edit");
    await eventually("the dialog", async () => await text(page, "#editor[open] h2") !== "");
    return await page.$$eval(".ttl > *", (all) => all.map((e) => (e as HTMLInputElement).value));
  };
  const save = async () => {
    await page.click("#edit-save");
    await eventually("no dialog", async () => await text(page, "dialog[open]") === "");
  };
  const secondsLeft = async () => {
    const response = await fetch(`${kv.url}/a`);
    await response.body?.cancel();
    return (Date.parse(response.headers.get("Expires") ?? "") - Date.now()) / 1000;
  };

  // The row is there for up to a second more.
  const over = await page.evaluate(() => {
    const { now } = Date;
    Date.now = () => now() + 200_000_500;
    document.querySelector<HTMLElement>(".edit")?.click();
    Date.now = now;
    const { value, validity } = document.querySelector("#edit-ttl") as HTMLInputElement;
    return { value, valid: validity.valid };
  });
  assertEquals(over, { value: "1", valid: true }, "an entry that has just expired");
  await page.click("#edit-cancel");

  assertEquals(await edit(), ["2", "86400"]);
  await retype(page, "#edit-value", "2");
  await save();
  await rowsAre(page, [["a", "2", "in 2 days"]]);
  assert(await secondsLeft() > 2 * 86400 + 1000, "a time that was not edited runs on, exactly");

  await edit();
  await retype(page, "#edit-ttl", "3");
  await page.select("#edit-unit", "3600");
  assertMatch(await text(page, "#edit-ttl-hint"), /^in 3 hr., on \w+day, .* at \d/);
  await save();
  await rowsAre(page, [["a", "2", "in 3 hr."]]);

  await edit();
  for (const wrong of ["99999999999999999999", "0", "1.5", "-1"]) {
    await retype(page, "#edit-ttl", wrong);
    const expected = "Expected a whole number, from 1 to 596,523";
    assertEquals(await text(page, "#edit-ttl-hint"), expected, wrong);
    await page.click("#edit-save");
    assertEquals(await text(page, "#editor[open] h2"), "Edit entry", wrong);
  }
  await retype(page, "#edit-ttl", "1");
  await page.keyboard.press("Backspace");
  assertEquals(await text(page, "#edit-ttl-hint"), "Empty: never");
  await save();
  await rowsAre(page, [["a", "2", "never"]]);
}

async function deletePrefix(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  const many = Array.from({ length: 2345 }, (_, i) => [`a:${i}`, i]);
  await post(kv.url, JSON.stringify(Object.fromEntries([...many, ["b", 1], ["c", 2]])));
  await using visited = await visit(browser, `${kv.url}/?prefix=a:`);
  const { page } = visited;
  await eventually("the first page", async () => (await rows(page)).length === 50);
  assertEquals(await text(page, "#remove"), "Delete these");
  await page.click("#remove");
  const asked = 'Delete 2,345 entries with the prefix "a:"?';
  assertEquals(await answer(page, "Cancel"), asked);
  await page.click("#remove");
  assertEquals(await answer(page, "Delete"), asked);
  const message = (expected: string) =>
    eventually(expected, async () => await text(page, "#status") === expected);
  await message("Deleted 2,345 entries");
  assertEquals(await get(kv.url), '{"keys":["b","c"]}');

  await press(page, "#clear");
  await rowsAre(page, [["b", "1", "never"], ["c", "2", "never"]]);
  await page.click("#remove");
  assertEquals(await answer(page, "Delete"), "Delete everything: 2 entries?");
  await message("Deleted 2 entries");
  assertEquals(await get(kv.url), '{"keys":[]}');
}

async function dumpAndRestore(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, '{"a/1":1.10,"b":[]}');
  await put(`${kv.url}/a%2F2?ttl=200000`, '"x"');
  await using visited = await visit(browser, `${kv.url}/?prefix=a`);
  const { page } = visited;
  await eventually("two rows", async () => (await rows(page)).length === 2);
  const [name, dump = ""] = await page.$eval("#download", async (link) => {
    const { download, href } = link as HTMLAnchorElement;
    return [download, await (await fetch(href)).text()];
  });
  assertEquals(name, "kv.ndjson");
  const lines = [
    '{"key": "a/1", "value": 1.10, "expires": null}',
    '{"key": "a/2", "value": "x", "expires": EXPIRES}',
    "",
  ];
  assertEquals(dump.replace(/\d{13}/, "EXPIRES").split("\n"), lines);

  const message = (expected: string) =>
    eventually(expected, async () => await text(page, "#status") === expected);
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "lines.ndjson");
  const expired = `{"key":"a/4","value":4,"expires":1}\n`;
  await Deno.writeTextFile(file, `${dump}{"a/3": 3}\n${expired}`);
  await put(`${kv.url}/a%2F2`, '"changed"');
  const input = await page.$("#file") as ElementHandle<HTMLInputElement>;
  await input.uploadFile(file);
  assertEquals(
    await answer(page, "Restore"),
    "Restore lines.ndjson (1 KiB)? Each line is an entry, and replaces that of its key.",
  );
  await message("Restored 3 entries; 1 entry had expired");
  await rowsAre(page, [["a/1", "1.10", "never"], ["a/2", '"x"', "in 2 days"], [
    "a/3",
    "3",
    "never",
  ]]);

  await drop(page, '{\n  "a/4": 4\n}\n');
  await answer(page, "Restore");
  await eventually("that no line before is restored", async () => {
    const expected =
      /^Cannot restore line 1: expected one entry a line, .* \(it ends too early\)\.$/;
    return expected.test(await text(page, "#status.error"));
  });
  await drop(page, '{"a/4": 4}\n{"a/5"}\n');
  assertMatch(await answer(page, "Restore"), /^Restore dropped\.ndjson /);
  await eventually("where the lines are wrong", async () => {
    return /^Cannot restore line 2: .*\. Lines before may be restored\.$/.test(
      await text(page, "#status.error"),
    );
  });
  assertEquals(await get(`${kv.url}/a%2F4`), '{"a/4":4}', "the lines before it are restored");
}

async function sayBusy(browser: Browser): Promise<void> {
  await using slow = await startSlow();
  await slow.store.set("a", json(1));
  await using visited = await visit(browser, slow.url);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "never"]]);
  await hurry(page, 50);
  const status = () => text(page, "#status");
  const isBusy = async (expected: string, release: () => void) => {
    await eventually(expected, async () => await status() === expected);
    await delay(250); // other messages are gone after 100 ms
    assertEquals(await status(), expected);
    release();
    await eventually("its end", async () => await status() !== expected);
  };

  let release = slow.hold();
  await drop(page, '{"b":2}\n');
  await answer(page, "Restore");
  await isBusy("Restoring dropped.ndjson", release);
  await rowsAre(page, [["a", "1", "never"], ["b", "2", "never"]]);

  release = slow.hold();
  await page.click("#remove");
  await answer(page, "Delete");
  await page.type("#contains", "nothing"); // whose result is spoken
  await eventually(
    "the result",
    async () => await text(page, "#nothing-found:not([hidden])") !== "",
  );
  await isBusy("Deleting 2 entries", release);
  await rowsAre(page, []);
  await page.close(); // its stream of changes would keep the server
}

/** Drops a file on the page, as a person does with the mouse. */
async function drop(page: Page, content: string): Promise<void> {
  const isTaken = await page.evaluate((content) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([content], "dropped.ndjson"));
    const init = { bubbles: true, cancelable: true, dataTransfer };
    const over = new DragEvent("dragover", init);
    const table = document.querySelector("table");
    table?.dispatchEvent(over);
    table?.dispatchEvent(new DragEvent("drop", init));
    return over.defaultPrevented;
  }, content);
  assert(isTaken, "a browser would open the file instead");
}
