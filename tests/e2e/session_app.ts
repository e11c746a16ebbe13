/**
 * The app of the session conformance suite as a program, over the store at `KV_URL`, so that several
 * processes can share sessions. With `HASH_SESSION_IDS=true`, the store holds hashes of the ids.
 */
import { listen } from "../../server/listen.ts";
import { run } from "../../server/program.ts";
import { KeyValueSessionStore } from "../../sessions.ts";
import { openStore } from "../../stores/open.ts";
import { testApp } from "../helpers/session_app.ts";

if (import.meta.main) {
  await run("session_app", async (program) => {
    const store = await openStore(Deno.env.get("KV_URL") ?? "");
    const hashIds = Deno.env.get("HASH_SESSION_IDS") === "true";
    const app = testApp({ store: new KeyValueSessionStore(store, { hashIds }) });
    await listen(program, app.fetch, { hostname: "127.0.0.1", port: 0 });
    await store.close();
  });
}
