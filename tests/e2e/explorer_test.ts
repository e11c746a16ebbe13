/// <reference lib="dom" />
/**
 * The service's page in Chromium and Firefox, by mouse and keyboard. The page forbids `eval`, which
 * puppeteer's waiting needs, so these tests ask for its text until it is as expected.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import type { Browser, Page } from "puppeteer-core";
import { kv } from "../../kv.ts";
import { memoryStore } from "../../stores/memory.ts";
import { json } from "../../stores/json_text.ts";
import {
  inBoth,
  noViolations,
  resize,
  screenshot,
  testInBrowsers,
  visit,
} from "../helpers/browsers.ts";
import { get, post, put, remove } from "../helpers/http.ts";
import { eventually, freePort, startServer } from "../helpers/programs.ts";

const MARKUP = `<img src=x onerror="document.title='run'">`;

testInBrowsers("The explorer page", async (t, browsers) => {
  const step = (promise: string, run: (browser: Browser, name: string) => Promise<void>) =>
    t.step(promise, () => inBoth(browsers, run));
  await step("shows the entries as they change", showEntries);
  await step("opens a value, with every digit", openValue);
  await step("turns pages, and keeps the filter", turnPages);
  await step("copies and deletes by the keyboard", copyAndDelete);
  await step("adds and edits over the revision seen", addAndEdit);
  await step("works under a path prefix, on a phone", underPrefix);
  await step("keeps up with keys that keep coming", keepUp);
  await step("watches only in the tab in front", openTabs);
  await step("dims what may be stale, and reconnects", reconnect);
  await t.step("asks for a token", () => askForToken(browsers.chromium));
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

/** Behind a proxy that serves the service under `/kv/`, as one more page of its site. */
async function underPrefix(browser: Browser, name: string): Promise<void> {
  await using kv = await startServer("kv.ts");
  await using proxy = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      const { pathname, search } = new URL(request.url);
      if (!pathname.startsWith("/kv/")) return new Response("not of the service", { status: 404 });
      const { method, headers, body } = request;
      return fetch(kv.url + pathname.slice(3) + search, { method, headers, body });
    },
  );
  await using visited = await visit(browser, `http://localhost:${proxy.addr.port}/kv/`);
  const { page } = visited;
  await resize(page, { width: 360, height: 640 });
  const command = async () => await text(page, "#command");
  await eventually(
    "its address",
    async () => /^http localhost:\d+\/kv\/ foo=bar$/.test(await command()),
  );
  await page.click("button.add");
  await page.type("#edit-key", "long");
  await page.type("#edit-value", `"${"x".repeat(100)}"`);
  await page.click("#edit-save");
  await rowsAre(page, [["long", `"${"x".repeat(100)}"`, "never"]]);

  assertEquals(await page.$eval("html", (e) => e.scrollWidth), 360, "it fits a phone");
  const heights = await page.$$eval(
    "button, summary, input",
    (all) => all.filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect().height),
  );
  assertEquals(heights.filter((height) => height < 40), [], "each target has 40 pixels");
  await noViolations(page);
  await screenshot(page, `explorer-phone-${name}`);
  await page.close(); // its stream of changes would keep the proxy
}

/** Over a service whose lists take longer to come than new keys do. */
async function keepUp(browser: Browser): Promise<void> {
  const store = memoryStore();
  const service = kv(store);
  let beforeAnswer = async () => {};
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const response = await service.fetch(request);
      if (request.method === "POST") await beforeAnswer().then(() => delay(400));
      return response;
    },
  );
  await store.set("a", json("old"));
  await using visited = await visit(browser, `http://localhost:${server.addr.port}`);
  const { page } = visited;
  await rowsAre(page, [["a", '"old"', "never"]]);
  beforeAnswer = async () => void await store.set("a", json("new"));
  await store.set("b", json(1));
  await rowsAre(page, [["a", '"new"', "never"], ["b", "1", "never"]]);
  beforeAnswer = async () => {};

  await page.evaluate(() => {
    const value = document.querySelector("tbody .value");
    if (value) getSelection()?.selectAllChildren(value);
  });
  let count = 0;
  const timer = setInterval(() => store.set(`c${count++}`, json(1)), 50);
  await eventually("the keys that came", async () => (await rows(page)).length >= 10)
    .finally(() => clearInterval(timer));
  assertEquals(await page.evaluate(() => getSelection()?.toString()), '"new"');
  await page.close(); // its stream of changes would keep the server
  await store.close();
}

/** In more tabs than a browser has connections to one service. */
async function openTabs(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/a`, "1");
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "never"]]);
  for (let i = 0; i < 7; i++) {
    const tab = await page.browserContext().newPage();
    await tab.goto(kv.url);
    await rowsAre(tab, [["a", "1", "never"]]);
  }
  await put(`${kv.url}/a`, "2");
  await page.bringToFront();
  await rowsAre(page, [["a", "2", "never"]]);
}

async function reconnect(browser: Browser): Promise<void> {
  const port = freePort();
  const first = await startServer("kv.ts", { port });
  await put(`${first.url}/a`, "1");
  await using visited = await visit(browser, first.url);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "never"]]);
  const opacity = () => page.$eval("tbody", (e) => Number(getComputedStyle(e).opacity));
  assertEquals(await opacity(), 1);
  await first[Symbol.asyncDispose]();
  const live = () => text(page, "#live");
  await eventually("a word", async () => /^Not connected since \d/.test(await live()));
  assertEquals(await opacity(), 0.6);
  await using second = await startServer("kv.ts", { port });
  await put(`${second.url}/b`, "2");
  await eventually("the service", async () => await live() === "Live");
  await eventually("its entry", async () => (await rows(page)).some(([key]) => key === "b"));
  assertEquals(await opacity(), 1);
}

async function askForToken(chromium: Browser): Promise<void> {
  const [KV_TOKEN, KV_READ_TOKEN] = ["a-token-that-writes", "a-token-that-reads"];
  await using kv = await startServer("kv.ts", { env: { KV_TOKEN, KV_READ_TOKEN } });
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${KV_TOKEN}` };
  await (await fetch(`${kv.url}/a`, { method: "PUT", body: "1", headers })).body?.cancel();
  const without = await fetch(kv.url, { headers: { Accept: "text/html" } });
  assertEquals(without.status, 401);
  await without.body?.cancel();
  await using reader = await visit(chromium, kv.url.replace("//", `//reader:${KV_READ_TOKEN}@`));
  await rowsAre(reader.page, [["a", "1", "never"]]);
  reader.page.on("dialog", (dialog) => dialog.accept());
  await reader.page.click("tbody .delete");
  await eventually("a refusal", async () => {
    return await text(reader.page, "#status") === "Cannot write with a token of KV_READ_TOKEN";
  });
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

// ---- The page ------------------------------------------------------------------------------

/** The texts of the rows: key, value and when it expires. */
async function rows(page: Page): Promise<string[][]> {
  return await page.$$eval("tbody tr", (rows) =>
    rows.map((row) => {
      const value = row.querySelector(".value:not([hidden]), details:not([hidden]) summary");
      const cells = [row.querySelector(".key"), value, row.querySelector(".expires")];
      return Array.from(cells, (cell) => cell?.textContent ?? "");
    }));
}

async function rowsAre(page: Page, expected: string[][]): Promise<void> {
  let shown: string[][] = [];
  await eventually("the rows", async () => {
    shown = await rows(page);
    return JSON.stringify(shown) === JSON.stringify(expected);
  }, 20).catch(() => {}); // what is shown tells more
  assertEquals(shown, expected);
}

/** The text of what a selector finds, or nothing. */
async function text(page: Page, selector: string): Promise<string> {
  return (await page.$$eval(selector, (all) => all.map((e) => e.textContent))).join("");
}
