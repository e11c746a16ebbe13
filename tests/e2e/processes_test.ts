/** Sessions over several counter processes and one key-value service, as behind a balancer. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { freePort, startScript } from "../helpers/programs.ts";

const UPDATES = 1000;
const RESETS = 200;
const AT_ONCE = 16;

/** One key-value service in memory, and counters over it. */
async function startCounters(count: number) {
  const port = freePort();
  const service = startScript("kv.ts", [], { env: { PORT: String(port), DBM: ":memory:" } });
  await service.printed(/kv: http/);
  const env = {
    PORT: "0",
    USE_SESSION_STORE: "true",
    KV_URL: `http://127.0.0.1:${port}`,
  };
  const counters = Array.from({ length: count }, () => startScript("counter.ts", [], { env }));
  const urls: string[] = [];
  for (const counter of counters) urls.push((await counter.printed(/counter: (http\S+)/))[1] ?? "");
  return {
    urls,
    async stop() {
      for (const program of [...counters, service]) assertEquals(await program.stop(), 0);
    },
  };
}

/**
 * Loads the page; null where the store did not answer in time, as may be on a machine that is busy
 * with other things. Then the load may have counted or not.
 */
async function load(url = "", cookie = ""): Promise<{ count: number; id: string } | null> {
  const response = await fetch(url, { headers: { Cookie: cookie } });
  const text = await response.text();
  if (response.status === 503) return null;
  assertEquals(response.status, 200, text);
  const id = response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
  return { count: Number(/Count: (\d+)/.exec(text)?.[1]), id };
}

/** Loads the page until the store answers. */
async function loadAgain(url: string, cookie?: string): Promise<{ count: number; id: string }> {
  for (let tries = 0; tries < 20; tries++) {
    const loaded = await load(url, cookie);
    if (loaded !== null) return loaded;
  }
  throw new Error(`${url} has answered 503 twenty times`);
}

/** Runs a call for each number, some at once. */
async function each(total: number, call: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < total) await call(next++);
  }));
}

Deno.test(`${UPDATES} loads of one session over 4 processes count ${UPDATES}`, async () => {
  const { urls, stop } = await startCounters(4);
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
  assertEquals(counts.size, UPDATES - unanswered, "each load has seen a count of its own");
  const { count } = await loadAgain(urls[0] ?? "", id);
  const least = counts.size + 2;
  assert(count >= least && count <= least + unanswered, `${count}, ${unanswered} unanswered`);
  await stop();
});

Deno.test(`of ${RESETS} sessions that are reset during loads none comes back`, async () => {
  const { urls, stop } = await startCounters(2);
  const [here = "", there = ""] = urls;
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
    assertNotEquals(after.id, id, "the id is not taken again");
    assertEquals(after.count, 1);
  });
  await stop();
});
