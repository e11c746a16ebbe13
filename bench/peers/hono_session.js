// @hono/session on Deno: an encrypted cookie.
import { useSession } from "@hono/session";
import { Hono } from "hono";
import { headers, page, serve } from "../limits/page.js";

serve(
  new Hono()
    .use(useSession({ secret: "0123456789abcdef0123456789abcdef" }))
    .get("/", async (c) => {
      const data = await c.var.session.get();
      const count = (data?.count ?? 0) + 1;
      await c.var.session.update({ count });
      return c.html(page(count), 200, headers);
    }),
);
