/**
 * Every order in which the calls of a few requests to one session can reach the store, fail there,
 * and be cut off by a crash: the real middleware, in processes with caches of their own.
 */
import { assert, assertEquals } from "@std/assert";
import { KeyValueSessionStore } from "../../sessions.ts";
import { memoryStore } from "../../stores/memory.ts";
import { everyOrder, type Order, type Program, type Tried } from "../helpers/orders.ts";
import { Browser, testApp } from "../helpers/session_app.ts";

/** A process, and what it is asked. */
export type Request = `${"a" | "b" | "c"} ${"count" | "read" | "rotate" | "destroy"}`;

/** What a browser was answered. */
interface Answer {
  request: string;
  status: number;
  /** The id that it was sent, or null. */
  cookie: string | null;
  count: number;
}

const MARK = "this session";
/** Longer than a tombstone lives, in milliseconds. */
const LATER = 60_000;

/** Starts these requests at once, all with the cookie of one session. */
function requests(asked: readonly Request[]): Program {
  return async (order) => {
    let time = Date.now();
    const now = () => time;
    const memory = memoryStore({ now });
    const browser = new Browser(testApp({ store: new KeyValueSessionStore(memory, { now }) }));
    await browser.post("/set", { mark: MARK });
    const id = browser.cookie ?? "";
    const apps = new Map<string, ReturnType<typeof testApp>>();
    const answers: Answer[] = [];
    for (const it of asked) {
      const [process = "", request = ""] = it.split(" ");
      const store = new KeyValueSessionStore(order.storeOf(process, memory), { now });
      const app = apps.get(process) ?? testApp({ store });
      apps.set(process, app);
      void ask(app, request, id).then((answer) => answers.push(answer));
    }
    return {
      async check() {
        time += LATER;
        const entries = new Map<string, { count: number; mark?: string }>();
        for (const key of (await memory.list("")).keys) {
          const entry = await memory.get(key);
          if (entry !== null) entries.set(key, JSON.parse(entry.value));
        }
        checkAnswers(order, asked, answers);
        checkEntries(order, id, answers, entries);
      },
      end: () => memory.close(),
    };
  };
}

async function ask(app: ReturnType<typeof testApp>, request: string, id: string): Promise<Answer> {
  const tab = new Browser(app);
  tab.cookie = id;
  const response = await tab.request(request === "read" ? "GET" : "POST", `/${request}`);
  const { status } = response;
  const count = status === 200 ? (await response.json()).count : NaN;
  return { request, status, cookie: tab.setCookie && tab.cookie, count };
}

function checkAnswers(order: Order, asked: readonly Request[], answers: Answer[]): void {
  const crashed = asked.filter((it) => order.hasCrashed(it.split(" ")[0] ?? ""));
  assert(answers.length >= asked.length - crashed.length, "each request is answered");
  for (const { request, status, cookie } of answers) {
    assert([200, 303, 409, 503].includes(status), `${request}: ${status}`);
    if (!order.hasFailed) assert(status !== 503, `${request}: 503 though nothing failed`);
    if (status === 409) assertEquals(cookie, null, "a 409 has no cookie");
  }
}

/** Checks what is stored when all is done. */
function checkEntries(
  order: Order,
  id: string,
  answers: Answer[],
  entries: ReadonlyMap<string, { count: number; mark?: string }>,
): void {
  const found = JSON.stringify({ id, answers, entries: [...entries] });
  const copies = [...entries.keys()].filter((key) => entries.get(key)?.mark === MARK);
  const isEnded = answers.some(({ request, status }) => request === "destroy" && status === 303);
  // Nobody has the new id if the rotation was done, and its process crashed before it could say so.
  const mayBeEnded =
    answers.some(({ request, status }) => request === "destroy" && status !== 409) ||
    order.happened.some((name) => /delete unknown|crash/.test(name));
  const rotations = answers.filter(({ request, status, cookie }) => {
    return request === "rotate" && status === 200 && copies.includes(cookie ?? "");
  });
  const given = new Set(answers.map(({ cookie }) => cookie));
  /** Copies that a browser can have the id of. */
  const held = copies.filter((key) => key === id || given.has(key));
  if (isEnded) assertEquals(held, [], `what was ended stays ended: ${found}`);
  if (!order.hasFailed) assertEquals(copies.length, isEnded ? 0 : 1, `one copy: ${found}`);
  if (!mayBeEnded) assert(held.length > 0, `nobody can reach the session: ${found}`);
  assert(rotations.length <= 1, `one rotation has the session: ${found}`);

  // An update that found no session has begun one, which counts from 1.
  const counts = answers.filter(({ request, status, cookie }) =>
    request === "count" && status === 200 && cookie === id
  ).map(({ count }) => count);
  assertEquals(new Set(counts).size, counts.length, `each count is another: ${found}`);
  if (held.length === 0) return;
  const most = Math.max(...held.map((key) => entries.get(key)?.count ?? NaN));
  assert(most >= Math.max(0, ...counts), `an acknowledged update is lost: ${found}`);
  const unknown = order.happened.filter((name) => /set (unknown|crash)/.test(name)).length;
  assert(most <= counts.length + unknown, `an update counts twice: ${found}`);
}

/** Requests that meet, and how many of their calls may fail. */
export interface Meeting {
  readonly faults: number;
  readonly asked: readonly Request[];
}

/** All orders of these take some seconds. */
export const MEETINGS: Meeting[] = [
  { faults: 1, asked: ["a count", "b count"] },
  { faults: 1, asked: ["a count", "a count", "b count", "b count"] },
  { faults: 1, asked: ["a rotate", "b count"] },
  { faults: 1, asked: ["a destroy", "b count"] },
  { faults: 1, asked: ["a destroy", "b rotate"] },
  { faults: 0, asked: ["a rotate", "b count", "c destroy"] },
];

/** All orders of these take minutes. */
export const LARGE_MEETINGS: Meeting[] = [
  { faults: 1, asked: ["a count", "b count", "c count"] },
  { faults: 2, asked: ["a count", "b count"] },
  { faults: 0, asked: ["a rotate", "b rotate"] },
  { faults: 1, asked: ["a rotate", "b rotate"] },
  { faults: 0, asked: ["a rotate", "b count", "c count"] },
  { faults: 0, asked: ["a rotate", "b rotate", "a count"] },
  { faults: 1, asked: ["a rotate", "b count", "c destroy"] },
  { faults: 2, asked: ["a destroy", "b rotate"] },
];

/** Runs all orders of a meeting. */
export async function meet({ faults, asked }: Meeting): Promise<Tried> {
  return await everyOrder(requests(asked), { faults, crashes: faults > 0 });
}

/** Names a meeting. */
export function nameOf({ faults, asked }: Meeting): string {
  return asked.join(", ") + (faults === 0 ? "" : `, and ${faults} of their calls may fail`);
}
