/** Deno's own traces of both servers, and what they must not contain. */
import { assert, assertMatch } from "@std/assert";
import { eventually, startServer } from "../helpers/programs.ts";
import { serve } from "../helpers/http.ts";

Deno.test("counter.ts and kv.ts are traced by Deno, without session ids", async () => {
  const sent: string[] = [];
  await using collector = serve(async (request) => {
    sent.push(JSON.stringify(await request.json()));
    return Response.json({});
  });
  const env = {
    OTEL_DENO: "true",
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: "200",
  };
  await using kv = await startServer("kv.ts", { env: { ...env, OTEL_SERVICE_NAME: "kv" } });
  const config = { USE_SESSION_STORE: true, KV_URL: kv.url, HASH_SESSION_IDS: true };
  await using counter = await startServer("counter.ts", {
    config,
    env: { ...env, OTEL_SERVICE_NAME: "counter" },
  });
  const first = await fetch(counter.url);
  const cookie = first.headers.get("Set-Cookie")?.split(";")[0] ?? "";
  await first.body?.cancel();
  const second = await fetch(counter.url, { headers: { Cookie: cookie } });
  assertMatch(await second.text(), /Count: 2/);

  // A span for each page, and one for each message to the service, whose first looks at the store.
  const spans = (method: string) => [...sent.join().matchAll(RegExp(`"name":"${method}"`, "g"))];
  await eventually(
    "every span",
    () => Promise.resolve(spans("GET").length === 2 && spans("POST").length === 3),
  );
  assert(sent.join().includes(`${counter.url}/`) && sent.join().includes(`${kv.url}/`));
  const id = cookie.slice("session=".length);
  assertMatch(id, /^[0-9a-f-]{36}$/);
  assert(!sent.join().includes(id));
});
