/** What a server answers that has more requests than it can carry. */
import { assertEquals } from "@std/assert";
import { MAX_WAITING } from "../../server/serve.ts";
import { eventually, startServer } from "../helpers/programs.ts";

Deno.test("counter.ts refuses a page at once while a thousand wait for its store, and recovers", async () => {
  await using kv = await startServer("kv.ts");
  await using counter = await startServer("counter.ts", {
    config: { USE_SESSION_STORE: true, KV_URL: kv.url },
  });
  const status = async (path: string) => {
    const response = await fetch(counter.url + path);
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await status("/"), 200);

  kv.program.signal("SIGSTOP");
  const waiting = new Set<Promise<number>>();
  for (let i = 0; i < MAX_WAITING; i++) {
    const page = status("/").finally(() => waiting.delete(page));
    waiting.add(page);
  }
  let refused: Response | undefined;
  await eventually("a page that is refused", async () => {
    const response = await fetch(counter.url, { signal: AbortSignal.timeout(200) }).catch(() =>
      null
    );
    if (response === null) return false;
    refused = response;
    return true;
  });
  assertEquals(refused?.status, 503);
  assertEquals(refused?.headers.get("Retry-After"), "1");
  assertEquals(await refused?.json(), {
    title: "Service Unavailable",
    status: 503,
    detail: "Too many requests are under way: try again",
    outcome: "unchanged",
  });
  assertEquals(await status("/wrong/health"), 503);
  // The look at the store's health is not refused, but waits for it; and so does a reset.
  const health = status("/health");
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  const reset = fetch(`${counter.url}/reset`, { method: "POST", headers, redirect: "manual" });

  kv.program.signal("SIGCONT");
  assertEquals(await health, 200);
  const { status: done, body } = await reset;
  await body?.cancel();
  assertEquals(done, 303);
  for (const page of [...waiting]) await page;
  assertEquals(await status("/"), 200);
});
