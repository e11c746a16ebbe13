/**
 * Conditional requests: RFC 9110, section 13, without its dates.
 *
 * @module
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { type Entry, RevisionConflict, type Store } from "../stores/store.ts";

/** An entity tag, or `*`. */
type Tags = { weak: boolean; revision: string }[] | "*" | undefined;
interface Conditions {
  ifMatch: Tags;
  ifNoneMatch: Tags;
}

export function readConditions(c: Context): Conditions | null {
  const ifMatch = c.req.header("If-Match");
  const ifNoneMatch = c.req.header("If-None-Match");
  if (ifMatch === undefined && ifNoneMatch === undefined) return null;
  return {
    ifMatch: readTags("If-Match", ifMatch),
    ifNoneMatch: readTags("If-None-Match", ifNoneMatch),
  };
}

function readTags(header: string, value: string | undefined): Tags {
  if (value === undefined) return undefined;
  if (value.trim() === "*") return "*";
  // A list may have empty elements, section 5.6.1.
  const tag = /[\s,]*(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,[\s,]*|$)/y;
  const tags: { weak: boolean; revision: string }[] = [];
  while (tag.lastIndex < value.length) {
    const match = tag.exec(value);
    if (match === null) {
      throw new HTTPException(400, {
        message: `Cannot read ${header}: expected * or a list of tags in double quotes`,
      });
    }
    tags.push({ weak: match[1] !== undefined, revision: match[2] ?? "" });
  }
  return tags;
}

/** `If-Match` compares strongly: a weak tag never matches. */
export function matches(tags: Tags, entry: Entry | null): boolean {
  if (tags === undefined) return true;
  if (entry === null) return false;
  return tags === "*" || tags.some((tag) => !tag.weak && tag.revision === entry.revision);
}

/** `If-None-Match` compares weakly. */
export function noneMatches(tags: Tags, entry: Entry | null): boolean {
  if (tags === undefined || entry === null) return true;
  return tags !== "*" && !tags.some((tag) => tag.revision === entry.revision);
}

/**
 * Does a write if the request's conditions hold. They are checked on an entry that is then named to
 * the store as the one to write over, so that no other write can come between.
 *
 * @throws {RevisionConflict} If they do not hold
 */
export async function writeIf<T>(
  c: Context,
  store: Store,
  key: string,
  write: (ifRevision?: string | null) => Promise<T>,
): Promise<T> {
  const conditions = readConditions(c);
  if (conditions === null) return await write();
  let current = await store.get(key);
  for (;;) {
    const holds = matches(conditions.ifMatch, current) &&
      noneMatches(conditions.ifNoneMatch, current);
    if (!holds) throw new RevisionConflict(key, current);
    try {
      return await write(current?.revision ?? null);
    } catch (error) {
      // Another write came between, and so some client has got on.
      if (!(error instanceof RevisionConflict)) throw error;
      current = error.current;
    }
  }
}
