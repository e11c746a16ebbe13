import { assertEquals } from "@std/assert";
import { misspelled } from "../server/misspelled.ts";
import { PROJECT, runToEnd } from "./helpers/programs.ts";

Deno.test("misspelled() finds what was meant", () => {
  const meant = (name: string) => /did you mean (\w+)\?$/.exec(misspelled([name])[0] ?? "")?.[1];
  assertEquals(meant("USE_SESSION_STOR"), "USE_SESSION_STORE");
  assertEquals(meant("SECERT_KEY"), "SECRET_KEY");
  assertEquals(meant("kv_url"), "KV_URL");
  assertEquals(meant("KV_TOKENS"), "KV_TOKEN");
});

Deno.test("misspelled() leaves settings and other programs' variables alone", () => {
  const names = "USE_SESSION_STORE PORT PORTS HOSTS DB PG_URL DB_PORT LANG SHELL".split(" ");
  assertEquals(misspelled(names), []);
});

Deno.test("start.ts points out a misspelled variable", async () => {
  const env = { USE_SESSION_STOR: "true", USE_SESSION_STORE: "yes" };
  const args = ["run", "--allow-env", "--allow-read", "start.ts"];
  const { stderr } = await runToEnd(Deno.execPath(), args, { cwd: PROJECT, env });
  assertEquals(
    stderr.split("\n")[0],
    "start: The environment variable USE_SESSION_STOR has no effect: " +
      "did you mean USE_SESSION_STORE?",
  );
});
