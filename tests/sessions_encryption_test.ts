/** Sessions in an encrypted cookie. */
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { assert, assertEquals, assertMatch, assertNotEquals, assertNotMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import { hkdfSync } from "node:crypto";
import { CookieSessionStore } from "../sessions.ts";
import { sessionsConformance } from "./conformance/sessions.ts";
import { testClock } from "./helpers/clock.ts";
import { flaskCookie } from "./helpers/flask_cookie.ts";
import { Browser, KEY, testApp } from "./helpers/session_app.ts";

const encrypting = (options: ConstructorParameters<typeof CookieSessionStore>[1] = {}) =>
  new CookieSessionStore(KEY, { encrypt: true, ...options });

sessionsConformance("CookieSessionStore, encrypting", {
  open: (options) => ({ store: encrypting(options), close: () => Promise.resolve() }),
});

Deno.test("an encrypted cookie shows nothing of its session, and differs each time", async () => {
  const browser = new Browser(testApp({ store: encrypting() }));
  const cookies = new Set<string>();
  for (let i = 0; i < 20; i++) {
    await browser.post("/set", { count: 41_000_000, user: "lovelace" });
    const cookie = browser.cookie ?? "";
    assertMatch(cookie, /^[\w-]+$/);
    // Words so long that no random bytes spell them.
    const bytes = Buffer.from(cookie, "base64url").toString("latin1");
    assertNotMatch(bytes, /"count|41000000|"user|lovelace/);
    cookies.add(cookie);
  }
  assertEquals(cookies.size, 20);
  assertEquals(await browser.get("/read"), { count: 41_000_000, user: "lovelace" });
});

Deno.test("an encrypted cookie is read by nobody when any of its bits was changed", async () => {
  const store = encrypting();
  const { cookie } = await store.create({ count: 1 });
  const bytes = Buffer.from(cookie, "base64url");
  // A store that has not seen the cookie, and so remembers nothing.
  const other = encrypting();
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    assertEquals(await other.load(changed.toString("base64url")), null, `bit ${bit}`);
  }
  for (let length = 0; length < bytes.length; length++) {
    const cut = bytes.subarray(0, length).toString("base64url");
    assertEquals(await other.load(cut), null, `${length} bytes`);
  }
  assertEquals((await other.load(cookie))?.data, { count: 1 });
});

Deno.test("an encrypted cookie has one text only: none that decodes to the same bytes", async () => {
  const { cookie } = await encrypting().create({ a: 1 });
  const other = encrypting();
  const bytes = Buffer.from(cookie, "base64url");
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  for (const last of alphabet) {
    const text = cookie.slice(0, -1) + last;
    const isSame = Buffer.from(text, "base64url").equals(bytes);
    assertEquals(await other.load(text) !== null, text === cookie, `${text} ${isSame}`);
  }
  for (const text of [`${cookie}=`, ` ${cookie}`, cookie.replaceAll("-", "+") + "\n"]) {
    assertEquals(await other.load(text), null, text);
  }
});

Deno.test("an encrypted cookie is XChaCha20-Poly1305 by a key of its own, and the time and name with it", async () => {
  const store = encrypting({ now: () => 1_700_000_000_000 });
  const { cookie } = await store.named("prefs").create({ count: 1 });
  const bytes = new Uint8Array(Buffer.from(cookie, "base64url"));
  const info = "encrypted session cookie, XChaCha20-Poly1305";
  const key = new Uint8Array(hkdfSync("sha256", KEY, "", info, 32));
  const [time, nonce, box] = [bytes.slice(0, 6), bytes.slice(6, 30), bytes.slice(30)];
  assertEquals(Buffer.from(time).readUIntBE(0, 6), 1_700_000_000);
  const data = Buffer.concat([time, Buffer.from("cookie-session.prefs")]);
  const text = xchacha20poly1305(key, nonce, data).decrypt(box);
  assertEquals(JSON.parse(Buffer.from(text).toString()), { count: 1 });
});

Deno.test("an encrypted cookie of one session is not one of another, nor of another key", async () => {
  const { cookie } = await encrypting().create({ count: 1 });
  assertEquals(await encrypting().named("prefs").load(cookie), null);
  const older = new CookieSessionStore("an older secret key", { encrypt: true });
  assertEquals(await older.load(cookie), null);
  const { cookie: old } = await older.create({ count: 2 });
  assertEquals(await encrypting().load(old), null);
  const both = encrypting({ fallbacks: ["an older secret key"] });
  assertEquals((await both.load(old))?.data, { count: 2 });
  const updated = await both.update(old, async () => ({ count: 3 }));
  assertEquals((await encrypting().load(updated?.cookie ?? ""))?.data, { count: 3 });
});

Deno.test("an encrypted cookie ends with its lifetime, also one from the future", async () => {
  const { now, pass } = testClock();
  const store = encrypting({ lifetime: 100, now });
  const { cookie } = await store.create({ count: 1 });
  pass(100);
  assertEquals((await encrypting({ lifetime: 100, now }).load(cookie))?.data, { count: 1 });
  pass(1);
  assertEquals(await store.load(cookie), null);
  const ahead = encrypting({ lifetime: 100, now: () => now() + 61_000 });
  assertEquals(await store.load((await ahead.create({ count: 1 })).cookie), null);
});

Deno.test("signed cookies are read after the switch where the option says so, and become encrypted", async () => {
  const signed = new CookieSessionStore(KEY);
  const { cookie } = await signed.create({ count: 5 });
  assertEquals(await encrypting().load(cookie), null);
  const switching = encrypting({ encrypt: "read-signed" });
  const browser = new Browser(testApp({ store: switching }));
  browser.cookie = cookie;
  assertEquals(await browser.get("/read"), { count: 5 });
  assertEquals(await browser.post("/count"), { count: 6 });
  assertNotMatch(browser.cookie ?? "", /\./);
  assertEquals(await browser.get("/read"), { count: 6 });
  assertEquals((await encrypting().load(browser.cookie ?? ""))?.data, { count: 6 });
  assertEquals(await signed.load(browser.cookie ?? ""), null);
  const flask = encrypting({ encrypt: "read-signed", digest: "sha1" });
  const payload = btoa('{"count":7}').replaceAll("=", "");
  assertEquals((await flask.load(flaskCookie(payload, 5, KEY)))?.data, { count: 7 });
});

Deno.test("a switch to encryption by steps loses no session on any of several servers, nor back", async () => {
  const modes = [false, "read-encrypted", "read-signed", true] as const;
  const stores = modes.map((encrypt) => encrypting({ encrypt }));
  for (const order of [stores, stores.toReversed()]) {
    let stored = await order[0]?.create({ count: 0 });
    let count = 0;
    for (const [i, store] of order.entries()) {
      // While servers take this step one by one, each visitor comes to both kinds.
      for (const either of [store, order[i - 1] ?? store, store]) {
        stored = await either.update(stored?.cookie ?? "", async () => ({ count: ++count })) ??
          undefined;
        assertEquals(stored?.data, { count }, `step ${i}`);
      }
    }
  }
});

Deno.test("an encrypted session too large for a cookie is an error, and a long cookie costs no look", async () => {
  const browser = new Browser(testApp({ store: encrypting() }));
  const text = "x".repeat(2800);
  await browser.post("/set", { text });
  const { cookie } = browser;
  assertEquals((await browser.get("/read") as { text: string }).text, text);
  const response = await browser.request("POST", "/set", {
    body: JSON.stringify({ text: text + text }),
  });
  assertEquals([response.status, response.headers.get("Set-Cookie")], [500, null]);
  assertNotEquals(cookie, null);
  assertEquals(await encrypting().load("A".repeat(100_000)), null);
});

Deno.test("an encrypting store says that its cookies hide the data", () => {
  assertEquals(encrypting().dataInCookie, "encrypted");
  assertEquals(encrypting({ encrypt: "read-signed" }).dataInCookie, "encrypted");
  assertEquals(encrypting({ encrypt: "read-encrypted" }).dataInCookie, true);
  assertEquals(new CookieSessionStore(KEY).dataInCookie, true);
  assert(encrypting().named("prefs").dataInCookie === "encrypted");
});
