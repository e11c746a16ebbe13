// Express with express-session and connect-redis on Node.
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";
import { headers, listening, page, SECRET } from "../limits/page.js";

const client = createClient({ url: process.env.REDIS_URL });
await client.connect();
const store = new RedisStore({ client });

const app = express();
app.use(session({ store, secret: SECRET, resave: false, saveUninitialized: false }));
app.get("/", (request, response) => {
  request.session.count = (request.session.count ?? 0) + 1;
  response.set(headers).send(page(request.session.count));
});
const server = app.listen(0, "127.0.0.1", () => listening(server.address().port));
