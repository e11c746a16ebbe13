/** docs/LESSON.md: its commands print what the page says, and two browsers see what it describes. */
import { assertEquals, assertMatch, assertNotEquals, assertNotMatch } from "@std/assert";
import { join } from "node:path";
import type { Page } from "puppeteer-core";
import { testInBrowsers, visit } from "../helpers/browsers.ts";
import { freePort, Program, PROJECT, runToEnd } from "../helpers/programs.ts";

testInBrowsers("LESSON.md says what a person sees", async (_t, { chromium, firefox }) => {
  await using lesson = await openLesson();

  await lesson.serve("SECRET_KEY='a key for this lesson' deno task start");
  await using fox = await visit(firefox, lesson.counterUrl);
  await using chrome = await visit(chromium, lesson.counterUrl);
  const first = await reload(fox.page);
  const second = await reload(fox.page);
  assertEquals([first.count, second.count, await count(chrome.page)], [2, 3, 1]);
  assertNotEquals(first.cookie, second.cookie);
  await lesson.run(9);
  await lesson.stop();

  await lesson.serve("USE_SESSION_STORE=true deno task start");
  const loads = [];
  for (const { page } of [fox, fox, fox, chrome, chrome]) loads.push(await reload(page));
  assertEquals(loads.map(({ count }) => count), [1, 2, 3, 1, 2]);
  assertMatch(loads[0]?.cookie ?? "", /^session=[0-9a-f-]{36};/);
  assertEquals(loads[1]?.cookie, loads[0]?.cookie);
  await lesson.run(1);
  await Promise.all([fox.page.waitForNavigation(), fox.page.click("form button")]);
  const afterReset = await reload(fox.page);
  assertEquals(afterReset.count, 2);
  assertNotEquals(afterReset.cookie, loads[0]?.cookie);
  await lesson.run(1);
  await lesson.stop();

  await lesson.serve("USE_SESSION_STORE=true deno task counter");
  assertEquals((await reload(chrome.page)).status, 503);
  await lesson.serve("deno task kv");
  assertEquals(await reload(chrome.page), { status: 200, count: 3, cookie: loads[3]?.cookie });
  assertEquals(lesson.left, []);
}, ["http"]);

async function reload(page: Page) {
  const response = await page.reload();
  const status = response?.status();
  return { status, cookie: response?.headers()["set-cookie"], count: await count(page) };
}

async function count(page: Page): Promise<number> {
  return Number(/Count: (\d+)/.exec(await page.content())?.[1]);
}

/** Reads the page's commands, which then run one after the other, on free ports. */
async function openLesson() {
  const text = await Deno.readTextFile(join(PROJECT, "docs/LESSON.md"));
  const blocks = [...text.matchAll(/^```console\n([^]*?)^```$/gm)].map(([, block = ""]) => block);
  const commands = blocks.flatMap((block) => block.split(/^\$ /m).slice(1)).map((it) => {
    const [command = "", ...expected] = it.trimEnd().split("\n");
    return { command, expected };
  });
  const directory = await Deno.makeTempDir();
  // HTTPie formats JSON at a terminal only.
  const options = { default_options: ["--ignore-stdin", "--pretty=format"] };
  await Deno.writeTextFile(join(directory, "config.json"), JSON.stringify(options));
  const [counterPort, kvPort] = [freePort(), freePort()];
  const file = join(directory, "kv.db");
  const env = { DBM: file, HTTPIE_CONFIG_DIR: directory, NO_COLOR: "1" };
  let servers: Program[] = [];

  /** Replaces the lesson's ports and file. */
  function here(text: string): string {
    return text.replaceAll("localhost:5000", `localhost:${counterPort}`)
      .replaceAll("localhost:5100", `localhost:${kvPort}`).replaceAll("kv.db", file);
  }

  function take(): { command: string; expected: string[] } {
    const next = commands.shift();
    if (next === undefined) throw new Error("docs/LESSON.md has no more commands");
    return next;
  }

  const lesson = {
    counterUrl: `http://localhost:${counterPort}`,

    /** The commands that have not run. */
    left: commands,

    /** Starts the servers of the next command, and waits for the lines that they print. */
    async serve(expected: string): Promise<void> {
      const { command, expected: lines } = take();
      assertEquals(command, expected);
      const [, key = "", mode, task = ""] =
        /^(?:SECRET_KEY='(.*)' )?(?:USE_SESSION_STORE=(true) )?deno task (\w+)$/.exec(command) ??
          [];
      const ports = { PORT: `${task === "kv" ? kvPort : counterPort}`, KV_PORT: `${kvPort}` };
      const program = new Program(Deno.execPath(), ["task", task], {
        env: {
          ...env,
          ...ports,
          SECRET_KEY: key,
          USE_SESSION_STORE: mode ?? "false",
          KV_URL: here("http://localhost:5100"),
        },
      });
      servers.push(program);
      for (const line of lines) await program.printed(pattern(here(line)), 30);
    },

    /** Runs the next commands, and compares what they print. */
    async run(total: number): Promise<void> {
      for (let i = 0; i < total; i++) {
        const { command, expected } = take();
        const { stdout, stderr } = await runToEnd("bash", ["-c", here(command)], { env });
        assertLines(stdout.trim().split("\n"), expected, `${command}\n${stdout}${stderr}`);
      }
    },

    async stop(): Promise<void> {
      for (const server of servers) {
        assertEquals(await server.stop(), 0);
        assertNotMatch(server.output, /SECRET_KEY|no effect/, "no warning");
      }
      servers = [];
    },

    async [Symbol.asyncDispose](): Promise<void> {
      await lesson.stop();
      await Deno.remove(directory, { recursive: true });
    },
  };
  return lesson;
}

/** Compares lines in any order, since ids are random; `…` stands for any text. */
function assertLines(lines: string[], expected: string[], message: string): void {
  const rest = [...lines];
  for (const line of expected) {
    const found = rest.findIndex((it) => pattern(line).test(it));
    assertNotEquals(found, -1, `Not printed: ${line}\n${message}`);
    rest.splice(found, 1);
  }
  assertEquals(rest, [], message);
}

/** Matches a line, in which `…` stands for any text. */
function pattern(line: string): RegExp {
  const parts = line.split("…").map((part) => part.replace(/[^\w ]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`, "im");
}
