/** What a server answers that has more requests than it can carry. */
import { assert, assertEquals } from "@std/assert";
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
  const checks = Array.from({ length: MAX_WAITING }, () => status("/health"));
  const pages = Array.from({ length: MAX_WAITING }, () => status("/"));
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
  // A reset is not refused, but waits for the store, as the health checks do.
  const headers = { Cookie: `session=${crypto.randomUUID()}` };
  const reset = fetch(`${counter.url}/reset`, { method: "POST", headers, redirect: "manual" });

  kv.program.signal("SIGCONT");
  assertEquals(new Set(await Promise.all(checks)), new Set([200]));
  const { status: done, body } = await reset;
  await body?.cancel();
  assertEquals(done, 303);
  const served = (await Promise.all(pages)).filter((status) => status === 200).length;
  assert(served > MAX_WAITING / 2, `the health checks have left room for ${served} pages`);
  assertEquals(await status("/"), 200);
});
