/** Conditional requests: RFC 9110, section 13, without dates. */
import { type Entry, RevisionConflict, StoreUnavailable } from "../stores/store.ts";
import { badRequest } from "./errors.ts";
import type { KvContext } from "./answers.ts";

/** How long a write is tried while other clients are faster, in milliseconds. */
const MAX_TRYING = 5000;

/** A list of entity tags, or `*`. */
type Tags = { weak: boolean; revision: string }[] | "*" | null;

/** What the headers of a request require of the current entry. */
export interface Conditions {
  readonly ifMatch: Tags;
  readonly ifNoneMatch: Tags;
}

/** Returns the conditions of a request, or null. */
export function readConditions(c: KvContext): Conditions | null {
  const ifMatch = c.req.header("If-Match");
  const ifNoneMatch = c.req.header("If-None-Match");
  if (ifMatch === undefined && ifNoneMatch === undefined) return null;
  return {
    ifMatch: readTags("If-Match", ifMatch),
    ifNoneMatch: readTags("If-None-Match", ifNoneMatch),
  };
}

function readTags(header: string, value: string | undefined): Tags {
  if (value === undefined) return null;
  if (value.trim() === "*") return "*";
  // A list may have empty elements, section 5.6.1.
  const tag = /[\s,]*(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,[\s,]*|$)/y;
  const tags: { weak: boolean; revision: string }[] = [];
  while (tag.lastIndex < value.length) {
    const match = tag.exec(value);
    if (match === null) {
      throw badRequest(`Cannot read ${header}: expected * or a list of tags in double quotes`);
    }
    tags.push({ weak: match[1] !== undefined, revision: match[2] ?? "" });
  }
  return tags;
}

/** Whether `If-Match` holds. It compares strongly: a weak tag never matches. */
export function matches(tags: Tags, entry: Entry | null): boolean {
  if (tags === null) return true;
  if (entry === null) return false;
  return tags === "*" || tags.some((tag) => !tag.weak && tag.revision === entry.revision);
}

/** Whether `If-None-Match` holds. It compares weakly. */
export function noneMatches(tags: Tags, entry: Entry | null): boolean {
  if (tags === null || entry === null) return true;
  return tags !== "*" && !tags.some((tag) => tag.revision === entry.revision);
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

function holds({ ifMatch, ifNoneMatch }: Conditions, entry: Entry | null): boolean {
  return matches(ifMatch, entry) && noneMatches(ifNoneMatch, entry);
}
