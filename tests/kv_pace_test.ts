/** Long work in short steps. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { kv } from "../kv.ts";
import { pause, Turnstile } from "../kv/pace.ts";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { cpuTime } from "./helpers/cpu_time.ts";
import { scoped } from "./helpers/scoped.ts";
import { replaced } from "./helpers/replaced.ts";

/** Keeps the thread busy. */
function work(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

Deno.test("pause() lets others go on after a long step, one large request at a time", async () => {
  await pause();
  work(25);
  const events: string[] = [];
  const other = new Promise<void>((resolve) =>
    setTimeout(() => {
      events.push("other");
      resolve();
    }, 0)
  );
  const large = async (name: string) => {
    await pause();
    events.push(name);
    work(25);
  };
  await Promise.all([large("a"), large("b"), large("c"), other]);
  assertEquals(events, ["other", "a", "b", "c"]);
});

Deno.test("pause() does not wait during a short step", async () => {
  work(25);
  let time = performance.now();
  using _now = replaced(performance, { now: () => time });
  await pause();
  let others = 0;
  const timer = setTimeout(() => others++, 0);
  time += 19;
  for (let i = 0; i < 100; i++) await pause();
  assertEquals(others, 0);
  clearTimeout(timer);
});

Deno.test("kv() answers while a test has replaced setTimeout, and afterwards", async () => {
  await using memory = scoped(memoryStore());
  const app = kv(memory);
  work(25);
  const set = () => app.request("/", { method: "POST", body: new URLSearchParams({ a: "1" }) });
  {
    using _setTimeout = replaced(globalThis, { setTimeout: () => 0 });
    assertEquals(await (await set()).text(), '{"a":"1"}');
  }
  assertEquals(await (await set()).text(), '{"a":"1"}');
});

Deno.test("Turnstile lets in so many at a time, in order, for any who enter and leave", async () => {
  let waited = 0;
  const runs = fc.record({ places: fc.integer({ min: 1, max: 5 }), steps: fc.array(fc.boolean()) });
  await fc.assert(
    fc.asyncProperty(runs, async ({ places, steps }) => {
      const turnstile = new Turnstile(places);
      const entered: number[] = [];
      let came = 0;
      let left = 0;
      for (const comes of steps) {
        if (comes) {
          const number = came++;
          void turnstile.enter().then(() => entered.push(number));
        } else if (left < entered.length) {
          left++;
          turnstile.leave();
        }
        await new Promise((resolve) => setImmediate(resolve));
        const inside = Math.min(came, left + places);
        if (came > inside) waited++;
        assertEquals(entered, Array.from({ length: inside }, (_, i) => i));
      }
    }),
  );
  assert(waited > 20, `${waited}`);
});

/** The most CPU time without a turn for others during a request, as a share of all of it. */
async function longestStep(type: string, text: string): Promise<number> {
  const store = memoryStore();
  // In chunks, as it comes from a socket.
  const bytes = new TextEncoder().encode(text);
  let sent = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(bytes.subarray(sent, sent += 64 * 1024));
      if (sent >= bytes.length) controller.close();
    },
  });
  const headers = { "Content-Type": `application/${type}` };
  const begun = cpuTime();
  let isOver = false;
  const send = async () => {
    const response = await kv(store).request("/", { method: "POST", headers, body });
    isOver = true;
    assertEquals(response.status, 200);
    await response.body?.cancel();
  };
  const request = send();
  let longest = 0;
  for (let last = begun; !isOver; last = cpuTime()) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    longest = Math.max(longest, cpuTime() - last);
  }
  const share = longest / (cpuTime() - begun);
  await request;
  await store.close();
  return share;
}

const FORM = Array.from({ length: 9999 }, (_, i) => `k${i}=${"%C3%A9".repeat(260)}`).join("&");
const LINES = '{"a":1}\n'.repeat(500_000);

for (const [type, text] of [["x-www-form-urlencoded", FORM], ["x-ndjson", LINES]] as const) {
  Deno.test(`kv() lets others go on while it reads a large body of type ${type}`, async () => {
    const shares: number[] = [];
    // Collecting garbage counts too, and compiling the first time.
    while (shares.length < 10 && !(Math.min(...shares) < 1 / 3)) {
      shares.push(await longestStep(type, text));
    }
    assert(Math.min(...shares) < 1 / 3, `${shares} of the time without a break`);
  });
}

/** Runs `work`, and returns the most that `progress` grew by between two turns for others. */
async function largestStep(work: Promise<unknown>, progress: () => number): Promise<number> {
  let isOver = false;
  let largest = 0;
  work.finally(() => isOver = true);
  for (let last = progress(); !isOver; last = progress()) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    largest = Math.max(largest, progress() - last);
  }
  await work;
  return largest;
}

Deno.test("kv() lets others go on while many clients watch many changes", async () => {
  const [clients, changes] = [100, 1000];
  await using store = scoped(memoryStore());
  const app = kv(store);
  let seen = 0;
  const watching = Array.from({ length: clients }, async () => {
    const { body } = await app.request("/", { headers: { Accept: "text/event-stream" } });
    let mine = -1;
    for await (const text of body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const events = text.split("\n\n").length - 1;
      seen += events;
      mine += events;
      if (mine === changes) break;
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 0));
  const values = Object.fromEntries(Array.from({ length: changes }, (_, i) => [`k${i}`, i]));
  const headers = { "Content-Type": "application/json" };
  const post = app.request("/", { method: "POST", headers, body: JSON.stringify(values) });
  const all = Promise.all([post, ...watching]);
  const step = await largestStep(all, () => seen);
  assertEquals(seen, clients * (changes + 1));
  assert(step < clients * changes / 4, `${step} events without a break`);
});

for (const type of ["application/json", "application/x-ndjson"]) {
  Deno.test(`kv() lets others go on while many clients list all keys as ${type}`, async () => {
    await using store = scoped(memoryStore());
    const app = kv(store);
    const names = Array.from({ length: 20_000 }, (_, i) => `k${String(i).padStart(5, "0")}`);
    await store.setAll(new Map(names.map((name) => [name, json(1)])));
    let read = 0;
    const lists = Array.from({ length: 20 }, async () => {
      const { body } = await app.request("/", { headers: { Accept: type } });
      for await (const chunk of body ?? []) read += chunk.length;
    });
    const step = await largestStep(Promise.all(lists), () => read);
    assert(step < read / 4, `${step} of ${read} bytes without a break`);
  });
}
