import { assertEquals } from "@std/assert";
import { SETTINGS } from "../server/config.ts";
import { meant } from "../server/misspelled.ts";
import { PROJECT, runToEnd } from "./helpers/programs.ts";

Deno.test("meant() finds what was meant", () => {
  assertEquals(meant("USE_SESSION_STOR", SETTINGS), "USE_SESSION_STORE");
  assertEquals(meant("SECERT_KEY", SETTINGS), "SECRET_KEY");
  assertEquals(meant("kv_url", SETTINGS), "KV_URL");
  assertEquals(meant("KV_TOKENS", SETTINGS), "KV_TOKEN");
});

Deno.test("meant() leaves settings and other programs' variables alone", () => {
  const names = "USE_SESSION_STORE PORT PORTS HOSTS DB PG_URL DB_PORT LANG SHELL".split(" ");
  assertEquals(names.filter((name) => meant(name, SETTINGS) !== undefined), []);
});

Deno.test("start.ts points out a misspelled variable, after what it ends with", async () => {
  const env = { USE_SESSION_STOR: "true", USE_SESSION_STORE: "yes" };
  const args = ["run", "--allow-env", "--allow-read", "start.ts"];
  const { stderr } = await runToEnd(Deno.execPath(), args, { cwd: PROJECT, env });
  assertEquals(stderr.trim().split("\n"), [
    'start: environment: USE_SESSION_STORE is "yes": expected true or false',
    "start: The environment variable USE_SESSION_STOR has no effect: " +
    "did you mean USE_SESSION_STORE?",
  ]);
});
