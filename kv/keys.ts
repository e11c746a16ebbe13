/** Requests for one entry: its key is the path. */
import { HTTPException } from "hono/http-exception";
import { checkTtl } from "../stores/checks.ts";
import { type Entry, RevisionConflict } from "../stores/store.ts";
import {
  type Answer,
  entryHeaders,
  type Handler,
  JSON_HEADERS,
  jsonTag,
  type KvContext,
  memberText,
  textTag,
} from "./answers.ts";
import { expectNoBody, readValue } from "./bodies.ts";
import { matches, noneMatches, readConditions, writeIf } from "./conditions.ts";
import { expectNoQuery, QUERIES, readKey, readQuery } from "./requests.ts";
import { writing } from "./tokens.ts";

/** `GET /key`: the key and its value as JSON; null if there is no entry. */
export const getJson = getting(jsonTag, (key, entry) => {
  return { status: 200, headers: entryHeaders(entry), body: memberText(key, entry?.value) };
});

/** `GET /key` for a shell script: a string without its quotes, and anything else as JSON. */
export const getText = getting(textTag, (key, entry) => {
  if (entry === null) throw notFound(key);
  const type = "text/plain; charset=UTF-8";
  const headers = { ...entryHeaders(entry), "Content-Type": type, "ETag": textTag(entry) };
  const body = entry.value.startsWith('"') ? JSON.parse(entry.value) : entry.value;
  return { status: 200, headers, body };
});

function getting(
  tagOf: (entry: Entry) => string,
  represent: (key: string, entry: Entry | null) => Answer,
): Handler {
  return async function get(c) {
    expectNoQuery(c);
    const key = readKey(c);
    const entry = await c.get("access").store.get(key);
    const conditions = readConditions(c);
    if (conditions !== null) {
      const tag = entry && tagOf(entry);
      if (!matches(conditions.ifMatch, tag)) throw new RevisionConflict(key, entry);
      if (!noneMatches(conditions.ifNoneMatch, tag)) {
        const { "Content-Type": _, ...headers } = represent(key, entry).headers;
        return { status: 304, headers, body: null };
      }
    }
    return represent(key, entry);
  };
}

/** `PUT /key`: sets the value. */
export async function put(c: KvContext): Promise<Answer> {
  const store = writing(c);
  const { ttl } = readQuery(c, QUERIES.write);
  const key = readKey(c);
  const value = await readValue(c);
  const body = memberText(key, value);
  c.get("held").send(body);
  const set = (ifRevision?: string | null) => store.set(key, value, { ttl, ifRevision });
  // Without a condition, the current entry does not matter.
  const written = readConditions(c) === null
    ? await set()
    : await writeIf(c, key, (current) => set(current?.revision ?? null));
  return { status: written.created ? 201 : 200, headers: entryHeaders(written), body };
}

/** `PATCH /key?ttl=`: keeps the value for another time. */
export async function extend(c: KvContext): Promise<Answer> {
  const store = writing(c);
  const { ttl } = readQuery(c, QUERIES.extend);
  checkTtl(ttl);
  const key = readKey(c);
  await expectNoBody(c);
  const written = await writeIf(c, key, async (current) => {
    if (current === null) throw notFound(key);
    c.get("held").send(memberText(key, current.value));
    return await store.set(key, current.value, { ttl, ifRevision: current.revision });
  });
  return { status: 200, headers: entryHeaders(written), body: memberText(key, written.value) };
}

/** `DELETE /key`: removes the entry, and answers with its value. */
export async function remove(c: KvContext): Promise<Answer> {
  const store = writing(c);
  expectNoQuery(c);
  const key = readKey(c);
  // Read the entry first: without room for its value, it must not be removed.
  const body = await writeIf(c, key, async (current) => {
    const text = memberText(key, current?.value);
    c.get("held").send(text);
    if (current !== null) await store.delete(key, { ifRevision: current.revision });
    return text;
  });
  return { status: 200, headers: JSON_HEADERS, body };
}

function notFound(key: string): HTTPException {
  return new HTTPException(404, { message: `There is no entry "${key}"` });
}
