/// <reference lib="dom" />
/**
 * The counter in Chromium and Firefox at the same time, as two people use it. Headers are read from
 * the browsers, which show them in their developer tools, too.
 */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import type { HTTPResponse, Page } from "puppeteer-core";
import { freePort, runToEnd, startServer } from "../helpers/programs.ts";
import {
  type Browsers,
  noViolations,
  resize,
  screenshot,
  testInBrowsers,
  type Visit,
  visit,
} from "../helpers/browsers.ts";
import { serve, UUID4 } from "../helpers/http.ts";

testInBrowsers("The counter page in Chromium and Firefox", async (t, browsers) => {
  await t.step(
    "has a count for each browser, in a signed cookie that each load changes",
    () => countInCookie(browsers),
  );
  await t.step(
    "says that the store is unavailable, and loads again by itself",
    () => missStore(browsers),
  );
  await using kv = await startServer("kv.ts");
  const config = { USE_SESSION_STORE: true, KV_URL: kv.url };
  await using counter = await startServer("counter.ts", { config });
  await t.step(
    "has a count for each browser, under one session id each, and dump.ts lists both",
    () => countInStore(browsers, counter.url, kv.url),
  );
  await t.step(
    "has a Reset button that clears the cookie and ends the session",
    () => reset(browsers, counter.url, kv.url),
  );
  await t.step("needs one operation on the store for each load", () => useStore(browsers, kv.url));
  await t.step(
    "works without JavaScript, by the keyboard, on a phone, and zoomed to 200 %",
    () => forEveryone(browsers, counter.url),
  );
  await t.step(
    "has both buttons on one line, and even space around",
    () => evenSpace(browsers, counter.url),
  );
});

async function countInCookie({ chromium, firefox }: Browsers): Promise<void> {
  const config = { SECRET_KEY: "a secret key for two browsers" };
  await using counter = await startServer("counter.ts", { config });
  await using a = await visit(chromium, counter.url);
  await using b = await visit(firefox, counter.url);
  const [cookiesA, cookiesB] = await Promise.all([refresh(a, 5), refresh(b, 3)]);

  assertEquals([await heading(a.page), await heading(b.page)], ["Count: 5", "Count: 3"]);
  for (const [cookies, counts] of [[cookiesA, 5], [cookiesB, 3]] as const) {
    assertEquals(new Set(cookies).size, counts, `two cookies are equal: ${cookies}`);
    for (const [i, cookie] of cookies.entries()) {
      const [, payload = ""] =
        /^session=([\w-]+)\.[\w-]+\.[\w-]+; HttpOnly; SameSite=Lax; Path=\/$/.exec(cookie) ?? [];
      assertEquals(atob(payload), JSON.stringify({ count: i + 1 }));
    }
  }
  assertEquals(await shownCookies(a.page), [cookiesA.at(-1)]);
  await picture(a.page, "counter-cookie");
  await picture(b.page, "counter-cookie-firefox");
}

async function missStore({ chromium, firefox }: Browsers): Promise<void> {
  const port = freePort();
  const KV_URL = `http://localhost:${port}`;
  const config = { USE_SESSION_STORE: true, KV_URL };
  await using counter = await startServer("counter.ts", { config });
  await using a = await visit(chromium, counter.url);
  await using b = await visit(firefox, counter.url);
  for (const { page, first } of [a, b]) {
    assertEquals(first.status(), 503);
    assertEquals(first.headers()["set-cookie"], undefined);
    assertEquals(await heading(page), "Temporarily unavailable");
    const alert = await page.waitForSelector("[role=alert]", { visible: true });
    assertMatch(await alert?.evaluate((e) => e.textContent) ?? "", /store .* is unavailable/);
  }
  assertMatch(
    counter.program.output,
    new RegExp(`counter: ${KV_URL} cannot be reached: .*refused`),
  );
  await screenshot(a.page, "store-not-there");
  await screenshot(b.page, "store-not-there-firefox");

  for (const { page } of [a, b]) {
    assertEquals(
      await page.$eval("a.button", (e) => (e as HTMLAnchorElement).href),
      `${counter.url}/`,
    );
  }
  await using _kv = await startServer("kv.ts", { port });
  // Without a click. The pages may have loaded again before the test knows that the service is there.
  for (const { page } of [a, b]) {
    await page.waitForFunction('document.querySelector("h1")?.textContent === "Count: 1"');
  }
}

async function countInStore({ chromium, firefox }: Browsers, url: string, kvUrl: string) {
  await using a = await visit(chromium, url);
  await using b = await visit(firefox, url);
  const [cookiesA, cookiesB] = await Promise.all([refresh(a, 4), refresh(b, 3)]);

  assertEquals([await heading(a.page), await heading(b.page)], ["Count: 4", "Count: 3"]);
  const [idA, idB] = [sessionId(cookiesA[0]), sessionId(cookiesB[0])];
  assertNotEquals(idA, idB);
  assertEquals(cookiesA.map(sessionId), Array(4).fill(idA));
  assertEquals(cookiesB.map(sessionId), Array(3).fill(idB));

  const { stdout } = await runToEnd(Deno.execPath(), ["run", "--allow-net", "dump.ts", kvUrl]);
  assertEquals(
    stdout.trimEnd().split("\n").sort(),
    [`{"${idA}": {"count":4}}`, `{"${idB}": {"count":3}}`].sort(),
  );
  assertEquals(await shownCookies(b.page), [cookiesB.at(-1)]);
  assertEquals(await a.page.$eval("section a", (e) => (e as HTMLAnchorElement).href), `${kvUrl}/`);
  await picture(a.page, "counter-store");
  await picture(b.page, "counter-store-firefox");
}

async function reset({ chromium, firefox }: Browsers, url: string, kvUrl: string) {
  await using a = await visit(chromium, url);
  await using b = await visit(firefox, url);
  for (const visit of [a, b]) {
    const { page } = visit;
    const [id] = (await refresh(visit, 3)).map(sessionId);
    assertEquals(await heading(page), "Count: 3");

    const answer = await click(page, "button");
    const [post] = answer.request().redirectChain();
    assertEquals(post?.method(), "POST");
    assertEquals(post?.response()?.status(), 303);
    assertMatch(
      setCookie(post?.response() ?? null),
      /^session=; .*Expires=Thu, 01 Jan 1970 00:00:00 GMT/,
    );
    assertEquals(answer.status(), 200);
    assertNotEquals(sessionId(setCookie(answer)), id);
    assertEquals(await heading(page), "Count: 1");
    const ended = await fetch(`${kvUrl}/${id}`);
    assertEquals(await ended.text(), `{"${id}":null}`);
  }
}

async function useStore({ chromium }: Browsers, kvUrl: string): Promise<void> {
  const operations: string[] = [];
  // A proxy that records the operations.
  await using between = serve(async (request) => {
    const body = await request.text();
    // A counter asks for "health" when it starts, not for a load.
    for (const { op, key } of JSON.parse(body)) if (key !== "health") operations.push(op);
    return await fetch(kvUrl, { method: request.method, headers: request.headers, body });
  });
  const config = { USE_SESSION_STORE: true, KV_URL: between.url };
  await using counter = await startServer("counter.ts", { config });
  await using other = await startServer("counter.ts", { config });

  await using a = await visit(chromium, counter.url);
  const second = await a.page.goto(other.url);
  assertEquals(await heading(a.page), "Count: 2");
  assertEquals(sessionId(setCookie(second)), sessionId(setCookie(a.first)));
  await click(a.page, "button");
  assertEquals(await heading(a.page), "Count: 1");
  assertEquals(operations, ["put", "get", "put", "delete", "put"]);
}

async function forEveryone({ chromium, firefox }: Browsers, url: string): Promise<void> {
  for (const browser of [chromium, firefox]) {
    await using visited = await visit(browser, url);
    const { page } = visited;
    assertEquals(await page.$$eval("script", (all) => all.length), 0);
    if (browser === chromium) await page.setJavaScriptEnabled(false);
    const press = async (tabs: number) => {
      for (let i = 0; i < tabs; i++) await page.keyboard.press("Tab");
      await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
      return await heading(page);
    };
    assertEquals(await press(1), "Count: 2", "Count again comes first");
    assertEquals(await press(2), "Count: 1", "Reset comes next");
    if (browser === chromium) await page.setJavaScriptEnabled(true); // axe-core is a script
    // 800 by 450 pixels at 200 %, then a phone.
    for (const [width, height] of [[400, 225], [360, 640]] as const) {
      await resize(page, { width, height });
      assert(await page.$eval("html", (e) => e.scrollWidth) <= width, `it fits ${width} pixels`);
      await noViolations(page);
    }
    assertEquals((await page.goto(`${url}/no/such/page`))?.status(), 404);
    await noViolations(page);
    assertEquals((await click(page, "a.button")).url(), `${url}/`);
  }
}

async function evenSpace({ chromium, firefox }: Browsers, url: string): Promise<void> {
  for (const browser of [chromium, firefox]) {
    await using visited = await visit(browser, url);
    const [again, reset, around] = await visited.page.evaluate(() => {
      const find = (selector: string) => document.querySelector(selector) as HTMLElement;
      const boxes = (selector: string) => {
        const text = document.createRange();
        text.selectNodeContents(find(selector));
        return [find(selector), text].flatMap((it) => {
          const { top, bottom } = it.getBoundingClientRect();
          return [top, bottom];
        });
      };
      const edge = (selector: string) => find(selector).getBoundingClientRect();
      const around = {
        above: edge("a.button").top - edge("h1 + p").bottom,
        below: edge("section").top - edge("a.button").bottom,
        left: edge("dl").left - edge("main").left,
        foot: edge("main").bottom - edge("dl").bottom,
      };
      return [boxes("a.button"), boxes("button"), around] as const;
    });
    assertEquals(again, reset, "tops and bottoms of the buttons, and of their texts");
    assertEquals(new Set(Object.values(around).map(Math.round)).size, 1, JSON.stringify(around));
  }
}

// ---- A page of the counter ------------------------------------------------------------------

/** Refreshes until the page was loaded `loads` times, and gives each answer's Set-Cookie. */
async function refresh({ page, first }: Visit, loads: number): Promise<string[]> {
  const cookies = [setCookie(first)];
  while (cookies.length < loads) cookies.push(setCookie(await page.reload()));
  return cookies;
}

/** The headers that the page shows, without the name. */
async function shownCookies(page: Page): Promise<string[]> {
  const texts = await page.$$eval("section code", (all) => all.map((e) => e.textContent ?? ""));
  return texts.flatMap((text) => /^Set-Cookie: (.*)/.exec(text)?.[1] ?? []);
}

async function picture(page: Page, name: string): Promise<void> {
  await resize(page, { width: 800, height: 670 });
  await screenshot(page, name);
}

function setCookie(answer: HTTPResponse | null): string {
  return answer?.headers()["set-cookie"] ?? "";
}

/** Clicks, and gives the answer of the page that comes. */
async function click(page: Page, selector: string): Promise<HTTPResponse> {
  const [answer] = await Promise.all([page.waitForNavigation(), page.click(selector)]);
  assert(answer);
  return answer;
}

async function heading(page: Page): Promise<string> {
  return await page.$eval("h1", (e) => e.textContent ?? "");
}

function sessionId(cookie = ""): string {
  const match = new RegExp(`^session=(${UUID4}); HttpOnly; SameSite=Lax; Path=/$`).exec(cookie);
  assert(match, `expected a session id and nothing else: "${cookie}"`);
  return match[1] ?? "";
}
