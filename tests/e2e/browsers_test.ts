/**
 * The counter in Chromium and Firefox at the same time, as two people use it. The answers are the
 * browsers' own records of them, which their developer tools show too. The points in the names are
 * those of the mission: what a person does with the system, and sees.
 */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import type { HTTPResponse, Page } from "puppeteer-core";
import { freePort, runToEnd, startServer } from "../helpers/programs.ts";
import {
  type Browsers,
  resize,
  screenshot,
  testInBrowsers,
  type Visit,
  visit,
} from "../helpers/browsers.ts";

const UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

testInBrowsers("Chromium and Firefox", async (t, browsers) => {
  await t.step(
    "show two separate counts, kept in a signed cookie that each refresh changes (points 1 to 3)",
    () => countInCookie(browsers),
  );
  await t.step(
    "show in words that the store is not there, with status 503 (point 6)",
    () => missStore(browsers),
  );
  await using kv = await startServer("kv.ts");
  const config = { USE_SESSION_STORE: true, KV_URL: kv.url };
  await using counter = await startServer("counter.ts", { config });
  await t.step(
    "show two separate counts, each under one session id; dump.ts lists both (points 8, 9, 11)",
    () => countInStore(browsers, counter.url, kv.url),
  );
  await t.step(
    "get a cleared cookie from the Reset button, and a new id with the next page (point 10)",
    () => reset(browsers, counter.url, kv.url),
  );
  await t.step(
    "have their sessions set, got and deleted at KV_URL (point 7)",
    () => useStore(browsers, kv.url),
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
    assertEquals(new Set(cookies).size, counts, `not every cookie is another: ${cookies}`);
    for (const [i, cookie] of cookies.entries()) {
      const [, payload = ""] =
        /^session=([\w-]+)\.[\w-]+\.[\w-]+; Path=\/; HttpOnly; SameSite=Lax$/.exec(cookie) ?? [];
      assertEquals(atob(payload), JSON.stringify({ count: i + 1 }));
    }
  }
  await screenshot(a.page, "counter-cookie");
  await screenshot(b.page, "counter-cookie-firefox");
  await resize(a.page, { width: 360, height: 640 });
  assertEquals(await a.page.$eval("html", (e) => e.scrollWidth), 360, "the page fits a phone");
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
    assertEquals(await heading(page), "Please wait");
    const alert = await page.waitForSelector("[role=alert]", { visible: true });
    assertMatch(await alert?.evaluate((e) => e.textContent) ?? "", /store .* does not answer/);
  }
  assertMatch(
    counter.program.output,
    new RegExp(`counter: ${KV_URL} cannot be reached: .*refused`),
  );
  await screenshot(a.page, "store-not-there");
  await screenshot(b.page, "store-not-there-firefox");

  // Once it is there, "Try again" is all that a person needs.
  await using _kv = await startServer("kv.ts", { port });
  for (const { page } of [a, b]) {
    const answer = await click(page, "a.button");
    assertEquals(answer.status(), 200);
    assertEquals(await heading(page), "Count: 1");
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
  await screenshot(a.page, "counter-store");
  await screenshot(b.page, "counter-store-firefox");
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
      /^session=; Max-Age=0; Path=\/; Expires=Thu, 01 Jan 1970 00:00:00 GMT;/,
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
  // Stands between the counters and the service, to see what they ask of it.
  await using between = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const body = await request.text();
      for (const { op } of JSON.parse(body)) operations.push(op);
      return await fetch(kvUrl, { method: request.method, headers: request.headers, body });
    },
  );
  const config = { USE_SESSION_STORE: true, KV_URL: `http://127.0.0.1:${between.addr.port}` };
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

// ---- A page of the counter ------------------------------------------------------------------

/** Refreshes until the page was loaded `loads` times, and gives each answer's Set-Cookie. */
async function refresh({ page, first }: Visit, loads: number): Promise<string[]> {
  const cookies = [setCookie(first)];
  while (cookies.length < loads) cookies.push(setCookie(await page.reload()));
  return cookies;
}

function setCookie(answer: HTTPResponse | null): string {
  return answer?.headers()["set-cookie"] ?? "";
}

/** Clicks, and gives the answer of the page that comes. */
async function click(page: Page, selector: string): Promise<HTTPResponse> {
  const [answer] = await Promise.all([
    page.waitForNavigation(),
    page.click(selector),
  ]);
  assert(answer);
  return answer;
}

async function heading(page: Page): Promise<string> {
  return await page.$eval("h1", (e) => e.textContent ?? "");
}

function sessionId(cookie = ""): string {
  const match = new RegExp(`^session=(${UUID4}); HttpOnly; SameSite=Lax; Path=/$`).exec(cookie);
  assert(match, `holds no session id alone: "${cookie}"`);
  return match[1] ?? "";
}
