/// <reference lib="dom" />
/** A login in both browsers, with a button that is clicked twice. */
import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import type { Browser, Page } from "puppeteer-core";
import { shop } from "../../examples/shop/shop.tsx";
import { CookieSessionStore, KeyValueSessionStore } from "../../sessions.ts";
import { memoryStore } from "../../stores/memory.ts";
import { stepInBoth, testInBrowsers, visit } from "../helpers/browsers.ts";
import { eventually } from "../helpers/programs.ts";
import { KEY } from "../helpers/session_app.ts";
import { scoped } from "../helpers/scoped.ts";
import { serve } from "../helpers/http.ts";

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
  await using memory = scoped(memoryStore());
  const visits = new KeyValueSessionStore(memory);
  const app = shop({ visits, preferences: new CookieSessionStore(KEY) });
  await using server = serve(async (request) => {
    const response = await app.fetch(request);
    if (isStored && request.method === "GET") response.headers.delete("Cache-Control");
    return response;
  });
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
}

async function logIn(
  browser: Browser,
  requests: number,
  prepare: (page: Page) => Promise<void>,
): Promise<void> {
  await using memory = scoped(memoryStore());
  const visits = new KeyValueSessionStore(memory);
  const app = shop({ visits, preferences: new CookieSessionStore(KEY) });
  let posts = 0;
  /** Whether the first and the second click have sent the form. */
  const sent: Record<string, string> = {};
  const [arrived, clicked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const release = () => "second" in sent && posts >= requests && clicked.resolve();
  await using server = serve(async (request) => {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/clicked") {
      for (const [which, isSent] of searchParams) sent[which] = isSent;
      release();
      await arrived.promise;
      return new Response();
    }
    const response = await app.fetch(request);
    if (request.method === "POST" && pathname === "/login") {
      posts++;
      arrived.resolve();
      release();
      await clicked.promise; // no answer comes before the second click
    }
    return response;
  });
  await using visited = await visit(browser, `http://localhost:${server.addr.port}/`);
  const { page } = visited;
  // So that there is a session to rotate.
  await Promise.all([page.waitForNavigation(), page.click("form[action='/basket/tea'] button")]);
  await page.goto(`http://localhost:${server.addr.port}/login`);
  await page.type("input[name=user]", "ada");
  await page.type("input[name=password]", "analytical");
  await page.evaluate((now) => Date.now = () => now, Date.now()); // however slow the machine is
  await prepare(page);
  const clickTwice = () =>
    page.$eval("input[name=password]", ({ form }) => {
      const click = async (which: string) => {
        let isSent = false;
        const see = (event: Event) => isSent = !event.defaultPrevented;
        form?.addEventListener("submit", see, { once: true });
        form?.querySelector("button")?.click();
        // Firefox ends what is under way when a navigation begins.
        while (!await fetch(`/clicked?${which}=${isSent}`).catch(() => null));
      };
      void click("first").then(() => click("second"));
    });
  await Promise.all([page.waitForNavigation(), clickTwice()]);
  assertEquals(sent, { first: "true", second: `${requests === 2}` });
  assertMatch(await page.content(), /Log out ada/);
  await page.reload();
  assertMatch(await page.content(), /Log out ada/);
  assertEquals(posts, requests);
}
