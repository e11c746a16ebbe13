/** Conditional requests: RFC 9110, section 13, without dates. */
import { type Entry, RevisionConflict, StoreUnavailable } from "../stores/store.ts";
import { badRequest } from "./errors.ts";
import { jsonTag, type KvContext, textTag } from "./answers.ts";

/** How long a write is tried while other clients are faster, in milliseconds. */
const MAX_TRYING = 5000;

/** Entity tags as they were sent, or `*`. */
type Tags = string[] | "*" | null;

export interface Conditions {
  readonly ifMatch: Tags;
  readonly ifNoneMatch: Tags;
}

export function readConditions(c: KvContext): Conditions | null {
  const ifMatch = readTags(c, "If-Match");
  const ifNoneMatch = readTags(c, "If-None-Match");
  return ifMatch === null && ifNoneMatch === null ? null : { ifMatch, ifNoneMatch };
}

function readTags(c: KvContext, header: string): Tags {
  const value = c.req.header(header);
  if (value === undefined) return null;
  if (value.trim() === "*") return "*";
  // A list may have empty elements, section 5.6.1.
  const tag = /[\s,]*((?:W\/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,[\s,]*|$)/y;
  const tags: string[] = [];
  while (tag.lastIndex < value.length) {
    const match = tag.exec(value);
    if (match === null) {
      throw badRequest(`Cannot read ${header}: expected * or a list of tags in double quotes`);
    }
    tags.push(match[1] ?? "");
  }
  return tags;
}

/** Whether `If-Match` holds. It compares strongly: a weak tag never matches. */
export function matches(tags: Tags, current: string | null): boolean {
  if (tags === null) return true;
  if (current === null) return false;
  return tags === "*" || !current.startsWith("W/") && tags.includes(current);
}

/** Whether `If-None-Match` holds. It compares weakly, RFC 9110, section 8.8.3.2. */
export function noneMatches(tags: Tags, current: string | null): boolean {
  if (tags === null || current === null) return true;
  return tags !== "*" && !tags.some((tag) => opaque(tag) === opaque(current));
}

function opaque(tag: string): string {
  return tag.replace(/^W\//, "");
}

/**
 * Writes if the request's conditions hold for the current entry.
 *
 * @param write Writes only over the entry that it is given: no other write can come between
 * @throws {RevisionConflict} If the conditions do not hold
 * @throws {StoreUnavailable} If other clients were faster for five seconds
 */
export async function writeIf<T>(
  c: KvContext,
  key: string,
  write: (current: Entry | null) => Promise<T>,
): Promise<T> {
  const conditions = readConditions(c);
  let current = await c.get("access").store.get(key);
  for (const end = performance.now() + MAX_TRYING; performance.now() < end;) {
    if (conditions !== null && !holds(conditions, current)) {
      throw new RevisionConflict(key, current);
    }
    try {
      return await write(current);
    } catch (error) {
      // Another client wrote first: check the conditions against its entry.
      if (!(error instanceof RevisionConflict)) throw error;
      current = error.current;
    }
  }
  throw new StoreUnavailable("The key has too many writers", { outcome: "unchanged" });
}

/** A client has the current entry with either of its tags. */
function holds({ ifMatch, ifNoneMatch }: Conditions, entry: Entry | null): boolean {
  const tag = entry && jsonTag(entry);
  return matches(ifMatch, tag) && noneMatches(ifNoneMatch, tag) &&
    noneMatches(ifNoneMatch, entry && textTag(entry));
}
