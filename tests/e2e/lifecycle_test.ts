/**
 * Sessions that are counted, rotated and reset at random by several processes over one service. Where
 * a check fails, fast-check prints the seed, and what was asked.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { freePort, startScript } from "../helpers/programs.ts";

const PROCESSES = 4;
/** Browsers that ask at the same time, each with a session of its own. */
const BROWSERS = 3;
const RUNS = 40;
/**
 * In milliseconds. A rotated id is known for ten seconds: a slower request cannot tell it from one
 * that was reset.
 */
const SLOW = 8_000;

const step = fc.record({
  process: fc.nat({ max: PROCESSES - 1 }),
  path: fc.constantFrom("/count", "/count", "/count", "/count", "/rotate", "/destroy"),
});
/** What a browser asks at once, with one id; then what it asks at once with the id that it has now. */
const bursts = fc.array(fc.array(step, { minLength: 1, maxLength: 8, size: "max" }), {
  minLength: 1,
  maxLength: 6,
  size: "max",
});
type Bursts = typeof bursts extends fc.Arbitrary<infer T> ? T : never;

interface Answer {
  path: string;
  status: number;
  /** The id that the browser is given; null where it is given none. */
  id: string | null;
  count: number;
}

/** One session, under one id after the other. */
interface Session {
  id: string;
  /** What its loads have answered. */
  counts: Set<number>;
  /** Loads that the store did not answer in time: they may have counted or not. */
  unknown: number;
}

for (const HASH_SESSION_IDS of ["false", "true"]) {
  Deno.test(`updates, rotations and resets over ${PROCESSES} processes lose no count and bring no id back, HASH_SESSION_IDS=${HASH_SESSION_IDS}`, async () => {
    const { urls, stop } = await startApps({ HASH_SESSION_IDS });
    const ended = { rotated: new Set<string>(), destroyed: new Set<string>() };
    await fc.assert(
      fc.asyncProperty(
        fc.array(bursts, { minLength: BROWSERS, maxLength: BROWSERS }),
        async (browsers) => {
          await Promise.all(browsers.map((asked) => browse(urls, asked, ended)));
        },
      ),
      { numRuns: RUNS, interruptAfterTimeLimit: 300_000, endOnFailure: true },
    );
    assert(ended.rotated.size > 0 && ended.destroyed.size > 0, "some sessions were ended");
    for (const id of [...ended.rotated, ...ended.destroyed]) await isEnded(urls, id);
    await stop();
  });
}

/** One key-value service in memory, and programs with sessions over it. */
async function startApps(env: Record<string, string>) {
  const port = freePort();
  const service = startScript("kv.ts", [], { env: { PORT: String(port), DBM: ":memory:" } });
  await service.printed(/kv: http/);
  const KV_URL = `http://127.0.0.1:${port}`;
  const apps = Array.from(
    { length: PROCESSES },
    () => startScript("tests/e2e/session_app.ts", [], { env: { ...env, KV_URL } }),
  );
  const urls: string[] = [];
  for (const app of apps) urls.push((await app.printed(/session_app: (http\S+)/))[1] ?? "");
  return {
    urls,
    async stop() {
      for (const program of [...apps, service]) assertEquals(await program.stop(), 0);
    },
  };
}

async function ask(url = "", path: string, id?: string): Promise<Answer> {
  const response = await fetch(url + path, {
    method: "POST",
    headers: id === undefined ? {} : { Cookie: `session=${id}` },
    redirect: "manual",
  });
  const { status } = response;
  const text = await response.text();
  assert([200, 303, 409, 503].includes(status), `${path}: ${status} ${text}`);
  const setCookie = response.headers.get("Set-Cookie");
  // A rotation that was cut off brings its new id.
  const mayBring = status < 400 || (status === 503 && path === "/rotate");
  if (!mayBring) assertEquals(setCookie, null, `${path}: a cookie with the ${status}`);
  return {
    path,
    status,
    id: /^session=([^;]+)/.exec(setCookie ?? "")?.[1] ?? null,
    count: status === 200 ? JSON.parse(text).count : NaN,
  };
}

/** Asks until the store answers. */
async function askAgain(url: string | undefined, path: string, id?: string): Promise<Answer> {
  for (let tries = 0; tries < 20; tries++) {
    const answer = await ask(url, path, id);
    if (answer.status !== 503) return answer;
  }
  throw new Error(`${url} has answered 503 twenty times`);
}

/** One browser's requests: each burst with the id that the one before it has left. */
async function browse(
  urls: string[],
  asked: Bursts,
  ended: { rotated: Set<string>; destroyed: Set<string> },
): Promise<void> {
  let session: Session | null = null;
  for (const [i, burst] of asked.entries()) {
    session ??= await begin(urls[i % PROCESSES]);
    const id: string = session.id;
    const start = performance.now();
    const answers: Answer[] = await Promise.all(
      burst.map(({ process, path }) => ask(urls[process], path, id)),
    );
    const unsure = answers.some(({ path, status }) => path !== "/count" && status === 503);
    if (unsure || performance.now() - start > SLOW) {
      // Nobody knows what became of this session.
      session = null;
      continue;
    }
    const [rotated, ...others] = answers.filter((it) => it.path === "/rotate" && it.id !== null);
    const destroyed = answers.some(({ status }) => status === 303);
    assertEquals(others.length, 0, "one rotation succeeds");
    assert(!(rotated && destroyed), "of a rotation and a reset one succeeds");
    checkCounts(session, answers, { rotated, destroyed });
    if (rotated || destroyed) await isEnded(urls.slice(i % PROCESSES, i % PROCESSES + 1), id);
    if (rotated) ended.rotated.add(id);
    if (destroyed) ended.destroyed.add(id);
    if (rotated) session.id = rotated.id ?? "";
    if (destroyed) session = null;
  }
  if (session === null) return;
  const last = await askAgain(urls[0], "/count", session.id);
  checkCounts(session, [last], { destroyed: false });
}

async function begin(url: string | undefined): Promise<Session> {
  const { id, count } = await askAgain(url, "/count");
  assertEquals(count, 1);
  return { id: id ?? "", counts: new Set([1]), unknown: 0 };
}

/** Checks what the loads of one burst have counted, and adds it to what is known of the session. */
function checkCounts(
  session: Session,
  answers: Answer[],
  { rotated, destroyed }: { rotated?: Answer | undefined; destroyed: boolean },
): void {
  const { counts } = session;
  for (const { path, status, id, count } of answers) {
    if (status === 409) assert(rotated, `${path}: a 409 without a rotation`);
    if (path !== "/count") continue;
    if (status === 503) session.unknown++;
    if (status !== 200) continue;
    if (id === session.id) {
      assert(!counts.has(count), `${count} was counted twice`);
      counts.add(count);
    } else {
      assert(destroyed, "a session that was not reset does not begin anew");
      assertEquals(count, 1);
    }
  }
  const most = counts.size + session.unknown;
  assert(Math.max(...counts) <= most, `${[...counts]}: a gap`);
  if (rotated) {
    assert(rotated.count >= counts.size && rotated.count <= most, "the data is kept");
  }
}

/** An id that was ended: asked to try again, or given a session of its own. */
async function isEnded(urls: string[], id: string): Promise<void> {
  for (const url of urls) {
    const answer = await askAgain(url, "/count", id);
    if (answer.status === 409) continue;
    assertEquals(answer.status, 200);
    assertNotEquals(answer.id, id, "an id that was ended is not taken again");
    assertEquals(answer.count, 1);
  }
}
