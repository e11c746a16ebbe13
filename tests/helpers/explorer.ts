/// <reference lib="dom" />
/**
 * What the service's page shows. The page forbids `eval`, which puppeteer's waiting needs, so tests
 * ask for its text until it is as expected.
 */
import { assertEquals } from "@std/assert";
import type { Page } from "puppeteer-core";
import { eventually } from "./programs.ts";

/** The texts of the rows: key, value and when it expires. */
export async function rows(page: Page): Promise<string[][]> {
  return await page.$$eval("tbody tr", (rows) =>
    rows.map((row) => {
      const cells = [".key", ".value .line", ".expires"].map((it) => row.querySelector(it));
      return Array.from(cells, (cell) => cell?.textContent ?? "");
    }));
}

export async function rowsAre(page: Page, expected: string[][]): Promise<void> {
  let shown: string[][] = [];
  await eventually("the rows", async () => {
    shown = await rows(page);
    return JSON.stringify(shown) === JSON.stringify(expected);
  }, 20).catch(() => {}); // what is shown tells more
  assertEquals(shown, expected);
}

/** Waits for the page's question, answers it by its button, and returns what it asked. */
export async function answer(page: Page, button: "Cancel" | "Delete" | "Discard" | "Restore") {
  let question = "";
  await eventually("a question", async () => {
    question = await text(page, "#question[open] p");
    return question !== "";
  });
  await page.click(`#question[open] button[value=${button === "Cancel" ? "no" : "yes"}]`);
  return question;
}

/**
 * Clicks on what a list may move between two messages of a mouse.
 *
 * @throws {Error} If a mouse would hit something else
 */
export async function press(page: Page, selector: string): Promise<void> {
  await page.$eval(selector, (element, selector) => {
    element.scrollIntoView({ block: "center", behavior: "instant" });
    const { x, y, width, height } = element.getBoundingClientRect();
    const hit = document.elementFromPoint(x + width / 2, y + height / 2);
    if (!element.contains(hit)) throw new Error(`A mouse would not hit ${selector}`);
    (element as HTMLElement).click();
  }, selector);
}

/** The text of what a selector finds, or nothing. */
export async function text(page: Page, selector: string): Promise<string> {
  return (await page.$$eval(selector, (all) => all.map((e) => e.textContent))).join("");
}

/** Makes the timers that the page starts from now on end sooner. */
export async function hurry(page: Page, times: number): Promise<void> {
  await page.evaluate((times) => {
    const { setTimeout } = globalThis;
    globalThis.setTimeout = ((run: () => void, time: number) => {
      return setTimeout(run, time / times);
    }) as typeof setTimeout;
  }, times);
}
