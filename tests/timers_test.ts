/** stores/timers.ts: timers that end with their program. */
import { assertEquals } from "@std/assert";
import { PROJECT, runToEnd } from "./helpers/programs.ts";

Deno.test("a program ends though it has not closed its stores or read its watches", async () => {
  const code = `
    import { httpStore } from "./stores/http.ts";
    import { memoryStore } from "./stores/memory.ts";
    import { sqliteStore } from "./stores/sqlite.ts";
    memoryStore();
    sqliteStore(":memory:");
    const ready = new TextEncoder().encode("event: ready\\nid: x-1\\ndata: {}\\n\\n");
    const body = new ReadableStream({ start: (controller) => controller.enqueue(ready) });
    const headers = { "Content-Type": "text/event-stream" };
    const fetch = async () => new Response(body, { headers });
    await httpStore("http://localhost", { fetch }).watch("");
    console.log("done");
  `;
  const { stdout } = await runToEnd(Deno.execPath(), ["eval", code], { cwd: PROJECT });
  assertEquals(stdout, "done\n");
});
