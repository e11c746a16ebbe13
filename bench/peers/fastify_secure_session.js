// Fastify with @fastify/secure-session on Node: an encrypted cookie.
import secureSession from "@fastify/secure-session";
import Fastify from "fastify";
import { headers, listening, page } from "../limits/page.js";

const app = Fastify();
await app.register(secureSession, {
  key: Buffer.alloc(32, "secret"),
  cookie: { path: "/", httpOnly: true, sameSite: "lax" },
});
app.get("/", (request, reply) => {
  const count = (request.session.get("count") ?? 0) + 1;
  request.session.set("count", count);
  reply.headers(headers).send(page(count));
});
await app.listen({ host: "127.0.0.1", port: 0 });
listening(app.server.address().port);
