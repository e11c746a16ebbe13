/** Sessions shared by several counter processes and one service, as behind a load balancer. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { startProcesses } from "../helpers/programs.ts";

const UPDATES = 1000;
const RESETS = 200;
const AT_ONCE = 16;
const IN_STORE = { USE_SESSION_STORE: "true" };

/**
 * Loads the page. Returns null on a 503, which a busy machine can cause; such a load may have
 * counted or not.
 */
async function load(url = "", cookie = ""): Promise<{ count: number; id: string } | null> {
  const response = await fetch(url, { headers: { Cookie: cookie } });
  const text = await response.text();
  if (response.status === 503) return null;
  assertEquals(response.status, 200, text);
  const id = response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
  return { count: Number(/Count: (\d+)/.exec(text)?.[1]), id };
}

/** Loads the page until it is not a 503. */
async function loadAgain(url: string, cookie?: string): Promise<{ count: number; id: string }> {
  for (let tries = 0; tries < 20; tries++) {
    const loaded = await load(url, cookie);
    if (loaded !== null) return loaded;
  }
  throw new Error(`${url} answered 503 twenty times`);
}

/** Calls `call` with each number below `total`, several at once. */
async function each(total: number, call: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < total) await call(next++);
  }));
}

Deno.test(`counter.ts in 4 processes counts ${UPDATES} loads of one session`, async () => {
  await using counters = await startProcesses("counter.ts", 4, IN_STORE);
  const { urls } = counters;
  const { id } = await loadAgain(urls[0] ?? "");
  const counts = new Set<number>();
  let unanswered = 0;
  await each(UPDATES, async (i) => {
    const loaded = await load(urls[i % urls.length], id);
    if (loaded === null) unanswered++;
    else {
      assertEquals(loaded.id, id);
      counts.add(loaded.count);
    }
  });
  assertEquals(counts.size, UPDATES - unanswered, "no two loads saw the same count");
  const { count } = await loadAgain(urls[0] ?? "", id);
  const least = counts.size + 2;
  assert(count >= least && count <= least + unanswered, `${count}, ${unanswered} unanswered`);
});

Deno.test(`counter.ts in 2 processes keeps ${RESETS} sessions ended that were reset during loads`, async () => {
  await using counters = await startProcesses("counter.ts", 2, IN_STORE);
  const [here = "", there = ""] = counters.urls;
  await each(RESETS, async () => {
    const { id } = await loadAgain(here);
    const loads = [here, there, here, there].map((url) => load(url, id));
    const reset = await fetch(`${there}/reset`, {
      method: "POST",
      headers: { Cookie: id },
      redirect: "manual",
    });
    await reset.body?.cancel();
    await Promise.all(loads);
    if (reset.status === 503) return;
    assertEquals(reset.status, 303);
    const after = await loadAgain(here, id);
    assertNotEquals(after.id, id, "the old id is not accepted");
    assertEquals(after.count, 1);
  });
});
