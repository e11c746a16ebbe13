// Hono on Deno with GET and SET of Redis, and no session layer: no checks, and updates get lost.
import { Hono } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { Redis } from "ioredis";
import { headers, page, serve } from "../limits/page.js";

const redis = new Redis(process.env.REDIS_URL, { enableAutoPipelining: true });

serve(
  new Hono().get("/", async (c) => {
    const known = getCookie(c, "session");
    const id = known ?? crypto.randomUUID();
    const { count } = JSON.parse(await redis.get(id) ?? '{"count":0}');
    await redis.set(id, JSON.stringify({ count: count + 1 }), "EX", 3600);
    if (known === undefined) setCookie(c, "session", id, { path: "/", httpOnly: true });
    return c.html(page(count + 1), 200, headers);
  }),
);
