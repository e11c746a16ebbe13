/// <reference lib="dom" />
/**
 * The service's page in Chromium and Firefox: what a person does with it, by mouse and keyboard,
 * and what pages of other sites try. The page takes no `eval`, which puppeteer's waiting needs: here
 * its text is asked for until it is as expected.
 */
import { assert, assertEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import axe from "axe-core";
import type { Browser, Page } from "puppeteer-core";
import { kv } from "../../kv.ts";
import { memoryStore } from "../../stores/memory.ts";
import { json } from "../../stores/json_text.ts";
import { eventually, freePort, startServer } from "../helpers/programs.ts";
import { REBOUND_HOST, resize, screenshot, testInBrowsers, visit } from "../helpers/browsers.ts";

const JSON_TYPE = { "Content-Type": "application/json" };
const MARKUP = `<img src=x onerror="document.title='run'">`;

testInBrowsers("The explorer page", async (t, browsers) => {
  for (const [name, browser] of Object.entries(browsers)) {
    await t.step(`${name} shows the entries as they change`, () => showEntries(browser, name));
    await t.step(`${name} goes through the pages, and filters`, () => turnPages(browser));
    await t.step(`${name} copies and removes by the keyboard`, () => copyAndRemove(browser));
    await t.step(`${name} keeps up with keys that come all the time`, () => keepUp(browser));
    await t.step(`${name} watches where it is looked at`, () => openTabs(browser));
    await t.step(`${name} finds the service again`, () => reconnect(browser));
  }
  await t.step("chromium asks its reader for a token", () => askForToken(browsers.chromium));
});

testInBrowsers("Pages of other sites neither read nor change the service", async (t, browsers) => {
  for (const [name, browser] of Object.entries(browsers)) {
    await t.step(`in ${name}`, () => attack(browser));
    await t.step(`in ${name}, under a name that was pointed at it`, () => rebind(browser));
  }
});

async function showEntries(browser: Browser, name: string): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, `{"price":1.10,"${MARKUP.replaceAll('"', '\\"')}":${JSON.stringify(MARKUP)}}`);
  await put(`${kv.url}/long`, JSON.stringify("x".repeat(2000)));
  await put(`${kv.url}/session?ttl=200000`, '{"count":12}');
  await using visited = await visit(browser, kv.url);
  const { page } = visited;
  await rowsAre(page, [
    [MARKUP, `"${MARKUP.replaceAll('"', '\\"')}"`, "never"],
    ["long", `"${"x".repeat(299)}… (1702 more)`, "never"],
    ["price", "1.10", "never"],
    ["session", '{"count":12}', "in 2 days"],
  ]);
  await noViolations(page);
  await resize(page, { width: 360, height: 640 });
  await noViolations(page);
  await resize(page, { width: 900, height: 480 });
  await screenshot(page, `explorer-${name}`);

  await put(`${kv.url}/price`, "1.20");
  await put(`${kv.url}/new?ttl=2`, "[]");
  await Promise.all(["long", encodeURIComponent(MARKUP)].map(async (key) => {
    await (await fetch(`${kv.url}/${key}`, { method: "DELETE" })).body?.cancel();
  }));
  await page.evaluate((ahead) => {
    const { now } = Date;
    Date.now = () => now() + ahead;
  }, 86_400_000);
  await put(`${kv.url}/by-the-service-s-clock?ttl=200000`, "1");
  const days = /by-the-service-s-clock1in 2 days/;
  await eventually(
    "a time by the service's clock",
    async () => days.test(await text(page, "tbody")),
  );
  await (await fetch(`${kv.url}/by-the-service-s-clock`, { method: "DELETE" })).body?.cancel();
  await eventually("the price", async () => /price1\.20/.test(await text(page, "tbody")));
  await rowsAre(page, [["price", "1.20", "never"], ["session", '{"count":12}', "in 2 days"]]);
  await fetch(`${kv.url}/session`, { method: "DELETE" }).then((it) => it.body?.cancel());
  await fetch(`${kv.url}/price`, { method: "DELETE" }).then((it) => it.body?.cancel());
  await eventually("no row", async () => await text(page, "#empty:not([hidden])") !== "");
  assertEquals(await page.title(), "Key-value store", "nothing of the markup ran");
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
  await shows("the first page", names.slice(0, 50));
  await doubleClick(page, "#next");
  await eventually("page 2", async () => /^Page 2/.test(await text(page, "#page")));
  await doubleClick(page, "#previous");
  await eventually("page 1", async () => /^Page 1/.test(await text(page, "#page")));
  await page.click("#next");
  await shows("the second page", [...names.slice(50), "b"]);
  assertEquals(await text(page, "#page"), "Page 2");
  assertEquals(await page.$eval("#next", (e) => (e as HTMLButtonElement).disabled), true);
  const removed = [...names.slice(50), "b"].map((key) => ({ op: "delete", key }));
  await post(kv.url, JSON.stringify(removed));
  await shows("an empty page", []);
  await delay(1000); // the list comes after the changes
  assertEquals(await text(page, "#empty:not([hidden])"), "", "there is the first page");
  await put(`${kv.url}/b`, "0");
  await page.click("#previous");
  await shows("the first page again", names.slice(0, 50));
  await page.type("#filter", "b");
  await shows("what is under the prefix", ["b"]);
  await put(`${kv.url}/a99`, "1");
  await put(`${kv.url}/bb`, "1");
  await shows("a new key under the prefix", ["b", "bb"]);
}

/** Clicks again before the first click has had an effect. */
async function doubleClick(page: Page, selector: string): Promise<void> {
  await page.$eval(selector, (button) => {
    for (let i = 0; i < 2; i++) (button as HTMLButtonElement).click();
  });
}

async function copyAndRemove(browser: Browser): Promise<void> {
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
  await eventually("a message", async () => /^Copied .*a$/.test(await text(page, "#status")));
  assertEquals(await page.title(), '{"b":1.10}');

  const answers = [false, true];
  page.on("dialog", (dialog) => answers.shift() ? dialog.accept() : dialog.dismiss());
  await page.focus("tr:last-child .delete");
  await page.keyboard.press("Enter");
  await eventually("an answer", () => Promise.resolve(answers.length === 1));
  assertEquals(await value(`${kv.url}/c%2Fd%3F`), '{"c/d?":2}');
  await page.keyboard.press("Enter");
  await eventually("a message", async () => await text(page, "#status") === "Deleted c/d?");
  assertEquals(await value(`${kv.url}/c%2Fd%3F`), '{"c/d?":null}');
  await rowsAre(page, [["a", '{"b":1.10}', "never"]]);
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  await eventually("the focus in the row beside it", async () => await focused() === "Delete a");
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
  await first[Symbol.asyncDispose]();
  await eventually("a word of it", async () => /^Not conn/.test(await text(page, "#live")));
  await using second = await startServer("kv.ts", { port });
  await put(`${second.url}/b`, "2");
  await eventually("the service", async () => await text(page, "#live") === "Live");
  await eventually("its entry", async () => (await rows(page)).some(([key]) => key === "b"));
}

async function askForToken(chromium: Browser): Promise<void> {
  const [KV_TOKEN, KV_READ_TOKEN] = ["a-token-that-writes", "a-token-that-reads"];
  await using kv = await startServer("kv.ts", { env: { KV_TOKEN, KV_READ_TOKEN } });
  const headers = { ...JSON_TYPE, Authorization: `Bearer ${KV_TOKEN}` };
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

/** What a hostile page does in its visitor's browser. It shows what it could read. */
function attackPage(kv: string): string {
  return `<!DOCTYPE html><title>attack</title><img src="${kv}/secret"><iframe name="hole"></iframe>
    <form id="plain" method="post" action="${kv}/" target="hole" enctype="text/plain">
      <input name='{"form":"' value='"}'></form>
    <form id="coded" method="post" action="${kv}/" target="hole"><input name="form" value="1"></form>
    <script src="${kv}/?prefix="></script>
    <script type="module">
    const read = [];
    const json = { "Content-Type": "application/json" };
    const tries = [
      ["${kv}/secret", {}],
      ["${kv}/secret", { mode: "no-cors" }],
      ["${kv}/", { method: "POST", body: '{"fetched":1}', mode: "no-cors" }],
      ["${kv}/", { method: "POST", body: '{"fetched":1}', headers: json }],
      ["${kv}/", { method: "POST", body: new URLSearchParams({ fetched: 1 }) }],
      ["${kv}/secret", { method: "DELETE" }],
      ["${kv}/secret", { method: "PUT", body: "1", headers: json }],
    ];
    for (const [url, init] of tries) {
      try { read.push(await (await fetch(url, init)).text()); } catch { /* turned away */ }
    }
    navigator.sendBeacon("${kv}/", new Blob(['{"beacon":1}'], { type: "text/plain" }));
    document.getElementById("plain").submit();
    await new Promise((done) => setTimeout(done, 500));
    document.getElementById("coded").submit();
    await new Promise((done) => {
      const source = new EventSource("${kv}/");
      source.onerror = () => { source.close(); done(); };
      source.addEventListener("ready", () => { read.push("events"); done(); });
    });
    document.title = "done:" + read.join("");
    </script>`;
}

async function attack(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/secret`, '"of the service"');
  // Another port is another origin, of one site with the service; another name is another site, too.
  for (const target of [kv.url, kv.url.replace("localhost", "127.0.0.1")]) {
    await using other = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      () => new Response(attackPage(target), { headers: { "Content-Type": "text/html" } }),
    );
    await using visited = await visit(browser, `http://localhost:${other.addr.port}`);
    await eventually("the end of it", async () => /^done/.test(await visited.page.title()));
    assertEquals(await visited.page.title(), "done:");
  }
  assertEquals(await value(`${kv.url}/`), '{"keys":["secret"]}');
  assertEquals(await value(`${kv.url}/secret`), '{"secret":"of the service"}');
}

/** Points the name of a page that was loaded at the service: its origin is the service's then. */
async function rebind(browser: Browser): Promise<void> {
  const port = freePort();
  const other = Deno.serve(
    { hostname: "127.0.0.1", port, onListen() {} },
    () => new Response("<!DOCTYPE html>", { headers: { "Content-Type": "text/html" } }),
  );
  await using visited = await visit(browser, `http://${REBOUND_HOST}:${port}`);
  await other.shutdown();
  await using kv = await startServer("kv.ts", { port });
  await put(`${kv.url}/secret`, '"of the service"');
  const statuses = await visited.page.evaluate(async () => {
    const init = { method: "PUT", body: "1", headers: { "Content-Type": "application/json" } };
    const answers = await Promise.all([fetch("/secret"), fetch("/secret", init), fetch("/")]);
    return answers.map(({ status }) => status);
  });
  assertEquals(statuses, [403, 403, 403]);
  assertEquals(await value(`${kv.url}/secret`), '{"secret":"of the service"}');
}

// ---- The page, and the service below it ----------------------------------------------------

/** The texts of the rows: key, value and when it expires. */
async function rows(page: Page): Promise<string[][]> {
  return await page.$$eval("tbody tr", (rows) =>
    rows.map((row) => {
      const cells = row.querySelectorAll(".key, .value, .expires");
      return Array.from(cells, (cell) => cell.textContent ?? "");
    }));
}

async function rowsAre(page: Page, expected: string[][]): Promise<void> {
  let shown: string[][] = [];
  await eventually("the rows", async () => {
    shown = await rows(page);
    return JSON.stringify(shown) === JSON.stringify(expected);
  }).catch(() => {}); // what is shown tells more
  assertEquals(shown, expected);
}

/** The text of what a selector finds, or nothing. */
async function text(page: Page, selector: string): Promise<string> {
  return (await page.$$eval(selector, (all) => all.map((e) => e.textContent))).join("");
}

/** Asks axe, in the light and in the dark. */
async function noViolations(page: Page): Promise<void> {
  for (const scheme of ["dark", "light"]) {
    await page.evaluate((it) => document.documentElement.style.colorScheme = it, scheme);
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => {
      return (globalThis as unknown as { axe: typeof axe }).axe.run();
    });
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`);
    assertEquals(found, [], scheme);
  }
}

async function value(url: string): Promise<string> {
  return await (await fetch(url)).text();
}

async function put(url: string, body: string): Promise<void> {
  const response = await fetch(url, { method: "PUT", body, headers: JSON_TYPE });
  assert(response.ok, await response.text());
}

async function post(url: string, body: string): Promise<void> {
  const response = await fetch(url, { method: "POST", body, headers: JSON_TYPE });
  assert(response.ok, await response.text());
}
