/** The package as another project takes it in: docs/SESSIONS.md, "From nothing to a session". */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { PROJECT, runToEnd } from "../helpers/programs.ts";

const MAIN = `
import { KeyValueSessionStore, sessions } from "@counter/sessions";
import { kv } from "@counter/sessions/kv";
import { openStore } from "@counter/sessions/stores";
import { memoryStore } from "@counter/sessions/stores/memory";
import { Hono } from "hono";
import { z } from "zod";

const kvStore = await openStore("kv.db");
const store = new KeyValueSessionStore(kvStore);
const schema = z.object({ count: z.number().int().default(0) });
const app = new Hono().use(sessions({ store, schema })).get("/", async (c) => {
  const { count } = await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
  return c.text("Count: " + count);
});
console.log(await (await app.request("/")).text());
await kvStore.close();

const memory = memoryStore();
const page = await kv(memory).request("/", { headers: { Accept: "text/html" } });
console.log(page.status, /<h1>.*?<\\/h1>/.exec(await page.text())?.[0]);
await memory.close();
`;

Deno.test("an app in another directory links the package, and has all of its exports", async () => {
  const cwd = await Deno.makeTempDir();
  const { hono, zod } = project.imports;
  await Deno.writeTextFile(join(cwd, "deno.json"), JSON.stringify({ imports: { hono, zod } }));
  await Deno.writeTextFile(join(cwd, "main.ts"), MAIN);
  const commands = [["link", PROJECT], ["check", "main.ts"], ["run", "--allow-all", "main.ts"]];
  let output = "";
  for (const args of commands) {
    const { code, stdout, stderr } = await runToEnd(Deno.execPath(), args, { cwd });
    assertEquals(code, 0, stderr);
    output = stdout;
  }
  assertEquals(output, "Count: 1\n200 <h1>Key-value store</h1>\n");
  await Deno.remove(cwd, { recursive: true });
});
