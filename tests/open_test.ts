import { assert, assertEquals, assertMatch, assertNotMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { kv } from "../kv.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { openStore } from "../stores/open.ts";
import { InvalidArgument } from "../stores/store.ts";
import { runToEnd, temporaryDirectory } from "./helpers/programs.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";

Deno.test("openStore() opens what a URL names", async () => {
  await using directory = await temporaryDirectory();
  for (
    const url of [
      ":memory:",
      join(directory.path, "a.db"),
      `sqlite:${join(directory.path, "b.db")}`,
    ]
  ) {
    await using store = scoped(await openStore(url));
    await store.set("a", json(1));
    assertEquals((await store.get("a"))?.value, "1");
  }
  assertEquals([...Deno.readDirSync(directory.path)].map(({ name }) => name).sort(), [
    "a.db",
    "b.db",
  ]);
});

Deno.test("openStore() names the URL that it cannot open, and what is expected", async () => {
  for (
    const url of [
      "ftp://x",
      "mongodb://x/y",
      "",
      "sqlite:",
      "sqlite://kv.db",
      "sqlite:file:kv.db",
      "http://",
      "https://:80",
    ]
  ) {
    const error = await assertRejects(() => openStore(url), Error);
    assertMatch(error.message, /^Cannot open the store "/);
    assert(error.message.includes(`"${url}": expected `), error.message);
  }
});

Deno.test("openStore() says what is wrong with a Redis URL without its password", async () => {
  const wrong = {
    "redis://": "expected a host",
    "redis:x": "expected a host",
    "redis://a:1,b:2": "expected one host",
    "redis://x:70000": "expected host:port",
    "redis://x/first": "expected the number of a database",
    "rediss://x?db=1": "expected no parameter except prefix",
    "redis+sentinel://x": "expected the name of the master",
    "redis+cluster://x/1": "expected no database",
    "redis+unix://x/run/redis.sock": "expected redis+unix:///path",
    "redis+unix://": "expected redis+unix:///path",
    "redis+unix:///run/redis.sock?db=x": "expected the number of a database",
    "redis://x?sentinelPassword=hunter2": "expected no parameter except prefix",
    "redis+sentinel://x?sentinelPassword=hunter2": "expected the name of the master",
    "redis://:%zz@x": "expected percent-encoding",
    "redis://ann:hun/ter2@x": "expected %2F, %3F, %23 or %40 for each /, ?, # or @",
    "redis://ann:hun?ter2@x": "expected %2F",
    "redis://ann:hun#ter2@x": "expected %2F",
    "redis://ann:1/hunter2@x": "expected %2F",
    "redis://ann:hun@ter2@x/y": "expected the number of a database",
    "redis:ann:hunter2@x": "expected a host",
    "http://ann:hunter2@x": "expected no user or password",
    "mongodb://ann:hunter2@x": "expected :memory:",
  };
  for (const [url, problem] of Object.entries(wrong)) {
    const error = await assertRejects(() => openStore(url), Error);
    assert(error instanceof InvalidArgument);
    assertMatch(error.message, /^Cannot open the store "/);
    assert(error.message.includes(`": ${problem}`), error.message);
    assertNotMatch(error.message, /hun|ter2/);
  }
});

Deno.test("openStore() puts the prefix of its URL before every key", async () => {
  await using directory = await temporaryDirectory();
  const file = join(directory.path, "a.db");
  await using memory = scoped(memoryStore());
  await using server = serve(kv(memory).fetch);
  for (const url of [file, `sqlite:${file}`, server.url]) {
    const [whole, part] = [await openStore(url), await openStore(`${url}?prefix=a%26%3A`)];
    await part.set("k", json(1));
    assertEquals((await whole.list("")).keys, ["a&:k"]);
    assertEquals((await part.list("")).keys, ["k"]);
    await part.delete("k");
    for (const store of [whole, part]) await store.close();
  }
  await (await openStore(":memory:?prefix=a:")).close();
  assertEquals([...Deno.readDirSync(directory.path)].map(({ name }) => name), ["a.db"]);
});

Deno.test("openStore() rejects a parameter that means nothing", async () => {
  const urls = ["q.db?x=1", "sqlite:q.db?mode=ro", ":memory:?x", "http://x?y=1"];
  for (const url of urls) {
    const error = await assertRejects(() => openStore(url), InvalidArgument);
    assert(error.message.includes(`"${url}": expected no parameter except prefix, found `));
  }
  await assertRejects(() => openStore("q.db?prefix=%zz"), InvalidArgument, "percent-encoding");
  for (const url of ["http://x/#b", "http://x/#", "http://x/#?prefix=a"]) {
    await assertRejects(() => openStore(url), InvalidArgument, "expected nothing after the path");
  }
  for (const address of ["http://x/", "redis://x", "q.db"]) {
    await assertRejects(() => openStore(`${address}?prefix=a#b`), InvalidArgument, "expected %23");
  }
});

Deno.test("openStore() keeps no program alive that forgets to close its store", async () => {
  await using directory = await temporaryDirectory();
  const module = JSON.stringify(import.meta.resolve("../stores/open.ts"));
  for (const url of [":memory:", join(directory.path, "kv.db"), "http://127.0.0.1:1"]) {
    const code = `
      import { openStore } from ${module};
      await openStore(${JSON.stringify(url)});
      console.log("the end");
    `;
    const { code: exitCode, stdout } = await runToEnd("timeout", [
      "60",
      Deno.execPath(),
      "eval",
      code,
    ]);
    assertEquals([exitCode, stdout], [0, "the end\n"], url);
  }
});
