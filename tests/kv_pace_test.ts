/** Long work in short steps. */
import { assert, assertEquals } from "@std/assert";
import { kv } from "../kv.ts";
import { pause } from "../kv/pace.ts";
import { memoryStore } from "../stores/memory.ts";

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
  await pause();
  const begun = performance.now();
  for (let i = 0; i < 100; i++) await pause();
  // A timer for each would take 100 ms at least.
  assert(performance.now() - begun < 90);
});

/** The longest time without a turn for others during a request, as a share of the request's time. */
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
  const begun = performance.now();
  let isOver = false;
  const send = async () => {
    const response = await kv(store).request("/", { method: "POST", headers, body });
    isOver = true;
    assertEquals(response.status, 200);
    await response.body?.cancel();
  };
  const request = send();
  let longest = 0;
  for (let last = begun; !isOver; last = performance.now()) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    longest = Math.max(longest, performance.now() - last);
  }
  const share = longest / (performance.now() - begun);
  await request;
  await store.close();
  return share;
}

const FORM = Array.from({ length: 9999 }, (_, i) => `k${i}=${"%C3%A9".repeat(260)}`).join("&");
const LINES = '{"a":1}\n'.repeat(500_000);

for (const [type, text] of [["x-www-form-urlencoded", FORM], ["x-ndjson", LINES]] as const) {
  Deno.test(`kv() lets others go on while it reads a large body of type ${type}`, async () => {
    const shares: number[] = [];
    // The machine itself may stall once.
    while (shares.length < 3 && !(Math.min(...shares) < 1 / 3)) {
      shares.push(await longestStep(type, text));
    }
    assert(Math.min(...shares) < 1 / 3, `${shares} of the time without a break`);
  });
}
