// Express with cookie-session on Node: a signed cookie.
import cookieSession from "cookie-session";
import express from "express";
import { headers, listening, page, SECRET } from "../limits/page.js";

const app = express();
app.use(cookieSession({ secret: SECRET, sameSite: "lax" }));
app.get("/", (request, response) => {
  request.session.count = (request.session.count ?? 0) + 1;
  response.set(headers).send(page(request.session.count));
});
const server = app.listen(0, "127.0.0.1", () => listening(server.address().port));
