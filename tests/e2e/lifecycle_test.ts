/**
 * Random updates, rotations and resets of sessions, by several processes over one service. If a check
 * fails, fast-check prints the seed and the requests.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { startProcesses } from "../helpers/programs.ts";

const PROCESSES = 4;
/** Browsers that send requests at the same time, each with its own session. */
const BROWSERS = 3;
const RUNS = 40;
/**
 * Milliseconds. The tombstone of a rotated id expires after ten seconds; a slower request cannot tell
 * it from an id that was reset.
 */
const SLOW = 8_000;

const step = fc.record({
  process: fc.nat({ max: PROCESSES - 1 }),
  path: fc.constantFrom("/count", "/count", "/count", "/count", "/rotate", "/destroy"),
});
/** Bursts of simultaneous requests with one id, one burst after the other. */
const bursts = fc.array(fc.array(step, { minLength: 1, maxLength: 8, size: "max" }), {
  minLength: 1,
  maxLength: 6,
  size: "max",
});
type Bursts = typeof bursts extends fc.Arbitrary<infer T> ? T : never;

interface Answer {
  path: string;
  status: number;
  /** The id in `Set-Cookie`, or null if there is none. */
  id: string | null;
  count: number;
}

/** A session, whose id may change. */
interface Session {
  id: string;
  /** The counts in its responses. */
  counts: Set<number>;
  /** Requests that failed with 503: they may have counted or not. */
  unknown: number;
}

for (const HASH_SESSION_IDS of ["false", "true"]) {
  Deno.test(`updates, rotations and resets over ${PROCESSES} processes lose no count and revive no id, HASH_SESSION_IDS=${HASH_SESSION_IDS}`, async () => {
    const env = { HASH_SESSION_IDS };
    await using apps = await startProcesses("tests/e2e/session_app.ts", PROCESSES, env);
    const { urls } = apps;
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
    assert(ended.rotated.size > 0 && ended.destroyed.size > 0, "some sessions ended");
    for (const id of [...ended.rotated, ...ended.destroyed]) await isEnded(urls, id);
  });
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
  // A rotation whose outcome is unknown sends its new id.
  const mayBring = status < 400 || (status === 503 && path === "/rotate");
  if (!mayBring) assertEquals(setCookie, null, `${path}: a cookie with the ${status}`);
  return {
    path,
    status,
    id: /^session=([^;]+)/.exec(setCookie ?? "")?.[1] ?? null,
    count: status === 200 ? JSON.parse(text).count : NaN,
  };
}

/** Repeats a request until the store is available. */
async function askAgain(url: string | undefined, path: string, id?: string): Promise<Answer> {
  for (let tries = 0; tries < 20; tries++) {
    const answer = await ask(url, path, id);
    if (answer.status !== 503) return answer;
  }
  throw new Error(`${url} has answered 503 twenty times`);
}

/** Sends one browser's bursts, each with the id that the previous one ended with. */
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
      // The state of this session is unknown.
      session = null;
      continue;
    }
    const [rotated, ...others] = answers.filter((it) => it.path === "/rotate" && it.id !== null);
    const destroyed = answers.some(({ status }) => status === 303);
    assertEquals(others.length, 0, "only one rotation succeeds");
    assert(!(rotated && destroyed), "a rotation and a reset do not both succeed");
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

/** Checks the counts of one burst, and adds them to the session's. */
function checkCounts(
  session: Session,
  answers: Answer[],
  { rotated, destroyed }: { rotated?: Answer | undefined; destroyed: boolean },
): void {
  const { counts } = session;
  const isRotating = answers.some(({ path }) => path === "/rotate");
  for (const { path, status, id, count } of answers) {
    // Also while a rotation is under way, even if a reset then ends the session first.
    if (status === 409) assert(isRotating, `${path}: a 409 without a rotation`);
    if (path !== "/count") continue;
    if (status === 503) session.unknown++;
    if (status !== 200) continue;
    if (id === session.id) {
      assert(!counts.has(count), `${count} was counted twice`);
      counts.add(count);
    } else {
      assert(destroyed, "only a reset session starts again");
      assertEquals(count, 1);
    }
  }
  const most = counts.size + session.unknown;
  assert(Math.max(...counts) <= most, `${[...counts]}: a gap`);
  if (rotated) {
    assert(rotated.count >= counts.size && rotated.count <= most, "the data is kept");
  }
}

/** Checks that an id is invalid: it gets a 409, or a new session. */
async function isEnded(urls: string[], id: string): Promise<void> {
  for (const url of urls) {
    const answer = await askAgain(url, "/count", id);
    if (answer.status === 409) continue;
    assertEquals(answer.status, 200);
    assertNotEquals(answer.id, id, "an ended id is not reused");
    assertEquals(answer.count, 1);
  }
}
