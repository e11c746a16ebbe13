/// <reference lib="dom" />
/** A login in both browsers, with a button that is clicked twice. */
import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import type { Browser, Page } from "puppeteer-core";
import { shop } from "../../examples/shop/shop.tsx";
import { CookieSessionStore, KeyValueSessionStore } from "../../sessions.ts";
import { memoryStore } from "../../stores/memory.ts";
import { stepInBoth, testInBrowsers, visit } from "../helpers/browsers.ts";
import { storeWith } from "../helpers/faulty_stores.ts";
import { eventually } from "../helpers/programs.ts";
import { KEY } from "../helpers/session_app.ts";

/** How long the store takes for a call, and how long the user takes between two clicks. */
const [CALL, CLICKS] = [40, 300];

testInBrowsers("A double click logs in", async (t, browsers) => {
  const step = stepInBoth(t, browsers);
  await step("by one request", (browser) => logIn(browser, 1, async () => {}));
  await step(
    "by two, of which the browser drops the first answer",
    (browser) =>
      logIn(browser, 2, async (page) => {
        await page.evaluate(() =>
          document.querySelector("form[onsubmit]")?.removeAttribute("onsubmit")
        );
      }),
  );
});

testInBrowsers(
  "Back, after a logout, shows no page of the user that is no-store",
  async (t, browsers) => {
    const step = stepInBoth(t, browsers);
    await step("as the shop's pages are", (browser) => logOutAndGoBack(browser, false));
    await step("but does so without no-store", (browser) => logOutAndGoBack(browser, true));
  },
);

async function logOutAndGoBack(browser: Browser, isStored: boolean): Promise<void> {
  const memory = memoryStore();
  const visits = new KeyValueSessionStore(memory);
  const app = shop({ visits, preferences: new CookieSessionStore(KEY) });
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const response = await app.fetch(request);
      if (isStored && request.method === "GET") response.headers.delete("Cache-Control");
      return response;
    },
  );
  const url = `http://localhost:${server.addr.port}`;
  await using visited = await visit(browser, `${url}/login`);
  const { page } = visited;
  await page.type("input[name=user]", "ada");
  await page.type("input[name=password]", "analytical");
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  await page.goto(`${url}/basket`);
  assertMatch(await page.content(), /Log out ada/);
  await Promise.all([page.waitForNavigation(), page.click("form[action='/logout'] button")]);
  assertNotMatch(await page.content(), /Log out ada/);
  // Not by goBack(): a page from the browser's memory does not load.
  await page.evaluate(() => void setTimeout(() => history.back()));
  let shown = "";
  const isThere = async () => {
    shown = await page.evaluate(() => {
      const isLoaded = location.pathname === "/basket" && document.readyState === "complete";
      return isLoaded ? document.body.innerText : "";
    });
    return shown !== "";
  };
  // While it navigates, there is nothing to ask.
  await eventually("the page before", () => isThere().catch(() => false));
  (isStored ? assertMatch : assertNotMatch)(shown, /Log out ada/);
  await memory.close();
}

async function logIn(
  browser: Browser,
  requests: number,
  prepare: (page: Page) => Promise<void>,
): Promise<void> {
  const memory = memoryStore();
  const visits = new KeyValueSessionStore(storeWith(memory, () => delay(CALL)));
  const app = shop({ visits, preferences: new CookieSessionStore(KEY) });
  let posts = 0;
  const clicked = Promise.withResolvers<void>();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const isLogin = request.method === "POST" && request.url.endsWith("/login");
      if (isLogin && ++posts === requests) delay(2 * CLICKS).then(clicked.resolve);
      const response = await app.fetch(request);
      if (isLogin) await clicked.promise; // no answer comes before the second click
      return response;
    },
  );
  await using visited = await visit(browser, `http://localhost:${server.addr.port}/`);
  const { page } = visited;
  // So that there is a session to rotate.
  await Promise.all([page.waitForNavigation(), page.click("form[action='/basket/tea'] button")]);
  await page.goto(`http://localhost:${server.addr.port}/login`);
  await page.type("input[name=user]", "ada");
  await page.type("input[name=password]", "analytical");
  await prepare(page);
  await page.evaluate((pause) => {
    const field = document.querySelector<HTMLInputElement>("input[name=password]");
    const button = field?.form?.querySelector("button");
    button?.click();
    setTimeout(() => button?.click(), pause);
  }, CLICKS);
  await page.waitForNavigation();
  assertMatch(await page.content(), /Log out ada/);
  await page.reload();
  assertMatch(await page.content(), /Log out ada/);
  assertEquals(posts, requests);
  await memory.close();
}
