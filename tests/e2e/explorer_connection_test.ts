/// <reference lib="dom" />
/** The service's page behind a proxy and a token, and while its connection is slow, shared or lost. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import type { Browser } from "puppeteer-core";
import { kv } from "../../kv.ts";
import { json } from "../../stores/json/text.ts";
import { memoryStore } from "../../stores/memory.ts";
import {
  noViolations,
  resize,
  screenshot,
  stepInBoth,
  testInBrowsers,
  type Visit,
  visit,
} from "../helpers/browsers.ts";
import { answer, hurry, press, rows, rowsAre, text } from "../helpers/explorer.ts";
import { get, post, put, serve } from "../helpers/http.ts";
import { eventually, freePort, startServer } from "../helpers/programs.ts";

testInBrowsers("The explorer page and its service", async (t, browsers) => {
  const step = stepInBoth(t, browsers);
  await step("works under a path prefix, on a phone, and zoomed to 200 %", underPrefix);
  await step("keeps up with keys that keep coming", keepUp);
  await step("watches only in the tab in front", openTabs);
  await step("dims what may be stale, and reconnects", reconnect);
  await step("notices that the service hangs", noticeSilence);
  await step("says why it does not reconnect, until it does", sayWhy);
  await step("lists entries where no stream of changes can be had", noStream);
  await step("says why it cannot list entries, and lists them when it can", listAgain);
  await step("shows a time that no Date holds, as Redis may have", farFuture);
  await step("shows the time left by a Date that has whole seconds", wholeSeconds);
  await step("follows a service that restarts empty, in two tabs that edit", restart);
  await step("keeps the focus if a service that restarts has lost its entries", restartFocused);
  await step("is a plain list of links where scripts are blocked", withoutScript);
  await t.step("asks for a token", () => askForToken(browsers.chromium));
  await t.step("says what to do when its token is replaced", () => askAgain(browsers.chromium));
});

/** Behind a proxy that serves the service under `/kv/`, as one more page of its site. */
async function underPrefix(browser: Browser, name: string): Promise<void> {
  await using kv = await startServer("kv.ts");
  await using proxy = serve((request) => {
    const { pathname, search } = new URL(request.url);
    if (!/^\/kv(\/|$)/.test(pathname)) return new Response("not of the service", { status: 404 });
    const { method, headers, body } = request;
    return fetch(kv.url + pathname.slice(3) + search, { method, headers, body });
  });
  const path = name === "chromium" ? "/kv/" : "/kv";
  await using visited = await visit(browser, `http://localhost:${proxy.addr.port}${path}`);
  const { page } = visited;
  await resize(page, { width: 360, height: 640 });
  const command = async () => await text(page, "#command");
  await eventually(
    "its address",
    async () => /^http localhost:\d+\/kv\/ foo=bar$/.test(await command()),
  );
  await page.click("#add");
  await page.type("#edit-key", "long");
  await page.type("#edit-value", `"${"x".repeat(100)}"`);
  await page.click("#edit-save");
  await rowsAre(page, [["long", `"${"x".repeat(100)}"`, "never"]]);

  const heights = await page.$$eval(
    "button, .button, summary, input",
    (all) => all.filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect().height),
  );
  assertEquals(heights.filter((height) => height < 40), [], "each target has 40 pixels");
  await press(page, "tbody summary");
  // A phone, and 800 by 450 pixels at 200 %.
  for (const size of [{ width: 360, height: 640 }, { width: 400, height: 225 }]) {
    await resize(page, size);
    for (const opener of ["", "#add", "tbody .edit", "#remove"]) {
      if (opener !== "") await page.click(opener);
      const shown = `${size.width}${opener.replace(/\W+/g, "-")}`;
      const isShown = async () => (await page.$("dialog[open]") !== null) === (opener !== "");
      await eventually(`the page at ${shown}`, isShown);
      const width = await page.$eval("html", (e) => e.scrollWidth);
      assert(width <= size.width, `it fits ${shown}`);
      await noViolations(page);
      await screenshot(page, `explorer-${shown}-${name}`);
      if (opener !== "") await page.keyboard.press("Escape");
    }
  }
  await page.close(); // its stream of changes would keep the proxy
}

/** Behind a proxy that allows no script, since Firefox has no switch for JavaScript in tests. */
async function withoutScript(browser: Browser, name: string): Promise<void> {
  await using kv = await startServer("kv.ts");
  await post(kv.url, '{"a/b?":1.10,"a<b":2,"c":3}');
  await using proxy = serve(async (request) => {
    const { pathname, search } = new URL(request.url);
    const accept = request.headers.get("Accept") ?? "";
    const response = await fetch(kv.url + pathname + search, { headers: { Accept: accept } });
    const headers = new Headers(response.headers);
    headers.append("Content-Security-Policy", "script-src 'none'");
    return new Response(response.body, { status: response.status, headers });
  });
  await using visited = await visit(browser, `http://localhost:${proxy.addr.port}`);
  const { page } = visited;
  await resize(page, { width: 360, height: 640 });
  const controls = () =>
    page.$$eval("a, button, input, select, textarea, summary", (all) => {
      return all.filter((e) => e.checkVisibility()).map((e) => e.textContent || e.tagName);
    });
  assertEquals(await controls(), ["INPUT", "List", "a/b?", "a<b", "c"]);
  assertEquals(await page.$eval("html", (e) => e.scrollWidth), 360, "it fits a phone");
  await noViolations(page);
  await screenshot(page, `explorer-plain-${name}`);

  const follow = async (action: () => Promise<void>) => {
    await Promise.all([page.waitForNavigation(), action()]);
  };
  await page.focus("input[name=prefix]");
  await page.keyboard.type("a");
  await follow(() => page.keyboard.press("Enter"));
  assertEquals(await controls(), ["INPUT", "List", "a/b?", "a<b"]);
  await page.focus("li a");
  await follow(() => page.keyboard.press("Enter"));
  assertEquals(new URL(page.url()).pathname, "/a%2Fb%3F");
  const response = await fetch(page.url());
  assertEquals(await response.text(), '{"a/b?":1.10}');
}

/** Over a service whose lists take longer to come than new keys do. */
async function keepUp(browser: Browser): Promise<void> {
  const store = memoryStore();
  const service = kv(store);
  let beforeAnswer = async () => {};
  await using server = serve(async (request) => {
    const response = await service.fetch(request);
    if (request.method === "POST") await beforeAnswer().then(() => delay(400));
    return response;
  });
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
  const opacity = () => page.$eval("tbody tr", (e) => Number(getComputedStyle(e).opacity));
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

/** As one that is stopped, or behind a network that is cut: its stream stays open. */
async function noticeSilence(browser: Browser): Promise<void> {
  const store = memoryStore();
  const service = kv(store);
  let hangs = false;
  const event = new TextEncoder().encode("event: position\ndata: {}\n\n");
  await using server = serve(async (request) => {
    const response = await service.fetch(request);
    if (!/event-stream/.test(request.headers.get("Accept") ?? "") || !response.body) {
      return response;
    }
    let timer: ReturnType<typeof setInterval>;
    const beats = new TransformStream<Uint8Array, Uint8Array>({
      start: (controller) => {
        timer = setInterval(() => hangs || controller.enqueue(event), 50);
      },
      async transform(piece, controller) {
        while (hangs) await delay(20);
        controller.enqueue(piece);
      },
      flush: () => clearInterval(timer),
      cancel: () => clearInterval(timer),
    });
    return new Response(response.body.pipeThrough(beats), response);
  });
  await store.set("a", json(1));
  await using visited = await visit(browser, `http://localhost:${server.addr.port}`);
  const { page } = visited;
  const live = () => text(page, "#live");
  await rowsAre(page, [["a", "1", "never"]]);
  await hurry(page, 20);
  await page.$eval("#live", (it) => {
    new MutationObserver(() => document.title = "changed").observe(it, { childList: true });
  });
  // A machine that stalls may keep events back, now and then.
  await eventually("a while in which events come and it stays live", async () => {
    await page.evaluate(() => document.title = "");
    await delay(1200); // twice as long as it waits
    return await live() === "Live" && await page.title() === "";
  });
  hangs = true;
  await eventually("a word", async () => /^Not connected since \d/.test(await live()));
  hangs = false;
  await eventually("the service", async () => await live() === "Live");
  await store.set("a", json(2));
  await rowsAre(page, [["a", "2", "never"]]);
  await page.close(); // its stream of changes would keep the server
  await store.close();
}

async function sayWhy(browser: Browser): Promise<void> {
  const memory = memoryStore();
  await memory.set("a", json(1));
  const service = kv(memory);
  let isAway = false;
  const serve = (port: number, { signal } = new AbortController()) =>
    Deno.serve({ hostname: "127.0.0.1", port, onListen() {}, signal }, (request) => {
      if (!isAway) return service.fetch(request);
      const problem = { status: 503, detail: "The store is unavailable" };
      return Response.json(problem, { status: 503 });
    });
  const stop = new AbortController();
  const first = serve(0, stop);
  await using visited = await visit(browser, `http://localhost:${first.addr.port}`);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "never"]]);
  stop.abort();
  await first.finished;
  await eventually("a word", async () => /^Not connected/.test(await text(page, "#live")));
  isAway = true;
  await using _second = serve(first.addr.port);
  await eventually("the reason", async () => /^The store is/.test(await text(page, "#status")));
  assertMatch(await text(page, "#live"), /^Not connected since \d/);
  isAway = false;
  await eventually("the service", async () => await text(page, "#live") === "Live");
  await eventually("no error", async () => await text(page, "#status") === "");
  await memory.close();
}

/** As when a thousand others watch, or behind a proxy that does not stream. */
async function noStream(browser: Browser): Promise<void> {
  const store = memoryStore();
  const service = kv(store);
  await using server = serve((request) => {
    return /event-stream/.test(request.headers.get("Accept") ?? "")
      ? new Response(null, { status: 503 })
      : service.fetch(request);
  });
  await store.set("a", json(1));
  await using visited = await visit(browser, `http://localhost:${server.addr.port}`);
  await rowsAre(visited.page, [["a", "1", "never"]]);
  assertMatch(await text(visited.page, "#live"), /^Not connected since \d/);
  await store.close();
}

/** As behind a proxy that limits requests: the stream stays, and nothing more comes by it. */
async function listAgain(browser: Browser): Promise<void> {
  const store = memoryStore();
  const service = kv(store);
  const refused = new Set<string>();
  let refusals = 0;
  await using server = serve((request) => {
    const [type = ""] = (request.headers.get("Accept") ?? "").split(",");
    if (!refused.has(type)) return service.fetch(request);
    refusals++;
    return Response.json({ status: 503, detail: `No ${type}` }, { status: 503 });
  });
  const keys = Array.from({ length: 53 }, (_, i) => `${100 + i}`);
  await store.setAll(new Map(keys.map((key) => [key, json(1)])));
  refused.add("application/json");
  await using visited = await visit(browser, server.url);
  const { page } = visited;
  await hurry(page, 2); // an event comes every 4 s, which it awaits for 6
  const said = (expected: string) =>
    eventually(expected, async () => await text(page, "#status.error") === expected);
  const first = async () => (await rows(page))[0]?.[0];
  const listed = (key: string) => eventually(`${key} first`, async () => await first() === key);
  const isOver = async () => {
    await eventually("no error", async () => await text(page, "#status.error") === "");
    assertEquals(await text(page, "#live"), "Live");
  };
  await said("No application/json");
  refused.clear();
  await listed("100");
  await isOver();

  refused.add("application/json");
  refusals = 0;
  await press(page, "nav .next");
  await eventually("the refusal", () => Promise.resolve(refusals === 1));
  await delay(200); // sooner than it is asked for again
  assertEquals(await text(page, "#status.error"), "No application/json");
  refused.clear();
  await listed("150");
  await isOver();

  refused.add("application/x-ndjson");
  await page.type("#contains", "52");
  await said("No application/x-ndjson");
  refused.clear();
  await eventually("the end of the search", async () => {
    return await text(page, ".bar .range") === "1 entry found";
  });
  await page.close(); // its stream of changes would keep the server
  await store.close();
}

async function farFuture(browser: Browser): Promise<void> {
  const memory = memoryStore();
  const get = async (key: string) => {
    const entry = await memory.get(key);
    return entry && { ...entry, expires: key === "late" ? 9e18 : null };
  };
  const { fetch } = kv({ ...memory, get });
  await using server = serve((request) => {
    return fetch(request);
  });
  await memory.set("a", json(1));
  await memory.set("late", json(2));
  await using visited = await visit(browser, `http://localhost:${server.addr.port}`);
  const { page } = visited;
  await eventually("both rows", async () => {
    return (await rows(page)).map(([key]) => key).join() === "a,late";
  });
  assertMatch((await rows(page))[1]?.[2] ?? "", /^in [\d,]+ days$/);
  await press(page, "tr:last-child .edit");
  await eventually("the dialog", async () => await text(page, "#editor[open] h2") !== "");
  await page.close(); // its stream of changes would keep the server
  await memory.close();
}

async function wholeSeconds(browser: Browser): Promise<void> {
  const memory = memoryStore();
  const second = Date.UTC(2030, 0, 1);
  const now = second + 900;
  const get = async (key: string) => {
    const entry = await memory.get(key);
    return entry && { ...entry, expires: now + 90_000 };
  };
  const service = kv({ ...memory, get });
  let ahead = 0;
  await using server = serve(async (request) => {
    const response = await service.fetch(request);
    response.headers.set("Date", new Date(second + ahead).toUTCString());
    return response;
  });
  await using visited = await visit(browser, `${server.url}/`);
  const { page } = visited;
  await eventually("the stream", async () => await text(page, "#live") === "Live");
  await page.evaluate((now) => Date.now = () => now, now);
  await memory.set("a", json(1));
  await rowsAre(page, [["a", "1", "in 90 sec."]]);
  ahead = -1000; // Deno sends a Date that is up to a second old
  await memory.set("b", json(2));
  await rowsAre(page, [["a", "1", "in 90 sec."], ["b", "2", "in 90 sec."]]);
  ahead = 10_000; // more than the second that a Date leaves open
  await memory.set("c", json(3));
  await rowsAre(page, ["a", "b", "c"].map((key, i) => [key, `${i + 1}`, "in 81 sec."]));
  await page.close(); // its stream of changes would keep the server
  await memory.close();
}

/** Two people edit one entry, and the service loses it in between. */
async function restartFocused(browser: Browser): Promise<void> {
  const port = freePort();
  const env = { DBM: ":memory:" };
  const first = await startServer("kv.ts", { port, env });
  await put(`${first.url}/a`, "1");
  await using visited = await visit(browser, first.url);
  const { page } = visited;
  await rowsAre(page, [["a", "1", "never"]]);
  await page.focus(".delete");
  await first[Symbol.asyncDispose]();
  await using _ = await startServer("kv.ts", { port, env });
  await rowsAre(page, []);
  assertEquals(await page.evaluate(() => document.activeElement?.id), "prefix");
}

async function restart(browser: Browser): Promise<void> {
  const port = freePort();
  const env = { DBM: ":memory:" };
  const first = await startServer("kv.ts", { port, env });
  await put(`${first.url}/a`, "1");
  await using one = await visit(browser, first.url);
  await using other = await visit(browser, first.url);
  const edit = async ({ page }: Visit, value: string) => {
    await page.bringToFront(); // a tab in the background would load nothing
    await rowsAre(page, [["a", "1", "never"]]);
    await press(page, ".edit");
    await page.$eval("#edit-value", (it) => (it as HTMLTextAreaElement).value = "");
    await page.type("#edit-value", value);
  };
  const save = async ({ page }: Visit) => {
    await page.bringToFront();
    await page.focus("#edit-save");
    await page.keyboard.press("Enter");
  };
  const isTold = ({ page }: Visit, expected: RegExp) =>
    eventually(`${expected}`, async () => {
      return expected.test(await text(page, "#edit-problem, #edit-conflict:not([hidden])"));
    });
  await edit(one, "2");
  await edit(other, "3");
  await first[Symbol.asyncDispose]();
  await save(one);
  await isTold(one, /^The service cannot be reached$/);

  await using second = await startServer("kv.ts", { port, env });
  await save(one);
  await isTold(one, /^Not saved: the entry has been deleted meanwhile. Save again to create it\./);
  assertEquals(await get(`${second.url}/a`), '{"a":null}');
  await save(one);
  await rowsAre(one.page, [["a", "2", "never"]]);
  await save(other);
  await isTold(other, /^Not saved: the entry has changed meanwhile.*which is now:2/);
  await save(other);
  for (const { page } of [other, one]) {
    await page.bringToFront();
    await rowsAre(page, [["a", "3", "never"]]);
  }
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
  await reader.page.type("#prefix", "b");
  await rowsAre(reader.page, []);
  await press(reader.page, "#clear");
  await rowsAre(reader.page, [["a", "1", "never"]]);
  await press(reader.page, "tbody .delete");
  await answer(reader.page, "Delete");
  await eventually("a refusal", async () => {
    return await text(reader.page, "#status") === "Cannot write with a token of KV_READ_TOKEN";
  });
}

async function askAgain(chromium: Browser): Promise<void> {
  const store = memoryStore();
  let service = kv(store, { tokens: ["the-token-of-before"] });
  await using server = serve((request) => service.fetch(request));
  await using reader = await visit(chromium, server.url.replace("//", "//x:the-token-of-before@"));
  const { page } = reader;
  await eventually("the stream", async () => await text(page, "#live") === "Live");
  service = kv(store, { tokens: ["the-token-of-now"] });
  await page.click("#add");
  await page.type("#edit-key", "a");
  await page.type("#edit-value", "1");
  await page.click("#edit-save");
  await eventually("what to do", async () => {
    return await text(page, "#edit-problem") === "The token has changed: load the page again";
  });
  await page.close(); // its stream of changes would keep the server
  await store.close();
}
