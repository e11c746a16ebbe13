/** docs/SCALING.md: from a file to Redis while visitors count, by the commands of the page. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { cookieOf, get } from "../helpers/http.ts";
import {
  eventually,
  Program,
  PROJECT,
  runToEnd,
  type Server,
  startServer,
  temporaryDirectory,
  testWith,
} from "../helpers/programs.ts";
import { REDIS, startRedis } from "../helpers/redis_servers.ts";

const VISITORS = 30;

testWith(
  [...REDIS, "deno", "sort", "cmp"],
  "SCALING.md moves the sessions of a running service to Redis, with every count and lifetime",
  async () => {
    await using directory = await temporaryDirectory();
    await using service = await startServer("kv.ts", {
      env: { DBM: join(directory.path, "kv.db") },
    });
    await using redis = await startRedis();
    const target = `redis://127.0.0.1:${redis.port}`;
    const [copyCommand = "", compareCommand = ""] = await commands(service.url, target);
    const options = { cwd: PROJECT, env: { NO_COLOR: "1" } };

    await using before = await startCounter(service.url);
    const visitors = await Promise.all(Array.from({ length: VISITORS }, async () => {
      return { cookie: await cookieOf(before.url), count: 1 };
    }));
    const visit = async (url: string) => {
      await Promise.all(visitors.map(async (visitor) => {
        const page = await get(url, { Cookie: visitor.cookie });
        assertMatch(page, new RegExp(`Count: ${++visitor.count}<`));
      }));
    };
    const ended = await cookieOf(before.url);

    await using copying = new Program("sh", ["-c", `exec ${copyCommand}`], options);
    const following = copying.printed(/Copied \d+ entries; following the changes/);
    let isFollowing = false;
    following.then(() => isFollowing = true, () => isFollowing = true);
    while (!isFollowing) await visit(before.url);
    await following;
    const reset = await fetch(`${before.url}/reset`, {
      method: "POST",
      headers: { Cookie: ended, Origin: before.url },
      redirect: "manual",
    });
    assertEquals(reset.status, 303);
    await reset.body?.cancel();
    await visit(before.url);
    visitors.push({ cookie: await cookieOf(before.url), count: 1 });
    assertEquals(await before.program.stop(), 0, before.program.output);

    await eventually("the same in both", async () => {
      const { code } = await runToEnd("sh", ["-c", `cd ${directory.path}; ${compareCommand}`]);
      return code === 0;
    });
    const [old, moved] = await Promise.all([lifetimes(service.url), lifetimes(target)]);
    assertEquals([...moved.keys()].sort(), [...old.keys()].sort());
    assertEquals(moved.size, VISITORS + 1, "the session that ended is in neither");
    for (const [key, expires] of old) {
      const kept = moved.get(key) ?? 0;
      assert(kept >= expires && kept < expires + 60_000, `${kept} for ${expires}`);
    }

    await using after = await startCounter(target);
    await visit(after.url);
    assertMatch(await get(after.url, { Cookie: ended }), /Count: 1</);
  },
);

/** The commands that copy and compare, with these addresses. */
async function commands(source: string, target: string): Promise<string[]> {
  const page = await Deno.readTextFile(join(PROJECT, "docs/SCALING.md"));
  const blocks = [...page.matchAll(/^ {3}```sh\n([^`]*)```/gm)].map(([, text = ""]) => text);
  const project = `--config ${join(PROJECT, "deno.json")}`;
  return blocks.map((text) =>
    text.trim()
      .replaceAll("redis://host", target)
      .replaceAll("http://localhost:5100", source)
      .replaceAll(/deno task/g, `deno task ${project}`)
  );
}

async function startCounter(KV_URL: string): Promise<Server> {
  return await startServer("counter.ts", { env: { KV_URL, USE_SESSION_STORE: "true" } });
}

/** When each entry expires. */
async function lifetimes(url: string): Promise<Map<string, number>> {
  const args = ["run", "-A", "dump.ts", "--format", "backup", url];
  const { code, stdout, stderr } = await runToEnd(Deno.execPath(), args);
  assertEquals(code, 0, stderr);
  const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  return new Map(lines.map(({ key, expires }) => [key, expires]));
}
