/** Serves the shop on port 8000, with its sessions in `shop.db`. */
import { CookieSessionStore, KeyValueSessionStore } from "@counter/sessions";
import { openStore } from "@counter/sessions/stores";
import { shop } from "./shop.tsx";

if (import.meta.main) {
  const visits = new KeyValueSessionStore(await openStore("shop.db"));
  // Without a key of its own, the server forgets the themes when it restarts.
  const key = Deno.env.get("SECRET_KEY") ?? crypto.randomUUID();
  const preferences = new CookieSessionStore(key, { lifetime: 365 * 24 * 60 * 60 });
  Deno.serve({ hostname: "127.0.0.1" }, shop({ visits, preferences }).fetch);
}
