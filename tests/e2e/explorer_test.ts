/// <reference lib="dom" />
/** The entries on the service's page, in Chromium and Firefox, by mouse and keyboard. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import type { Browser, Page } from "puppeteer-core";
import {
  noViolations,
  resize,
  screenshot,
  stepInBoth,
  testInBrowsers,
  visit,
} from "../helpers/browsers.ts";
import { rows, rowsAre, text } from "../helpers/explorer.ts";
import { get, post, put, remove } from "../helpers/http.ts";
import { eventually, startServer } from "../helpers/programs.ts";

const MARKUP = `<img src=x onerror="document.title='run'">`;

testInBrowsers("The explorer page", async (t, browsers) => {
  const step = stepInBoth(t, browsers);
  await step("shows the entries as they change", showEntries);
  await step("opens a value, with every digit", openValue);
  await step("turns pages, and keeps the filter", turnPages);
  await step("copies and deletes by the keyboard", copyAndDelete);
  await step("adds and edits over the revision seen", addAndEdit);
  await t.step("is in the README as it is", () => picture(browsers.chromium));
});

async function showEntries(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  const command = async () => await text(page, "#empty:not([hidden]) #command");
  await eventually("the first command", async () => (await command()) !== "");
  assertEquals(await command(), `http ${new URL(kv.url).host} foo=bar`);

  await post(kv.url, `{"price":1.10,"${MARKUP.replaceAll('"', '\\"')}":${JSON.stringify(MARKUP)}}`);
  await put(`${kv.url}/session?ttl=200000`, '{"count":12}');
  await rowsAre(page, [
    [MARKUP, `"${MARKUP.replaceAll('"', '\\"')}"`, "never"],
    ["price", "1.10", "never"],
    ["session", '{"count":12}', "in 2 days"],
  ]);
  assertEquals(await text(page, "nav:not([hidden])"), "3 entriesPreviousNext");
  assertEquals(await page.$eval("nav .next", (e) => e.checkVisibility()), false, "one page");
  const [iso, title] = await page.$eval("tbody time", (e) => [e.dateTime, e.title]);
  const days = (Date.parse(iso ?? "") - Date.now()) / 86_400_000;
  assert(days > 2.2 && days < 2.4, iso);
  assertMatch(title ?? "", /day, .*20\d\d at .*:\d\d/, "the exact time on hover");

  await put(`${kv.url}/price`, "1.20");
  await put(`${kv.url}/new?ttl=2`, "[]");
  await remove(`${kv.url}/${encodeURIComponent(MARKUP)}`);
  await page.evaluate((ahead) => {
    const { now } = Date;
    Date.now = () => now() + ahead;
  }, 86_400_000);
  await put(`${kv.url}/by-the-service-s-clock?ttl=200000`, "1");
  const inTwoDays = /by-the-service-s-clock1in 2 days/;
  await eventually(
    "a time by the service's clock",
    async () => inTwoDays.test(await text(page, "tbody")),
  );
  await remove(`${kv.url}/by-the-service-s-clock`);
  await rowsAre(page, [["price", "1.20", "never"], ["session", '{"count":12}', "in 2 days"]]);
  await remove(`${kv.url}/session`);
  await remove(`${kv.url}/price`);
  await eventually("no entries", async () => await command() !== "");
  assertEquals(await page.title(), "Key-value store", "nothing of the markup ran");
}

async function openValue(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  const key = "k".repeat(900);
  await put(`${kv.url}/${key}`, "1");
  await put(
    `${kv.url}/long`,
    `{"price":1.10,"id":12345678901234567890,"text":"${"x".repeat(400)}"}`,
  );
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  const start = `{"price":1.10,"id":12345678901234567890,"text":"`;
  await rowsAre(page, [
    [key, "1", "never"],
    [
      "long",
      `${start}${"x".repeat(300 - start.length)}… (${402 + start.length - 300} more)`,
      "never",
    ],
  ]);
  const keyHeight = () => page.$eval("bdi.key", (e) => e.getBoundingClientRect().height);
  assert(await keyHeight() < 80, "a long key takes three lines at most");
  await page.focus("tr:first-child summary");
  await page.keyboard.press("Enter");
  await eventually("all of the key", async () => await keyHeight() > 80);
  await page.focus("tr:last-child summary");
  await page.keyboard.press("Enter");
  const whole = async () => await text(page, "tr:last-child pre");
  await eventually("the value", async () => await whole() !== "");
  assertEquals(
    await whole(),
    `{\n  "price": 1.10,\n  "id": 12345678901234567890,\n  "text": "${"x".repeat(400)}"\n}`,
  );
  await put(`${kv.url}/long`, `{"price":1.20,"text":"${"y".repeat(400)}"}`);
  await eventually("the new value, still open", async () => /1\.20/.test(await whole()));
}

async function turnPages(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  const names = Array.from({ length: 60 }, (_, i) => `a${String(i).padStart(2, "0")}`);
  await post(kv.url, JSON.stringify(Object.fromEntries([...names, "b"].map((name) => [name, 0]))));
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  const keys = async () => (await rows(page)).map(([key]) => key);
  const shows = (what: string, expected: string[]) =>
    eventually(what, async () => `${await keys()}` === `${expected}`);
  const range = async (expected: string) =>
    await eventually(expected, async () => await text(page, "nav .range") === expected.repeat(2));
  await shows("the first page", names.slice(0, 50));
  await range("1–50 of 61");
  await doubleClick(page, "nav .next");
  await range("51–61 of 61");
  await doubleClick(page, "nav .previous");
  await range("1–50 of 61");
  await page.focus("nav .next");
  await page.keyboard.press("Enter");
  await shows("the second page", [...names.slice(50), "b"]);
  await range("51–61 of 61");
  assertEquals(await text(page, "#status"), "51–61 of 61", "a screen reader is told");
  assertEquals(await page.$eval("nav .next", (e) => (e as HTMLButtonElement).disabled), true);
  const focused = await page.evaluate(() => document.activeElement?.className);
  assertEquals(focused, "previous plain", "the focus stays beside the disabled button");
  const removed = [...names.slice(50), "b"].map((key) => ({ op: "delete", key }));
  await post(kv.url, JSON.stringify(removed));
  await shows("an empty page", []);
  await delay(1000); // the list comes after the changes
  assertEquals(await text(page, ".notice:not([hidden])"), "", "the first page is not empty");
  await put(`${kv.url}/b`, "0");
  await page.click("nav .previous");
  await shows("the first page again", names.slice(0, 50));

  await page.type("#filter", "b");
  await shows("what is under the prefix", ["b"]);
  await put(`${kv.url}/a99`, "1");
  await put(`${kv.url}/bb`, "1");
  await shows("a new key under the prefix", ["b", "bb"]);
  await page.reload();
  await shows("the same after a reload", ["b", "bb"]);
  assertEquals(new URL(page.url()).search, "?prefix=b");
  await page.type("#filter", "x");
  await eventually(
    "a word",
    async () => /^No key/.test(await text(page, "#nothing-found:not([hidden])")),
  );
  await page.click("#clear-filter");
  await shows("every key", names.slice(0, 50));
}

/** Clicks again before the first click has had an effect. */
async function doubleClick(page: Page, selector: string): Promise<void> {
  await page.$eval(selector, (button) => {
    for (let i = 0; i < 2; i++) (button as HTMLButtonElement).click();
  });
}

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
  await eventually("a word on the button", async () => await text(page, ".copy") === "CopiedCopy");
  assertEquals(await text(page, "#status"), "Copied the value of a");
  assertEquals(await page.title(), '{"b":1.10}');
  await eventually("the button as it was", async () => await text(page, ".copy") === "CopyCopy");

  const answers = [false, true];
  page.on("dialog", (dialog) => answers.shift() ? dialog.accept() : dialog.dismiss());
  await page.focus("tr:last-child .delete");
  await page.keyboard.press("Enter");
  await eventually("an answer", () => Promise.resolve(answers.length === 1));
  assertEquals(await get(`${kv.url}/c%2Fd%3F`), '{"c/d?":2}');
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

  page.removeAllListeners("dialog");
  page.once("dialog", async (dialog) => {
    await put(`${kv.url}/a`, "5");
    await dialog.accept();
  });
  await page.keyboard.press("Enter");
  const message = "a was not deleted, since it has just changed. Look at it again.";
  await eventually("a refusal", async () => await text(page, "#status") === message);
  assertEquals(await get(`${kv.url}/a`), '{"a":5}');
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
  await page.focus("button.add");
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
  assertEquals(await text(page, "#status"), "Saved a//b");

  await page.click("button.add");
  await page.type("#edit-key", "taken");
  await page.type("#edit-value", "2");
  await page.focus("#edit-save");
  await save();
  await problem(/this key exists already.*1\.10/s);
  assertEquals(await get(`${kv.url}/taken`), '{"taken":1.10}');
  await noViolations(page, ["light"]);
  const answers = [false, true];
  page.on("dialog", (dialog) => answers.shift() ? dialog.accept() : dialog.dismiss());
  await page.keyboard.press("Escape");
  await eventually("a question", () => Promise.resolve(answers.length === 1));
  assertEquals(await text(page, "dialog[open] h2"), "Add an entry", "what was typed is kept");
  await page.click("#edit-cancel");
  await eventually("no dialog", async () => await text(page, "dialog[open] h2") === "");

  await page.click("tr:last-child .edit");
  await retype(page, "#edit-value", "2.00");
  await put(`${kv.url}/taken?ttl=400000`, "3.00");
  await page.focus("#edit-save");
  await save();
  await problem(/has changed meanwhile.*3\.00/s);
  assertEquals(await get(`${kv.url}/taken`), '{"taken":3.00}');
  await save();
  await rowsAre(page, [["a//b", '{"n":1.50}', "never"], ["taken", "2.00", "in 4 days"]]);
}

async function retype(page: Page, selector: string, text: string): Promise<void> {
  await page.$eval(selector, (field) => (field as HTMLTextAreaElement).value = "");
  await page.type(selector, text);
}

/** As the README shows it. */
async function picture(chromium: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/0f6b2c1e-6d0e-4a57-9f55-d2f7e1b0a001?ttl=2678400`, '{"count":12}');
  await put(`${kv.url}/9c1f3f0a-2b57-4b8e-8f5e-6a1d2c3b4e5f?ttl=2578400`, '{"count":3}');
  await put(`${kv.url}/cpsc449`, '{"room":"E-113","points":9.50}');
  await put(`${kv.url}/github`, '"csuf"');
  await put(`${kv.url}/one-time-code?ttl=95`, '{"code":"417"}');
  await using visited = await visit(chromium, kv.url);
  const { page } = visited;
  await resize(page, { width: 1000, height: 500 });
  await eventually("the rows", async () => (await rows(page)).length === 5);
  await noViolations(page);
  await screenshot(page, "explorer");
}
