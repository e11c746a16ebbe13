/** A visitor with a browser, streams and two servers, beside a plain model of what was promised. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { Session } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { StoreUnavailable } from "../stores/store.ts";
import { testClock } from "./helpers/clock.ts";
import { scoped } from "./helpers/scoped.ts";
import { Browser, KINDS, sessionStore, testApp } from "./helpers/session_app.ts";

const LIFETIME = 1000;
/** How far the clock of the second server is ahead, in seconds. */
const AHEAD = 30;
/** More than the clocks differ, what a renewal leaves out near the end, and rounding. */
const SLACK = AHEAD + LIFETIME / 100 + 5;

const settings = fc.record({
  kind: fc.constantFrom(...KINDS),
  permanent: fc.boolean(),
  absoluteLifetime: fc.constantFrom(undefined, 1050, 3000),
});
/** What happens next: how many seconds later, and on which server. */
const step = fc.record({
  // deno-fmt-ignore
  happens: fc.constantFrom(
    "open", "open", "open", "unchanged", "count", "rotate", "cut rotate", "destroy", "close",
    "restart", "late read", "late read", "late read", "late count", "late unchanged",
  ),
  seconds: fc.constantFrom(0, 0, 10, 90, 120, 300, 500, 600, 800, 1100),
  server: fc.nat(1),
});

type Settings = typeof settings extends fc.Arbitrary<infer Value> ? Value : never;
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;
/** How often each was promised, and checked. */
const happened = { kept: 0, idle: 0, "over for good": 0, late: 0 };

Deno.test("a visitor keeps a session in use and no other, whatever pages, streams and servers do", async () => {
  const steps = fc.array(step, { minLength: 5, maxLength: 40, size: "max" });
  await fc.assert(fc.asyncProperty(settings, steps, simulate), { numRuns: 1500 });
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

async function simulate(
  { kind, permanent, absoluteLifetime }: Settings,
  steps: Step[],
): Promise<void> {
  const { now, pass } = testClock();
  const seconds = () => now() / 1000;
  await using memory = scoped(memoryStore({ now }));
  let isCut = false;
  const store = {
    ...memory,
    delete: (...args: Parameters<typeof memory.delete>) => {
      if (isCut) throw new StoreUnavailable("cut", { outcome: "unchanged" });
      return memory.delete(...args);
    },
  };
  let late: Session<{ count: number }> | undefined;
  const start = () =>
    [0, AHEAD].map((ahead) => {
      const options = { lifetime: LIFETIME, absoluteLifetime, now: () => now() + ahead * 1000 };
      const app = testApp({ store: sessionStore(kind, store, options), permanent });
      return app.get("/open", async (c) => c.json(await (late = c.var.session).read()));
    });
  let apps = start();
  let server = 0;
  const browser = new Browser({ request: (...them) => apps[server]?.request(...them) ?? fail() });
  let cookieEnds = Infinity;
  /** The session: when it began, was last on a page, and was last used at all. */
  let session: { count: number; began: number; seen: number; used: number } | null = null;

  /** Compares the count that a use of the session gives with what was promised. */
  function check(count: number, added: number, since: number, times = 0.9): boolean {
    const isFound = count > added;
    if (session === null) {
      assert(!isFound, "none is expected");
      return false;
    }
    const ends = session.began + (absoluteLifetime ?? Infinity);
    const left = ends - (0.9 - times) * LIFETIME; // a stream prolongs it by a tenth less
    if (seconds() - since < times * LIFETIME - SLACK && seconds() < left - SLACK) {
      happened.kept++;
      assertEquals(count, session.count + added, "it is in use");
    } else if (seconds() > ends + SLACK) {
      happened["over for good"]++;
      assert(!isFound, "its absolute lifetime is over");
    } else if (seconds() - session.used > LIFETIME + SLACK) {
      happened.idle++;
      assert(!isFound, "it was not used");
    }
    return isFound;
  }

  async function visit(path: string): Promise<void> {
    if (seconds() >= cookieEnds) browser.cookie = null;
    const method = path === "open" ? "GET" : "POST";
    const response = await browser.request(method, `/${path}`);
    const maxAge = /Max-Age=(\d+)/.exec(browser.setCookie ?? "")?.[1];
    if (browser.cookie !== null && browser.setCookie !== null) {
      assertEquals(maxAge !== undefined, permanent, browser.setCookie);
      cookieEnds = seconds() + Number(maxAge ?? Infinity);
    }
    if (path === "destroy") [session, late] = [null, undefined];
    if (response.status !== 200) return await response.body?.cancel();
    const { count } = await response.json();
    const isFound = check(count, path === "count" ? 1 : 0, session?.seen ?? 0);
    const began = isFound ? session?.began ?? 0 : seconds();
    if (!isFound || path === "rotate") late = undefined;
    if (count > 0) session = { count, began, seen: seconds(), used: seconds() };
    // The clock of the other server may be behind.
    else if (session) session.seen = -Infinity;
  }

  async function visitLate(call: string): Promise<void> {
    const added = call === "count" ? 1 : 0;
    const change = (s: { count: number }) => added ? { ...s, count: s.count + 1 } : s;
    const using = call === "read" ? late?.read() : late?.update(change);
    const found = await using?.catch(() => null) ?? null;
    // A signed cookie does not change after its page, and one that has ended has no successor.
    if (found === null) return void (late = undefined);
    happened.late++;
    const since = kind === "cookie" ? 0 : session?.used ?? 0;
    if (!check(found.count, added, since, 0.8) || session === null || call === "read") return;
    Object.assign(session, { count: found.count, used: seconds() });
  }

  for (const { happens, seconds: later, server: next } of steps) {
    pass(later);
    server = next;
    if (happens === "restart") [apps, late] = [start(), undefined];
    else if (happens === "close") {
      late = undefined;
      if (!permanent) [browser.cookie, session] = [null, null];
    } else if (happens.startsWith("late ")) { if (late) await visitLate(happens.slice(5)); }
    else {
      isCut = happens === "cut rotate" && kind === "store";
      await visit(happens.replace("cut ", ""));
      if (isCut && session) Object.assign(session, { used: seconds() });
      isCut = false;
    }
  }
  pass(LIFETIME + SLACK);
  assertEquals((await memory.list("")).keys, [], "everything stored ends");
}

function fail(): never {
  throw new Error("There is none");
}
