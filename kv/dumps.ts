/** Dumps of the service as newline-delimited JSON, one entry a line, and restoring them. */
import { GUARD_HEADERS } from "../server/guards.ts";
import { entries, LIMITS, restore } from "../stores/dumps.ts";
import { backupLine, line } from "../stores/lines.ts";
import type { Store } from "../stores/store.ts";
import { type Answer, jsonAnswer, type KvContext } from "./answers.ts";
import { expectPlain, readChunks } from "./bodies.ts";
import { pause } from "./pace.ts";
import { QUERIES, readQuery } from "./requests.ts";

export const NDJSON = "application/x-ndjson";
/** How many entries are fetched before others have a turn. */
const ENTRIES_A_STEP = 100;
/** About how many characters of a dump are sent at once. */
const CHUNK_LENGTH = 64 * 1024;

const HEADERS = { ...GUARD_HEADERS, "Content-Type": NDJSON, "Vary": "Accept" };

/** `GET /` for lines: every entry under a prefix, `{key: value}` a line. */
export function dump(c: KvContext): Answer {
  return lines(c, readQuery(c, QUERIES.prefix).prefix, line);
}

/** `GET /?backup`: every entry under a prefix and its lifetime, `{key, value, expires}` a line. */
export function backup(c: KvContext): Answer {
  return lines(c, readQuery(c, QUERIES.backup).prefix, backupLine);
}

function lines(c: KvContext, prefix: string, lineOf: typeof line): Answer {
  return { status: 200, headers: HEADERS, body: chunks(c.get("access").store, prefix, lineOf) };
}

/** The lines of a dump, many at a time. The response begins before the first pause. */
async function* chunks(store: Store, prefix: string, lineOf: typeof line): AsyncGenerator<string> {
  let chunk = "";
  let count = 0;
  for await (const entry of entries(store, prefix)) {
    chunk += `${lineOf(entry)}\n`;
    count++;
    if (chunk.length >= CHUNK_LENGTH || count === ENTRIES_A_STEP) {
      yield chunk;
      chunk = "";
    }
    if (count % ENTRIES_A_STEP === 0) await pause();
  }
  yield chunk;
}

/** `POST /` lines of a dump, which are written as they arrive. */
export async function restoreBody(c: KvContext, store: Store, ttl?: number): Promise<Answer> {
  expectPlain(c);
  c.get("held").keep(LIMITS.lineBytes + LIMITS.batchBytes);
  const { restored, expired } = await restore(store, readChunks(c), { ttl });
  return jsonAnswer(expired > 0 ? { restored, expired } : { restored });
}
