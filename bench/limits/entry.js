// The least that a read or a write of one entry costs: five headers looked at, one look-up or one row
// of a synced transaction, and a few headers sent. Entries are in memory or, with FILE, in a SQLite
// file.
import { Buffer } from "node:buffer";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { serve } from "./page.js";

const KEYS = 1000;
const ASKED = ["Host", "Origin", "Sec-Fetch-Site", "Accept", "If-None-Match"];
const headers = {
  "Content-Type": "application/json",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
};
const entryHeaders = { ...headers, "Cache-Control": "no-cache", "Vary": "Accept" };
const writtenHeaders = { ...headers, "Cache-Control": "no-store" };

function inMemory() {
  const entries = new Map();
  for (let i = 0; i < KEYS; i++) entries.set(`key${i}`, ['"value"', i]);
  return { find: (key) => entries.get(key) };
}

/** All reads of a turn of the event loop are in one transaction, and so are all writes. */
function inFile(file) {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE entries (key BLOB PRIMARY KEY, value TEXT, revision INTEGER) WITHOUT ROWID`);
  const upsert = database.prepare("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)");
  for (let i = 0; i < KEYS; i++) upsert.run(Buffer.from(`key${i}`), '"value"', i);
  const [begin, commit, end] = ["BEGIN", "COMMIT", "ROLLBACK"].map((sql) => database.prepare(sql));
  const select = database.prepare("SELECT value, revision FROM entries WHERE key = ?");
  select.setReturnArrays(true);
  let revision = KEYS;
  let waiting = [];
  function writeAll() {
    const writing = waiting;
    waiting = [];
    begin.run();
    for (const { key, value } of writing) upsert.run(Buffer.from(key), value, ++revision);
    commit.run();
    for (const { done } of writing) done();
  }
  return {
    find(key) {
      if (!database.isTransaction) {
        begin.run();
        setImmediate(() => end.run());
      }
      return select.get(Buffer.from(key));
    },
    write: (key, value) =>
      new Promise((done) => {
        if (waiting.push({ key, value, done }) === 1) setImmediate(writeAll);
      }),
  };
}

const { find, write } = process.env.FILE ? inFile(process.env.FILE) : inMemory();

async function post(request) {
  const members = Object.entries(JSON.parse(await request.text()));
  for (const [key, value] of members) await write(key, JSON.stringify(value));
  return new Response(JSON.stringify(Object.fromEntries(members)), { headers: writtenHeaders });
}

serve({
  fetch(request) {
    const { url, method, headers: asked } = request;
    if (ASKED.map((name) => asked.get(name)).includes("never")) return new Response();
    if (method === "POST") return post(request);
    const key = decodeURIComponent(url.slice(url.indexOf("/", 8) + 1));
    const [value, revision] = find(key);
    return new Response(`{${JSON.stringify(key)}:${value}}`, {
      headers: { ...entryHeaders, "ETag": `"${revision}"` },
    });
  },
});
