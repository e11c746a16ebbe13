/// <reference lib="dom" />
/** The entries on the service's page: shown, searched, laid out, in Chromium and Firefox. */
import { assert, assertEquals, assertMatch, assertNotEquals, assertNotMatch } from "@std/assert";
import type { Browser, Page } from "puppeteer-core";
import {
  noViolations,
  resize,
  screenshot,
  stepInBoth,
  testInBrowsers,
  visit,
} from "../helpers/browsers.ts";
import { press, rows, rowsAre, text } from "../helpers/explorer.ts";
import { kv } from "../../kv.ts";
import { json } from "../../stores/json/text.ts";
import { memoryStore } from "../../stores/memory.ts";
import { StoreUnavailable } from "../../stores/store.ts";
import { get, post, put, remove, serve } from "../helpers/http.ts";
import { eventually, startServer } from "../helpers/programs.ts";

const MARKUP = `<img src=x onerror="document.title='run'">`;

testInBrowsers("The explorer page", async (t, browsers) => {
  const step = stepInBoth(t, browsers);
  await step("shows the entries as they change", showEntries);
  await step("unfolds a value, in colours, with every digit", unfold);
  await step("turns pages, and keeps the prefix", turnPages);
  await step("finds a text in keys and values, and follows its changes", search);
  await step("lists a prefix that no field can hold", odd);
  await step("shows keys that could be taken for others as JSON", unseen);
  await step("shows what is unseen in a value as escapes, and copies it raw", escaped);
  await step("shows the others beside an entry that cannot be read", unreadable);
  await step("has columns as wide as their content, one baseline and even gaps", layout);
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

async function unfold(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  const key = "k".repeat(900);
  await put(`${kv.url}/${key}`, "1");
  const longText = "x".repeat(600);
  await put(`${kv.url}/long`, `{"price":1.10,"id":12345678901234567890,"text":"${longText}"}`);
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  const start = `{"price":1.10,"id":12345678901234567890,"text":"`;
  await rowsAre(page, [
    [key, "1", "never"],
    ["long", `${start}${"x".repeat(300 - start.length)}…`, "never"],
  ]);
  const size = () => text(page, "tr:last-child summary > small");
  assertEquals(await size(), "3 members");
  const keyHeight = () => page.$eval("bdi.key", (e) => e.getBoundingClientRect().height);
  assert(await keyHeight() < 80, "a long key takes three lines at most");
  await page.focus("tr:first-child summary");
  await page.keyboard.press("Enter");
  await eventually("all of the key", async () => await keyHeight() > 80);

  await page.focus("tr:last-child summary");
  await page.keyboard.press("Enter");
  const lines = () =>
    page.$$eval("tr:last-child .line", (all) => all.map((e) => (e as HTMLElement).innerText));
  const folded = `"text": "${"x".repeat(59)}…`;
  const shown = ["{", '"price": 1.10,', '"id": 12345678901234567890,', folded, "}"];
  await eventually("the members", async () => `${await lines()}` === `${shown}`);
  const colours = await page.$$eval("tr:last-child .inside > .line:first-child > *", (all) => {
    return all.map((e) => [e.textContent, getComputedStyle(e).color]);
  });
  assertEquals(colours.map(([text]) => text), ['"price"', "1.10"]);
  assertNotEquals(colours[0]?.[1], colours[1]?.[1], "a name and a number differ");
  await page.focus("tr:last-child .inside summary");
  await page.keyboard.press("Enter");
  const wholeText = async () => (await text(page, "tr:last-child .value")).includes(longText);
  await eventually("the whole text", wholeText);

  await put(`${kv.url}/long`, `{"price":1.20,"text":"${"y".repeat(600)}"}`);
  await eventually("the new value, still unfolded", async () => {
    return (await text(page, "tr:last-child .value")).includes("y".repeat(600));
  });
  const focused = () => page.evaluate(() => document.activeElement?.textContent);
  assertMatch(await focused() ?? "", /^"text"/, "the focus stays on the part");
  await put(`${kv.url}/long`, `[${Array(1001).fill("[]")}]`);
  await eventually("the first 1,000 of many members", async () => {
    return /… and 1 more, which Copy has/.test(await text(page, "tr:last-child .value"));
  });
  await put(`${kv.url}/one`, `{"list":[${Array(3000).fill(1)}]}`);
  await eventually("one member", async () => await size() === "1 member");

  const inside = "tr:nth-child(2) .value > details > .inside";
  await page.$eval(inside, (box) => box.scrollTop = 500);
  await put(`${kv.url}/long`, `[${Array(1001).fill("{}")}]`);
  await eventually("the new members", async () => /^\{\},/.test(await text(page, inside)));
  assertEquals(await page.$eval(inside, (box) => box.scrollTop), 500, "it stays where it was");
  await noViolations(page);
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
  const focused = () =>
    page.evaluate(() => document.activeElement?.id || document.activeElement?.className);
  assertEquals(await focused(), "previous plain", "the focus stays beside the disabled button");
  const first = names.slice(0, 5);
  await post(kv.url, JSON.stringify(first.map((key) => ({ op: "delete", key }))));
  await range("46–56 of 56");
  await post(kv.url, JSON.stringify(Object.fromEntries(first.map((name) => [name, 0]))));
  await range("51–61 of 61");
  const removed = [...names.slice(50), "b"].map((key) => ({ op: "delete", key }));
  await post(kv.url, JSON.stringify(removed));
  await shows("the page before the one that is gone", names.slice(0, 50));
  await eventually(
    "no pages",
    async () => await text(page, "nav:not([hidden]) .range") === "50 entries",
  );
  assertEquals(await focused(), "prefix", "the focus is not lost with the button");
  assertEquals(await text(page, ".notice:not([hidden])"), "", "the first page is not empty");
  await put(`${kv.url}/b`, "0");
  await range("1–50 of 51");

  await page.$eval("#live", (live) => {
    new MutationObserver(() => document.title = "spoken").observe(live, { childList: true });
  });
  await page.type("#prefix", "b");
  await shows("what is under the prefix", ["b"]);
  const spoken = (expected: string) =>
    eventually(expected, async () => await text(page, "#status.spoken") === expected);
  await spoken("1 entry");
  await put(`${kv.url}/a99`, "1");
  await put(`${kv.url}/bb`, "1");
  await shows("a new key under the prefix", ["b", "bb"]);
  assertEquals(await page.title(), "Key-value store", "it is not spoken that the page is live");
  await page.reload();
  await shows("the same after a reload", ["b", "bb"]);
  assertEquals(new URL(page.url()).search, "?prefix=b");
  await page.type("#prefix", "x");
  const nothing = "#nothing-found:not([hidden])";
  await eventually("a word", async () => await text(page, nothing) === "No entry matches.");
  await spoken("No entry matches.");
  await press(page, "#clear");
  await shows("every key", names.slice(0, 50));
  await spoken("1–50 of 53");
}

/** Clicks again before the first click has had an effect. */
async function doubleClick(page: Page, selector: string): Promise<void> {
  await page.$eval(selector, (button) => {
    for (let i = 0; i < 2; i++) (button as HTMLButtonElement).click();
  });
}

/** The texts that are marked as found. */
function marked(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const ranges = CSS.highlights.get("found") as unknown as Iterable<Range>;
    return Array.from(ranges, String);
  });
}

async function search(browser: Browser, name: string): Promise<void> {
  await using kv = await startServer("kv.ts");
  const many = Array.from({ length: 3000 }, (_, i) => [`n${i}`, `Visitor ${i}.`]);
  await post(kv.url, JSON.stringify(Object.fromEntries(many)));
  await put(`${kv.url}/a-visitor`, '{ "price": 1.10 }');
  await put(`${kv.url}/deep`, JSON.stringify({ before: "b".repeat(500), found: 'Zoë & "co"' }));
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  const find = async (wanted: string) => {
    await page.$eval("#contains", (field) => (field as HTMLInputElement).value = "");
    await page.type("#contains", wanted);
  };
  const range = async (expected: string) =>
    await eventually(expected, async () => {
      return await page.$eval("nav .range", (e) => e.textContent) === expected;
    });

  await find("vIsItOr 29");
  await range("1–50 of 111 found");
  assertEquals(await text(page, "#status.spoken"), "1–50 of 111 found");
  await eventually("a mark in each row", async () => (await marked(page)).length === 50);
  assertEquals((await marked(page))[0], "Visitor 29");
  assertEquals(await text(page, "#whole-prefix:not([hidden])") !== "", true);
  assertEquals((await rows(page))[1], ["n290", '"Visitor 290."', "never"]);
  for (let i = 0; i < 2; i++) {
    await press(page, "nav .next");
    await range(["51–100 of 111 found", "101–111 of 111 found"][i] ?? "");
  }
  await remove(`${kv.url}/n29`);
  await range("101–110 of 110 found");
  await find("visitor 2900");
  await rowsAre(page, [["n2900", '"Visitor 2900."', "never"]]);
  await put(`${kv.url}/new`, '"Visitor 29000"');
  await put(`${kv.url}/other`, '"Visitor"');
  await rowsAre(page, [["n2900", '"Visitor 2900."', "never"], ["new", '"Visitor 29000"', "never"]]);
  await put(`${kv.url}/n2900`, '"changed"');
  await rowsAre(page, [["new", '"Visitor 29000"', "never"]]);
  await range("1 entry found");
  assertEquals(await page.$eval("#remove", (e) => e.checkVisibility()), false, "not all of these");
  await page.reload();
  await rowsAre(page, [["new", '"Visitor 29000"', "never"]]);
  assertEquals(new URL(page.url()).search, "?contains=visitor+2900");

  await find('"price":1.10');
  await rowsAre(page, [["a-visitor", '{"price":1.10}', "never"]]);
  await eventually("a mark over colours", async () => `${await marked(page)}` === '"price":1.10');
  await find("A-VIS");
  await rowsAre(page, [["a-visitor", '{"price":1.10}', "never"]]);
  await eventually("a mark in the key", async () => `${await marked(page)}` === "a-vis");
  await find("zoë &");
  await eventually("the value from where it was found", async () => {
    return /^{… b+","found":"Zoë/.test((await rows(page))[0]?.[1] ?? "");
  });
  await find('& "co"');
  await eventually("a mark over escapes", async () => `${await marked(page)}` === '& \\"co\\"');
  await find('"price": 1.10');
  await rowsAre(page, [["a-visitor", '{"price":1.10}', "never"]]);
  await find("zoë &");
  await eventually("a mark", async () => `${await marked(page)}` === "Zoë &");
  await press(page, "tbody summary");
  await eventually("one where it unfolds", async () => `${await marked(page)}` === "Zoë &,Zoë &");
  await screenshot(page, `explorer-found-${name}`);
  await page.type("#prefix", "n");
  const nothing = "#nothing-found:not([hidden])";
  await eventually("a word", async () => await text(page, nothing) === "No entry matches.");
  await noViolations(page);
  await press(page, "#clear");
  await eventually("no mark", async () => (await marked(page)).length === 0);
}

/** An input drops the line break: what it then holds is another prefix. */
async function odd(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, '{"line\\nbreak":1,"line\\nbreak 2":2,"linebreak":3}');
  await using visited = await visit(browser, `${kv.url}/?prefix=line%0Abreak`);
  const { page } = visited;
  await rowsAre(page, [['"line\\nbreak"', "1", "never"], ['"line\\nbreak 2"', "2", "never"]]);
  assertEquals(await page.$eval("#prefix", (e) => (e as HTMLInputElement).value), '"line\\nbreak"');
  await page.type("#prefix", "x");
  await page.type("#contains", "2");
  await rowsAre(page, [['"line\\nbreak 2"', "2", "never"]]);
  assertEquals(new URL(page.url()).search, "?prefix=line%0Abreak&contains=2");
  await press(page, "#clear");
  await eventually("every key", async () => (await rows(page)).length === 3);
}

async function unseen(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  const long = "k".repeat(1000);
  const keys = [" ", "a", "a ", "a  b", "\u200b", "\u202elive", "\u{e0001}", "é 日本", long];
  for (const key of keys) await put(`${kv.url}/${encodeURIComponent(key)}`, "1");
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("all rows", async () => (await rows(page)).length === keys.length);
  const shown = (await rows(page)).map(([key]) => key);
  const expected = [
    '" "',
    "a",
    '"a "',
    '"a  b"',
    '"\\u200b"',
    '"\\u202elive"',
    '"\\udb40\\udc01"',
    "é 日本",
    long,
  ];
  assertEquals(shown.toSorted(), expected.toSorted());
  for (
    const [key = "", question] of [['"\\u200b"', '"\\u200b"'], [
      long,
      `${long.slice(0, 50)}…${long.slice(0, 50)}`,
    ]]
  ) {
    await page.evaluate((key) => {
      const all = [...document.querySelectorAll<HTMLElement>(".delete")];
      all.find((it) => it.ariaLabel === `Delete ${key}`)?.click();
    }, key);
    assertEquals(await text(page, "#question-text"), `Delete ${question}?`);
    await page.click("#question button:not([value=yes])");
  }
  await page.type("#contains", '"a  ');
  await rowsAre(page, [['"a  b"', "1", "never"]]);
  await press(page, ".edit");
  assertEquals(await text(page, "#edit-key-text"), '"a  b"', "Contains and Edit have it as shown");
}

async function escaped(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  const value = { admin: "user\u202enimda", "z\u00adw": "a\u200bb" };
  const shown = String.raw`{"admin":"user\u202enimda","z\u00adw":"a\u200bb"}`;
  await put(`${kv.url}/a`, JSON.stringify(value));
  await put(`${kv.url}/folded`, JSON.stringify({ value, text: "é 日本 ".repeat(40) }));
  await put(`${kv.url}/long`, `"${"a\u200b".repeat(10_000)}"`);
  await put(`${kv.url}/pairs`, `"${"😀".repeat(200)}"`);
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("all rows", async () => (await rows(page)).length === 4);
  const texts = (await rows(page)).map(([, text]) => text);
  assertEquals(texts[0], shown);
  assertEquals(texts[1], `{"value":${shown},"text":"${"é 日本 ".repeat(40)}"}`);
  assertEquals(texts[2], `"${String.raw`a\u200b`.repeat(149)}a…`);
  assertNotMatch(texts[3] ?? "", /\\u/, "no escape of the half of a pair where it is cut");
  for (const summary of await page.$$("tbody tr:nth-child(-n + 3) > td summary")) {
    await summary.focus();
    await page.keyboard.press("Enter");
  }
  const escapes = [/"admin": "user\\u202enimda"/, /"z\\u00adw": "a\\u200bb"/, /a\\u200ba\\u200b"$/];
  await eventually("the parts, unfolded", async () => {
    const inside = (await page.$$eval(".inside", (all) => all.map((e) => e.textContent))).join("");
    return escapes.every((it) => it.test(inside)) && !/[\u00ad\u200b\u202e]/.test(inside);
  });

  await page.evaluate(() => {
    const writeText = (text: string) => Promise.resolve(document.title = text);
    Object.defineProperty(navigator, "clipboard", { value: { writeText } });
  });
  await press(page, "tr:first-child .copy");
  await eventually("the copy", async () => await page.title() === JSON.stringify(value));
  await press(page, "tr:first-child .edit");
  const edited = await page.$eval("#edit-value", (e) => (e as HTMLTextAreaElement).value);
  assertNotMatch(edited, /[\u00ad\u200b\u202e]/);
  assertEquals(JSON.parse(edited), value);
  await put(`${kv.url}/a`, '"\u200b"');
  await page.click("#edit-save");
  await eventually("what is there instead", async () => {
    return await text(page, "#edit-current") === String.raw`"\u200b"`;
  });
  await page.click("#edit-save");
  await eventually(
    "the value",
    async () => await get(`${kv.url}/a`) === JSON.stringify({ a: value }),
  );
  await eventually("no dialog", async () => await text(page, "dialog[open]") === "");
  await page.type("#contains", String.raw`a\u200ba`);
  await eventually(
    "an escape",
    async () => (await rows(page)).map(([key]) => key).join() === "long",
  );
  await put(`${kv.url}/member`, '{"name":"x\u200by"}');
  await page.$eval("#contains", (field) => (field as HTMLInputElement).value = "");
  await page.type("#contains", String.raw`"name": "x\u200by"`);
  await rowsAre(page, [["member", String.raw`{"name":"x\u200by"}`, "never"]]);
}

async function unreadable(browser: Browser): Promise<void> {
  const memory = memoryStore();
  await memory.setAll(new Map(["a", "bad", "c"].map((key) => [key, json("İİ word")])));
  const gone = new StoreUnavailable("gone", { outcome: "unchanged" });
  const get = (key: string) => key === "bad" ? Promise.reject(gone) : memory.get(key);
  const app = kv({ ...memory, get });
  await using server = serve(app.fetch);
  await using visited = await visit(browser, `${server.url}/`);
  const { page } = visited;
  await rowsAre(page, ["a", "c"].map((key) => [key, '"İİ word"', "never"]));
  await eventually("the reason", async () => {
    return await text(page, "#status") === "Cannot read bad: The store is unavailable";
  });
  await page.type("#contains", "word");
  await eventually(
    "a mark behind other letters",
    async () => `${await marked(page)}` === "word,word",
  );
}

async function layout(browser: Browser, name: string): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, `{"a":1,"an-entry":${JSON.stringify({ a: "x".repeat(70), b: ["y"] })}}`);
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await eventually("two rows", async () => (await rows(page)).length === 2);
  await press(page, "tr:last-child summary");
  await eventually("an open row", async () => {
    return (await page.$$(".value > details > .inside > *")).length === 2;
  });
  const measured = await page.evaluate(() => {
    const boxes = (selector: string) =>
      [...document.querySelectorAll(selector)].map((e) => e.getBoundingClientRect());
    /** An empty inline block stands on the baseline. */
    const baseline = (selector: string) => {
      const mark = document.createElement("span");
      mark.style.display = "inline-block";
      document.querySelector(selector)?.prepend(mark);
      const { bottom } = mark.getBoundingClientRect();
      mark.remove();
      return Math.round(bottom);
    };
    const range = document.createRange();
    const words = [...document.querySelectorAll("tr:last-child .actions button")].map((button) => {
      range.selectNodeContents(button);
      return range.getBoundingClientRect();
    });
    const column = boxes("tbody th")[0]?.width ?? 0;
    const keys = boxes("bdi.key").map(({ width }) => width);
    return {
      keyColumn: column - Math.max(...keys),
      baselines: [".key", ".value .line", ".expires", ".copy", ".delete"]
        .map((it) => baseline(`tr:last-child ${it}`)),
      gaps: words.slice(1).map(({ left }, i) => Math.round(left - (words[i]?.right ?? 0))),
      colours: [".delete", ".edit", ".next"].map((it) =>
        getComputedStyle(document.querySelector(it) as HTMLElement).color
      ),
    };
  });
  assertEquals(Math.round(measured.keyColumn), 0, "the column of keys is as wide as a key");
  assertEquals(new Set(measured.baselines).size, 1, `one baseline: ${measured.baselines}`);
  assertEquals(new Set(measured.gaps).size, 1, `even gaps: ${measured.gaps}`);
  assertEquals(new Set(measured.colours).size, 3, "Delete looks neither disabled nor like Edit");

  if (name !== "chromium") return;
  const session = await page.createCDPSession();
  const features = [{ name: "forced-colors", value: "active" }];
  await session.send("Emulation.setEmulatedMedia", { features });
  await screenshot(page, "explorer-forced-colors");
  for (const part of [".tools", "tbody .actions"]) {
    const [space = 0, ...gaps] = await page.$eval(part, (it) => {
      const boxes = [...it.children].filter((e) => e.checkVisibility())
        .map((e) => e.getBoundingClientRect());
      const right = document.querySelector("table")?.getBoundingClientRect().right ?? 0;
      return boxes.map((box, i) => (boxes[i + 1]?.left ?? right) - box.right).reverse();
    });
    assert(space >= 0, "the last button is within the table");
    assert(gaps.every((gap) => gap > 0), `the buttons do not touch: ${gaps}`);
  }
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
  await resize(page, { width: 1000, height: 520 });
  await eventually("the rows", async () => (await rows(page)).length === 5);
  await noViolations(page);
  await screenshot(page, "explorer");
}
