import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { kv } from "../kv.ts";
import { explorerPage } from "../kv/explorer.tsx";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { StoreUnavailable } from "../stores/store.ts";
import { test } from "./helpers/kv_app.ts";
import { scoped } from "./helpers/scoped.ts";

const HTML = { headers: { Accept: "text/html,application/xhtml+xml,*/*;q=0.8" } };
const empty = memoryStore();
const { body } = await explorerPage(empty, null);
await empty.close();
const [, script = ""] = /<script[^>]*>(.*)<\/script>/s.exec(body) ?? [];

/** The part for browsers without JavaScript. */
function plain(html: string): string {
  return /<div id="plain">(.*)<div id="scripted" hidden>/s.exec(html)?.[1] ?? "";
}

test("lists keys as links without JavaScript, a page at a time", async ({ app, store }) => {
  for (let i = 0; i < 102; i++) await store.set(`a${1000 + i}`, json(i));
  for (const key of ["b/?&#", "<b>", "b c\nd", "C"]) await store.set(key, json(0));
  const linksOf = async (path: string) => {
    const html = plain(await (await app.request(path, HTML)).text());
    return [...html.matchAll(/<a[^>]* href="([^"]*)">([^<]*)</g)]
      .map(([, href = "", text = ""]) => [href.replaceAll("&amp;", "&"), text]);
  };
  const links = await linksOf("/?prefix=a");
  assertEquals(links.slice(0, 2), [["a1000", "a1000"], ["a1001", "a1001"]]);
  assertEquals(links[100], ["?prefix=a&after=a1099", "Next page"]);
  assertEquals(await linksOf("/?prefix=a&after=a1099"), [["a1100", "a1100"], ["a1101", "a1101"]]);
  assertEquals(await linksOf("/?prefix=b"), [
    ["b%20c%0Ad", "b c\nd"],
    ["b%2F%3F%26%23", "b/?&amp;#"],
  ]);
  assertEquals(await linksOf("/?prefix=%3C"), [["%3Cb%3E", "&lt;b&gt;"]]);
  for (const [href = "", key] of await linksOf("/?prefix=b")) {
    const entry = await (await app.request(`/${href}`, HTML)).json();
    assertEquals(Object.keys(entry), [key?.replace("&amp;", "&")]);
  }
});

test("has no dead control without JavaScript, and keeps a prefix no field holds", async ({ app }) => {
  const of = async (path: string) => plain(await (await app.request(path, HTML)).text());
  const html = await of("/?prefix=%22%3E%3Cb&contains=x");
  assertMatch(html, /<form><label>Prefix <input [^>]*name="prefix" value="&quot;&gt;&lt;b">/);
  assertEquals(html.match(/<(button|input|select|textarea)\b/g), ["<input", "<button"]);
  const broken = await of("/?prefix=a%0Ab");
  assertMatch(broken, /<p>Prefix: &quot;a\\nb&quot;<\/p>/);
  assertNotMatch(broken, /<input/);
});

Deno.test("kv() shows the page while the store is unavailable, with status 503", async () => {
  await using store = scoped(memoryStore());
  const gone = () => Promise.reject(new StoreUnavailable("gone", { outcome: "unchanged" }));
  const page = await kv({ ...store, list: gone }).request("/", HTML);
  assertEquals(page.status, 503);
  assertEquals(page.headers.get("Retry-After"), "1");
  const html = await page.text();
  assertMatch(plain(html), /The store is unavailable\./);
  assertMatch(html, /<script type="module">/);
});

Deno.test("the explorer joins its modules into one script, without imports and exports", () => {
  assertNotMatch(script, /^\s*(import|export)\b/m);
  const names = [...script.matchAll(/^(?:async )?(?:const|let|class|function) (\w+)/gm)]
    .map(([, name]) => name);
  assertEquals(names.length, new Set(names).size, `a name stands twice: ${names}`);
  new Function(`return async () => {${script}}`); // throws if it has a syntax error
});

Deno.test("the explorer has relative addresses only, for a proxy's path prefix", () => {
  assertNotMatch(body.replace(script, ""), /\b(href|src|action)="(?!data:)/);
  assertNotMatch(script, /(fetch|EventSource)\(["'`]\//);
});
