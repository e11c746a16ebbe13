/** Sessions shared by a Flask app and the counter: one browser's cookie goes to both. */
import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { Program, startServer, testWith } from "../helpers/programs.ts";

const PYTHON = "/usr/bin/python3";
const NEEDED = [
  PYTHON,
  "/usr/lib/python3/dist-packages/flask/__init__.py",
  "/usr/lib/python3/dist-packages/requests/__init__.py",
];
const SECRET_KEY = "the key that both apps have";

testWith(NEEDED, "counter.ts and a Flask app share live sessions in kv.ts", async () => {
  await using kv = await startServer("kv.ts");
  const config = { USE_SESSION_STORE: true, KV_URL: kv.url };
  await using counter = await startServer("counter.ts", { config });
  await using flask = await startFlask({ KV_URL: kv.url });

  const { count, cookie } = await load(counter.url);
  assertEquals(count, 1);
  assertEquals(await load(flask.url, cookie), { count: 2, cookie });
  assertEquals(await load(counter.url, cookie), { count: 3, cookie });
  const id = cookie.replace("session=", "");
  assertEquals(await (await fetch(`${kv.url}/${id}`)).json(), { [id]: { count: 3 } });

  // A session ended in Flask is ended in the counter.
  assertEquals(await reset(flask.url, cookie), "session=");
  const second = await load(counter.url, cookie);
  assertEquals(second.count, 1);
  assertNotEquals(second.cookie, cookie);

  // The other way round, with a session started by Flask.
  const flasks = await load(flask.url);
  assertEquals(await load(counter.url, flasks.cookie), { count: 2, cookie: flasks.cookie });
  assertEquals(await reset(counter.url, flasks.cookie), "session=");
  const third = await load(flask.url, flasks.cookie);
  assertEquals(third.count, 1);
  assertNotEquals(third.cookie, flasks.cookie);
});

testWith(NEEDED, "counter.ts and Flask read each other's signed cookies", async () => {
  await using counter = await startCounter({ SECRET_KEY });
  await using flask = await startFlask({ SECRET_KEY });

  const first = await load(counter.url);
  const second = await load(flask.url, first.cookie);
  const third = await load(counter.url, second.cookie);
  assertEquals([first.count, second.count, third.count], [1, 2, 3]);

  // Flask marks a compressed payload with a leading dot. The counter keeps keys it does not know.
  const filled = await load(`${flask.url}/fill`, third.cookie);
  assertMatch(filled.cookie, /^session=\./);
  const counted = await load(counter.url, filled.cookie);
  assertEquals(counted.count, 4);
  const answer = await fetch(flask.url, { headers: { Cookie: counted.cookie } });
  assertEquals(await answer.json(), { count: 5, text: "again and ".repeat(100) });
});

testWith(NEEDED, "counter.ts and Flask refuse cookies that were tampered with", async () => {
  await using counter = await startCounter({ SECRET_KEY });
  await using flask = await startFlask({ SECRET_KEY });
  const ours = (await load(counter.url)).cookie;
  const flasks = (await load(flask.url, ours)).cookie;
  const compressed = (await load(`${flask.url}/fill`, flasks)).cookie;
  const forged = `session=${btoa('{"count":99}').replace(/=+$/, "")}`;
  for (const cookie of [ours, flasks, compressed]) {
    const tampered = [
      cookie.replace(/^session=\.?[\w-]+/, forged),
      cookie.replace(/\.[\w-]+(?=\.[\w-]+$)/, ".AAAAAA"),
      cookie.replace(/[\w-]{4}$/, (end) => end === "AAAA" ? "BBBB" : "AAAA"),
    ];
    for (const url of [counter.url, flask.url]) {
      assertNotEquals((await load(url, cookie)).count, 1);
      for (const bad of tampered) assertEquals((await load(url, bad)).count, 1, bad);
    }
  }
});

testWith(NEEDED, "counter.ts takes a Flask cookie signed with a fallback key", async () => {
  const config = { SECRET_KEY: "a key that is new here", SECRET_KEY_FALLBACKS: [SECRET_KEY] };
  await using counter = await startCounter(config);
  await using flask = await startFlask({ SECRET_KEY });
  const first = await load(flask.url);
  const second = await load(counter.url, first.cookie);
  assertEquals(second.count, 2);
  // The counter signed it with the new key, which Flask does not have.
  assertEquals((await load(flask.url, second.cookie)).count, 1);
});

// ---- Programs and requests -----------------------------------------------------------------

function startCounter(config: object) {
  return startServer("counter.ts", { config: { ...config, SESSION_COOKIE_DIGEST: "sha1" } });
}

async function startFlask(env: Record<string, string>) {
  const script = new URL("flask_app.py", import.meta.url).pathname;
  const program = new Program(PYTHON, [script], { env });
  const [, url = ""] = await program.printed(/Running on (http:\S+)/);
  return { url, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}

/** Loads either app's page; returns its count and the cookie it sets. */
async function load(url: string, cookie = "") {
  const response = await fetch(url, { headers: { Cookie: cookie } });
  const text = await response.text();
  assertEquals(response.status, 200, text);
  const count = /<h1>Count: (\d+)|"count":\s*(\d+)/.exec(text);
  return { count: Number(count?.[1] ?? count?.[2]), cookie: newCookie(response) };
}

/** Ends the session; returns the cookie it sets. */
async function reset(url: string, cookie: string) {
  const response = await fetch(`${url}/reset`, {
    method: "POST",
    headers: { Cookie: cookie },
    redirect: "manual",
  });
  await response.body?.cancel();
  assertEquals(response.status, 303);
  return newCookie(response);
}

function newCookie(response: Response): string {
  return response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
}
