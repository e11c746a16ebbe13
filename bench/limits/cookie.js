// The least that a page with a signed cookie costs: what a session has to do, by hand, in one handler
// of Hono behind one empty middleware.
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { Hono } from "hono";
import { LRUCache } from "lru-cache";
import { headers, page, SECRET, serve } from "./page.js";

const BASE64URL = { alphabet: "base64url", omitPadding: true };
const utf8 = new TextEncoder();
const key = hmac.create(sha256, utf8.encode(SECRET));
/** The data of the cookies that were made or verified. */
const known = new LRUCache({ max: 1000 });

const encode = (bytes) => bytes.toBase64(BASE64URL);
const sign = (text) => encode(key.clone().update(utf8.encode(text)).digest());

function read(cookie = "") {
  const data = known.get(cookie);
  if (data !== undefined) return data;
  const [, signed = "", payload = "", signature] = /^(([\w-]+)\.[\w-]+)\.([\w-]+)$/.exec(cookie) ??
    [];
  if (signature !== sign(signed)) return { count: 0 };
  return JSON.parse(new TextDecoder().decode(Uint8Array.fromBase64(payload, BASE64URL)));
}

serve(
  new Hono().use((_, next) => next()).get("/", (c) => {
    const { count } = read(/(?:^|; )session=([^;]*)/.exec(c.req.raw.headers.get("Cookie"))?.[1]);
    const data = { count: count + 1 };
    const payload = encode(utf8.encode(JSON.stringify(data)));
    const signed = `${payload}.${Math.floor(Date.now() / 1000).toString(36)}`;
    const cookie = `${signed}.${sign(signed)}`;
    known.set(cookie, data);
    const own = {
      "Set-Cookie": `session=${cookie}; HttpOnly; SameSite=Lax; Path=/`,
      "Cache-Control": "no-store",
      "Vary": "Cookie",
    };
    return new Response(page(data.count), { headers: { ...headers, ...own } });
  }),
);
