import { assertEquals, assertStringIncludes } from "@std/assert";
import { explorerPage } from "../kv/explorer.tsx";
import { template } from "../server/layout.tsx";
import { memoryStore } from "../stores/memory.ts";

Deno.test("template() renders once, and escapes each text that it fills in", () => {
  let renderings = 0;
  const page = template(["a", "b"], ({ a, b }) => {
    renderings++;
    return `<p title="${a}">${b}, ${a}</p>`;
  });
  assertEquals(page({ a: "1", b: "2" }), '<p title="1">2, 1</p>');
  assertEquals(
    page({ a: `"'`, b: "<b>&" }),
    '<p title="&quot;&#39;">&lt;b&gt;&amp;, &quot;&#39;</p>',
  );
  assertEquals(page({ a: "\0b\0", b: "2" }), '<p title="\0b\0">2, \0b\0</p>');
  assertEquals(renderings, 1);
});

Deno.test("pageHeaders() allows the scripts and styles of the page, by their hashes", async () => {
  const store = memoryStore();
  const { headers, body } = await explorerPage(store, null);
  await store.close();
  const policy = headers["Content-Security-Policy"] ?? "";
  const parts = [...body.matchAll(/<(script|style)[^>]*>(.*?)<\/\1>/gs)];
  assertEquals(parts.map(([, tag]) => tag), ["style", "style", "script"]);
  for (const [, , text = ""] of parts) {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    assertStringIncludes(policy, `'sha256-${new Uint8Array(digest).toBase64()}'`);
  }
});
