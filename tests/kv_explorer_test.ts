import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { EXPLORER } from "../kv/explorer.tsx";
import { test } from "./helpers/kv_app.ts";

const [, script = ""] = /<script[^>]*>(.*)<\/script>/s.exec(EXPLORER) ?? [];

test("shows browsers the explorer page, and other clients the keys", async ({ app }) => {
  const accept = (types: string) => app.request("/?prefix=a", { headers: { Accept: types } });
  const page = await accept("text/html,application/xhtml+xml,*/*;q=0.8");
  assertEquals(page.status, 200);
  assertEquals(page.headers.get("Content-Type"), "text/html; charset=UTF-8");
  assertMatch(page.headers.get("Content-Security-Policy") ?? "", /^default-src 'none';/);
  assertEquals(await page.text(), EXPLORER);
  assertEquals(await (await accept("*/*")).json(), { keys: [] });
});

Deno.test("the explorer joins its modules into one script, without imports and exports", () => {
  assertNotMatch(script, /^\s*(import|export)\b/m);
  const names = [...script.matchAll(/^(?:async )?(?:const|let|class|function) (\w+)/gm)]
    .map(([, name]) => name);
  assertEquals(names.length, new Set(names).size, `a name stands twice: ${names}`);
  new Function(`return async () => {${script}}`); // throws if it has a syntax error
});

Deno.test("the explorer has relative addresses only, for a proxy's path prefix", () => {
  assertNotMatch(EXPLORER.replace(script, ""), /\b(href|src|action)="(?!data:)/);
  assertNotMatch(script, /(fetch|EventSource)\(["'`]\//);
});
