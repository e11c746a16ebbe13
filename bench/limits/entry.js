// The least that a read of one entry costs: five headers looked at, one look-up, six headers sent.
// Entries are in memory or, with FILE, in a SQLite file.
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
  "Cache-Control": "no-cache",
  "Vary": "Accept",
};

function inMemory() {
  const entries = new Map();
  for (let i = 0; i < KEYS; i++) entries.set(`key${i}`, ['"value"', i]);
  return (key) => entries.get(key);
}

/** All reads of a turn of the event loop are in one transaction. */
function inFile(file) {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA journal_mode = WAL;
    CREATE TABLE entries (key BLOB PRIMARY KEY, value TEXT, revision INTEGER) WITHOUT ROWID`);
  const insert = database.prepare("INSERT INTO entries VALUES (?, ?, ?)");
  for (let i = 0; i < KEYS; i++) insert.run(Buffer.from(`key${i}`), '"value"', i);
  const [begin, end] = [database.prepare("BEGIN"), database.prepare("ROLLBACK")];
  const select = database.prepare("SELECT value, revision FROM entries WHERE key = ?");
  select.setReturnArrays(true);
  return (key) => {
    if (!database.isTransaction) {
      begin.run();
      setImmediate(() => end.run());
    }
    return select.get(Buffer.from(key));
  };
}

const find = process.env.FILE ? inFile(process.env.FILE) : inMemory();

serve({
  fetch({ url, headers: asked }) {
    if (ASKED.map((name) => asked.get(name)).includes("never")) return new Response();
    const key = decodeURIComponent(url.slice(url.indexOf("/", 8) + 1));
    const [value, revision] = find(key);
    return new Response(`{${JSON.stringify(key)}:${value}}`, {
      headers: { ...headers, "ETag": `"${revision}"` },
    });
  },
});
