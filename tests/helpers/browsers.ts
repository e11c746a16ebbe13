/// <reference lib="dom" />
/** Chromium and Firefox, as tests drive them. */
import { assert, assertEquals } from "@std/assert";
import axe from "axe-core";
import { join } from "node:path";
import puppeteer, { type Browser, type HTTPResponse, type Page } from "puppeteer-core";
import { eventually, PROJECT, testWith } from "./programs.ts";

const CHROMIUM = "/usr/bin/chromium";
const FIREFOX = "/usr/bin/firefox-esr";
/** A busy machine may take minutes to start a browser. In milliseconds. */
const PATIENCE = 300_000;
/** How long a page may take, in milliseconds. */
const PAGE_PATIENCE = 60_000;
const SCREENSHOTS = join(PROJECT, "build", "screenshots");

/** A name that both browsers resolve to this machine, as in an attack by DNS rebinding. */
export const REBOUND_HOST = "rebound.example";

/** Both browsers, running. */
export interface Browsers {
  chromium: Browser;
  firefox: Browser;
}

/** All tests of a run share them: starting both takes longer than most tests. */
let browsers: Promise<Browsers> | undefined;

Deno.test.afterAll(async () => {
  const running = await browsers?.catch(() => undefined);
  for (const browser of Object.values(running ?? {})) await browser.close();
});

/** Registers a test that needs both browsers, and other programs. */
export function testInBrowsers(
  name: string,
  run: (t: Deno.TestContext, browsers: Browsers) => Promise<void>,
  programs: string[] = [],
): void {
  testWith(
    [CHROMIUM, FIREFOX, ...programs],
    name,
    async (t) => {
      await run(t, await (browsers ??= launch()));
    },
    // Puppeteer does not wait for its temporary profiles to be removed.
    { sanitizeOps: false, sanitizeResources: false },
  );
}

type Run = (browser: Browser, name: string) => Promise<void>;

/** Returns a function that runs a step of a test in both browsers, side by side. */
export function stepInBoth(t: Deno.TestContext, browsers: Browsers) {
  return (promise: string, run: Run) => t.step(promise, () => inBoth(browsers, run));
}

async function inBoth(browsers: Browsers, run: Run): Promise<void> {
  const entries = Object.entries(browsers);
  const results = await Promise.allSettled(entries.map(([name, browser]) => run(browser, name)));
  for (const [i, result] of results.entries()) {
    if (result.status === "fulfilled") continue;
    throw new Error(`In ${entries[i]?.[0]}: ${result.reason}`, { cause: result.reason });
  }
}

async function launch(): Promise<Browsers> {
  await Deno.mkdir(SCREENSHOTS, { recursive: true });
  await using started = new AsyncDisposableStack();
  const chromium = started.use(await launchChromium());
  const firefox = await launchFirefox();
  started.move();
  return { chromium, firefox };
}

function launchChromium(): Promise<Browser> {
  const args = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    `--host-resolver-rules=MAP ${REBOUND_HOST} 127.0.0.1`,
  ];
  const options = { timeout: PATIENCE, protocolTimeout: PATIENCE, defaultViewport: null };
  return puppeteer.launch({ browser: "chrome", executablePath: CHROMIUM, args, ...options });
}

function launchFirefox(): Promise<Browser> {
  const options = { timeout: PATIENCE, protocolTimeout: PATIENCE, defaultViewport: null };
  const extraPrefsFirefox = { "network.dns.localDomains": REBOUND_HOST };
  return puppeteer.launch({
    browser: "firefox",
    executablePath: FIREFOX,
    extraPrefsFirefox,
    ...options,
  });
}

/** A page in a window of its own. */
export interface Visit extends AsyncDisposable {
  page: Page;
  /** The answer to the first load. */
  first: HTTPResponse;
}

/** Opens the page in a window with no cookies. */
export async function visit(browser: Browser, url: string): Promise<Visit> {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(PAGE_PATIENCE);
  await resize(page, { width: 800, height: 450 });
  const first = await page.goto(url);
  assert(first);
  return { page, first, [Symbol.asyncDispose]: () => context.close() };
}

/** Gives the page another size. */
export async function resize(page: Page, size: { width: number; height: number }): Promise<void> {
  await page.setViewport(size).catch((error) => {
    // Firefox ESR 140 sets the size, and does not know the command that puppeteer sends with it.
    if (!/unknown command emulation.setScreenOrientationOverride/.test(error.message)) throw error;
  });
  const hasSize = async () => await page.evaluate(() => innerWidth) === size.width;
  await eventually("the page in its new size", hasSize);
}

/** Writes a picture of the page to `build/screenshots`. */
export async function screenshot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
}

/** Asks axe-core about the page's accessibility, in light and dark colours. */
export async function noViolations(page: Page, schemes = ["dark", "light"]): Promise<void> {
  for (const scheme of schemes) {
    await page.evaluate((it) => document.documentElement.style.colorScheme = it, scheme);
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => {
      return (globalThis as unknown as { axe: typeof axe }).axe.run();
    });
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`);
    assertEquals(found, [], scheme);
  }
}
