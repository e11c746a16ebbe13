// The least that a page costs: Hono on Deno, all headers of a page with a session, and no session.
import { Hono } from "hono";
import process from "node:process";
import { page, serve } from "./page.js";

const headers = JSON.parse(process.env.ALL_HEADERS);
let count = 0;

serve(new Hono().get("/", () => new Response(page(++count), { headers })));
