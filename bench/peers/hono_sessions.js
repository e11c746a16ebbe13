// hono-sessions on Deno, with the store that STORE names: memory or cookie.
import { Hono } from "hono";
import { CookieStore, MemoryStore, sessionMiddleware } from "hono-sessions";
import { headers, page, SECRET, serve } from "../limits/page.js";

const store = process.env.STORE === "cookie"
  ? { store: new CookieStore(), encryptionKey: SECRET }
  : { store: new MemoryStore() };
const cookieOptions = { sameSite: "Lax", path: "/", httpOnly: true };

serve(
  new Hono()
    .use(sessionMiddleware({ ...store, expireAfterSeconds: 3600, cookieOptions }))
    .get("/", (c) => {
      const session = c.get("session");
      const count = (session.get("count") ?? 0) + 1;
      session.set("count", count);
      return c.html(page(count), 200, headers);
    }),
);
