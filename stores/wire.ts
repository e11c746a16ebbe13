/**
 * The protocol between `kv.ts` and its client, `http/`: arrays of operations and their answers,
 * changes, pages of keys and errors. The service copies values as JSON text; the client parses the
 * answers, and keeps every digit of a number.
 */
import { isKey } from "./checks.ts";
import { json, parseJson } from "./json/text.ts";
import type { Entry, JsonText, Page, RevisionOption, TtlOption, Written } from "./store.ts";

/** The most operations in one array. */
export const MAX_OPERATIONS = 1000;
/** The status of an operation that was left out: send it again, with fewer others. */
export const LEFT_OUT = 429;
/** The longest body of a request, in bytes. */
export const MAX_BODY_BYTES = 16 * 1024 * 1024;

/** How much of an error's detail is kept, in characters: each failed call is logged with it. */
const MAX_DETAIL = 1000;
/** The longest revision, in characters. Ours have 36 at most. */
const MAX_REVISION = 200;
/** The last time that a `Date` can hold, in milliseconds since 1970 (ECMAScript, section 21.4.1.1). */
const MAX_TIME = 8.64e15;

/** One element of an array: a call of a store. */
export type Operation =
  | { op: "get"; key: string }
  | { op: "put"; key: string; value: unknown } & TtlOption & RevisionOption
  | { op: "delete"; key: string } & RevisionOption;

/** An operation that was not done, or the members that a client reads of an error response (RFC 9457). */
export interface Failure {
  readonly detail: string;
  /** What became of a write; absent if the status says it. */
  readonly outcome?: "unchanged" | "unknown" | undefined;
}

/** The answer to one operation, as the client sees it. */
export type Answer =
  | { readonly status: 200 | 412; readonly entry: Entry | null }
  | { readonly status: 200 | 201; readonly written: Pick<Written, "revision" | "expires"> }
  | { readonly status: number; readonly failure: Failure };

/** The other side is not a key-value service: its answer has another form. */
export class UnexpectedAnswer extends Error {
  override readonly name = "UnexpectedAnswer";
}

// ---- What the client sends -----------------------------------------------------------------

/** Returns the JSON text of a `put`, whose value is JSON text already. */
export function putText(
  key: string,
  value: JsonText,
  { ttl, ifRevision }: TtlOption & RevisionOption,
): string {
  const seconds = ttl === undefined ? "" : `,"ttl":${ttl}`;
  const condition = ifRevision === undefined
    ? ""
    : `,"ifRevision":${JSON.stringify(readable(ifRevision))}`;
  return `{"op":"put","key":${JSON.stringify(key)}${seconds}${condition},"value":${value}}`;
}

/** Cuts off a revision that a service would not read: no entry has one as long. */
export function readable(ifRevision: RevisionOption["ifRevision"]): typeof ifRevision {
  return typeof ifRevision === "string" ? ifRevision.slice(0, 2 * MAX_REVISION) : ifRevision;
}

// ---- What the service answers --------------------------------------------------------------

/** Answers a `get` or a `delete` (200), or a conditional write whose condition does not hold (412). */
export function foundText(status: 200 | 412, entry: Entry | null): string {
  return `{"status":${status},${contentsText(entry)}}`;
}

/** Answers a `put`. The client has the value already. */
export function writtenText({ created, revision, expires }: Written): string {
  return JSON.stringify({ status: created ? 201 : 200, revision, expires });
}

/** Answers an operation that was not done. */
export function failureText(status: number, { detail, outcome }: Failure): string {
  return JSON.stringify({ status, detail, outcome });
}

/** Returns the data of the event that reports a change. */
export function changeText(key: string, entry: Entry | null): string {
  return `{"key":${JSON.stringify(key)},${contentsText(entry)}}`;
}

/** Returns the members of an entry; without an entry, the revision is null. */
function contentsText(entry: Entry | null): string {
  const { value = "null", revision = null, expires = null } = entry ?? {};
  return `"value":${value},"revision":${JSON.stringify(revision)},"expires":${expires}`;
}

// ---- How the client reads it ---------------------------------------------------------------

/** @throws {UnexpectedAnswer} If the text is not the answers to the operations that were sent */
export function readAnswers(
  text: string,
  operations: readonly Pick<Operation, "op" | "key">[],
): Answer[] {
  const answers = parse(text);
  if (!Array.isArray(answers)) throw otherJson();
  if (answers.length !== operations.length) throw new UnexpectedAnswer(`${answers.length} answers`);
  return operations.map(({ op, key }, i) => readAnswer(answers[i], op, key));
}

function readAnswer(answer: unknown, op: Operation["op"], key: string): Answer {
  const { status, detail, revision, expires } = Object(answer);
  if (typeof status === "number" && status >= 400 && typeof detail === "string") {
    return { status, failure: failureOf(answer) };
  }
  if (op !== "get" && status === 412 || op !== "put" && status === 200) {
    return { status, entry: entryOf(key, answer) };
  }
  const isWritten = op === "put" && (status === 200 || status === 201);
  if (!isWritten || !isRevision(revision) || !isExpiry(expires)) throw otherJson();
  return { status, written: { revision, expires } };
}

/** What a proxy answers that got no answer from the service (RFC 9110, section 15.6). */
const OF_A_PROXY = [502, 503, 504];

/** @throws {UnexpectedAnswer} If neither the service nor a proxy in front answers so */
export function readFailure(status: number, text: string): Failure {
  try {
    const problem = parse(text);
    if (typeof Object(problem).detail === "string") return failureOf(problem);
    throw otherJson();
  } catch (cause) {
    if (OF_A_PROXY.includes(status)) return { detail: "a proxy got no answer from it" };
    throw new UnexpectedAnswer(`status ${status}`, { cause });
  }
}

function failureOf(problem: unknown): Failure {
  const { detail, outcome } = Object(problem);
  const isKnown = outcome === "unchanged" || outcome === "unknown";
  return { detail: detail.slice(0, MAX_DETAIL), outcome: isKnown ? outcome : undefined };
}

/** @throws {UnexpectedAnswer} If the text is not a page of keys */
export function readPage(text: string): Page {
  const { keys, next } = Object(parse(text));
  const isPage = Array.isArray(keys) && keys.every(isKey);
  if (!isPage || next !== null && typeof next !== "string") throw otherJson();
  return { keys, next };
}

/** @throws {UnexpectedAnswer} If the text does not echo an object with these keys */
export function readEcho(text: string, keys: Iterable<string>): void {
  const echo = Object(parse(text));
  for (const key of keys) if (!Object.hasOwn(echo, key)) throw otherJson();
}

/** @throws {UnexpectedAnswer} If the text is not the data of an event that reports a change */
export function readChange(text: string): { key: string; entry: Entry | null } {
  const change = parse(text);
  const { key } = Object(change);
  if (!isKey(key)) throw otherJson();
  return { key, entry: entryOf(key, change) };
}

function entryOf(key: string, contents: unknown): Entry | null {
  const { value, revision, expires } = Object(contents);
  if (revision === null) return null;
  if (!isRevision(revision) || !isExpiry(expires)) throw otherJson();
  try {
    return { key, value: json(value), revision, expires };
  } catch (cause) {
    throw new UnexpectedAnswer("a value that no store keeps", { cause });
  }
}

/** Whether an entity tag can carry it (RFC 9110, section 8.8.3). */
function isRevision(revision: unknown): revision is string {
  return typeof revision === "string" && revision.length <= MAX_REVISION &&
    /^[\x21\x23-\x7e]+$/.test(revision);
}

/** Whether it is a time that a `Date` can hold, or null. */
function isExpiry(expires: unknown): expires is number | null {
  return expires === null || typeof expires === "number" && Math.abs(expires) <= MAX_TIME;
}

function otherJson(): UnexpectedAnswer {
  return new UnexpectedAnswer("other JSON");
}

function parse(text: string): unknown {
  try {
    // Only a value may have digits that JavaScript would lose.
    return text.includes('"value":') ? parseJson(text) : JSON.parse(text);
  } catch (cause) {
    throw new UnexpectedAnswer("no JSON", { cause });
  }
}
