/** What browsers see while the key-value service is killed, and comes back after a minute. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort, startServer, temporaryDirectory } from "../helpers/programs.ts";

const CLIENTS = 4;
/** How long the service is gone, in milliseconds. */
const ABSENCE = 60_000;
/** How long each client waits between two loads, in milliseconds. */
const PAUSE = 100;
/** A load that takes longer than this hangs, in milliseconds. A store's deadline is 10 seconds. */
const HANG = 60_000;

/** A client with one session, and what it knows about it. */
interface Client {
  cookie: string;
  /** The last count it saw. */
  acknowledged: number;
  /** Failed loads since then that may have counted. */
  unknown: number;
  /** Pages before the outage, 503s during it, pages after it. */
  got: { served: number; refused: number; servedAgain: number };
}

Deno.test("counter.ts answers 503 while the service is gone for a minute, and loses no session", async () => {
  await using directory = await temporaryDirectory();
  const port = freePort();
  const serve = () => startServer("kv.ts", { port, env: { DBM: join(directory.path, "kv.db") } });
  await using first = await serve();
  const config = { USE_SESSION_STORE: true, KV_URL: first.url };
  await using counter = await startServer("counter.ts", { config });
  const clients: Client[] = Array.from({ length: CLIENTS }, () => ({
    cookie: "",
    acknowledged: 0,
    unknown: 0,
    got: { served: 0, refused: 0, servedAgain: 0 },
  }));
  let service: Service = "there";
  let stop = false;
  const all = (got: (client: Client) => boolean) => clients.every(got);
  const loads = Promise.all([
    ...clients.map(async (client) => {
      while (!stop) {
        await load(counter.url, client, () => service);
        await delay(PAUSE);
      }
    }),
    visitWithoutCookie(counter.url, () => stop, () => service),
  ]);
  const until = async (done: () => boolean) => {
    while (!done()) await Promise.race([delay(PAUSE), loads]);
  };

  await until(() => all(({ got }) => got.served >= 10));
  await first.program.stop("SIGKILL");
  service = "gone";
  await Promise.race([delay(ABSENCE), loads]);
  await until(() => all(({ got }) => got.refused >= 10));
  service = "back";
  await using _second = await serve();
  await until(() => all(({ got }) => got.servedAgain >= 10));
  stop = true;
  await loads;
  for (const { cookie } of clients) {
    const [, id = ""] = cookie.split("=");
    assert(id !== "" && !counter.program.output.includes(id), "no session id is logged");
  }
});

type Service = "there" | "gone" | "back";

/** Loads the page once and checks it against what the client knows. */
async function load(url: string, client: Client, service: () => Service): Promise<void> {
  const before = service();
  const signal = AbortSignal.timeout(HANG);
  const response = await fetch(url, { headers: { Cookie: client.cookie }, signal });
  const page = await response.text();
  const wasGone = before === "gone" && service() === "gone";
  if (response.status === 503) {
    checkRefusal(response);
    if (wasGone) client.got.refused++;
    else client.unknown++;
    return;
  }
  assertEquals(response.status, 200, page);
  assert(!wasGone, "no page counts without the service");
  const cookie = response.headers.get("Set-Cookie")?.split(";")[0] ?? "";
  if (client.cookie !== "") assertEquals(cookie, client.cookie, "the session stays the same");
  const count = Number(/Count: (\d+)/.exec(page)?.[1]);
  const next = client.acknowledged + 1;
  assert(count >= next && count <= next + client.unknown, `${count}, expected ${next}`);
  Object.assign(client, { cookie, acknowledged: count, unknown: 0 });
  if (before === "back") client.got.servedAgain++;
  else client.got.served++;
}

/** Loads the page without a cookie: while the service is gone, no session starts. */
async function visitWithoutCookie(
  url: string,
  stop: () => boolean,
  service: () => Service,
): Promise<void> {
  while (!stop()) {
    await delay(10 * PAUSE);
    const before = service();
    const response = await fetch(url, { signal: AbortSignal.timeout(HANG) });
    await response.body?.cancel();
    if (before === "gone" && service() === "gone") assertEquals(response.status, 503);
    if (response.status === 503) checkRefusal(response);
  }
}

function checkRefusal({ headers }: Response): void {
  assertEquals(headers.get("Retry-After"), "1");
  assertEquals(headers.get("Set-Cookie"), null, "the cookie stays as it is");
}
