/**
 * What pages of other sites can do to the service in their visitors' browsers: nothing.
 */
import { assertEquals } from "@std/assert";
import type { Browser, Page } from "puppeteer-core";
import { REBOUND_HOST, stepInBoth, testInBrowsers, visit } from "../helpers/browsers.ts";
import { get, put, serve } from "../helpers/http.ts";
import { eventually, freePort, startServer } from "../helpers/programs.ts";

testInBrowsers("Pages of other sites neither read nor change the service", async (t, browsers) => {
  const step = stepInBoth(t, browsers);
  await step("by any request", attack);
  await step("though a link leads to it", followLink);
  await step("after DNS rebinding", rebind);
});

/** What a hostile page does in its visitor's browser. It shows what it could read. */
function attackPage(kv: string): string {
  return `<!DOCTYPE html><title>attack</title><img src="${kv}/secret"><iframe name="hole"></iframe>
    <iframe src="${kv}/secret"></iframe><object data="${kv}/secret"></object>
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
      try { read.push(await (await fetch(url, init)).text()); } catch { /* rejected */ }
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
  // Another port is another origin of the same site; another name is another site.
  for (const target of [kv.url, kv.url.replace("localhost", "127.0.0.1")]) {
    await using other = serve(() =>
      new Response(attackPage(target), { headers: { "Content-Type": "text/html" } })
    );
    await using visited = await visit(browser, `http://localhost:${other.addr.port}`);
    await eventually("the end of it", async () => /^done/.test(await visited.page.title()));
    assertEquals(await visited.page.title(), "done:");
  }
  assertEquals(await get(`${kv.url}/`), '{"keys":["secret"]}');
  assertEquals(await get(`${kv.url}/secret`), '{"secret":"of the service"}');
}

/** Sends a form there, follows links, and reloads what one leads to. */
async function followLink(browser: Browser): Promise<void> {
  await using kv = await startServer("kv.ts");
  await put(`${kv.url}/secret`, '"of the service"');
  for (const target of [kv.url, kv.url.replace("localhost", "127.0.0.1")]) {
    await using other = serve(() =>
      new Response(
        `<!DOCTYPE html><a id="page" href="${target}/">page</a> <a id="key" href="${target}/secret">key</a>
          <form method="post" action="${target}/"><button name="form" value="1">send</button></form>`,
        { headers: { "Content-Type": "text/html" } },
      )
    );
    const click = async (selector: string, check?: (page: Page) => Promise<void>) => {
      await using visited = await visit(browser, `http://localhost:${other.addr.port}`);
      const { page } = visited;
      // Firefox shows JSON in a page of its own, for whose end a navigation would wait.
      const answer = page.waitForResponse((response) => response.url().startsWith(target));
      await page.click(selector);
      const status = (await answer).status();
      await check?.(page);
      return status;
    };
    assertEquals(await click("button"), 403);
    assertEquals(await click("#key"), 200);
    const status = await click("#page", async (page) => {
      await page.waitForFunction(() => document.body.textContent?.includes("secret"));
      assertEquals((await page.reload())?.status(), 200);
    });
    assertEquals(status, 200);
  }
  assertEquals(await get(`${kv.url}/`), '{"keys":["secret"]}');
}

/** Points the name of a loaded page to the service, so that both have one origin. */
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
  assertEquals(await get(`${kv.url}/secret`), '{"secret":"of the service"}');
}
