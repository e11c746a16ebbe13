/**
 * A session as JSON text: the data, with notes beside it. A Flask app that shares the session keeps
 * the notes, as it keeps its own `_permanent`.
 */
import { parseJson } from "../stores/json/text.ts";
import { SessionDataInvalid } from "./errors.ts";

/** A session, and when it was created. */
export interface SessionRecord {
  readonly data: unknown;
  /** Seconds since 1970. */
  readonly created: number;
  /** Whether `created` was stored; otherwise it is the time of reading. */
  readonly isDated: boolean;
  /** The key that a rotation under way, or one that was cut off, has copied the session to. */
  readonly movingTo?: string | undefined;
  /** The JSON text that was stored: it has the digits that JavaScript rounds. */
  readonly text?: string;
}

/** When it was created; the key that a rotation moves it to; whether its cookie is permanent. */
type Note = "_created" | "_moving" | "_permanent";
/** How far the clock of another machine may be ahead, in seconds. */
export const CLOCK_TOLERANCE = 60;

/**
 * Reads what was stored. Text that is not JSON becomes the data as it is, for the schema to reject
 * or for `migrate` to convert: a Flask app may store a NaN, say.
 */
export function readRecord(text: string, now: number): SessionRecord {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return { data: text, created: now, isDated: false };
  }
  const { note: created, others: dated } = splitNote(data, "_created");
  const { note: moving, others } = splitNote(dated, "_moving");
  const isDated = Number.isInteger(created) && Number(created) <= now + CLOCK_TOLERANCE;
  const movingTo = typeof moving === "string" ? moving : undefined;
  return { data: others, created: isDated ? Number(created) : now, isDated, movingTo, text };
}

/**
 * Returns the value to store.
 *
 * @param withCreated Whether to note when the session was created; a note that is there stays
 * @throws {SessionDataInvalid} If the data has a key that {@linkcode readRecord} would remove
 */
export function writeRecord(record: SessionRecord, withCreated: boolean): unknown {
  const { data, created, isDated, movingTo, text } = record;
  const isNoted = withCreated || isDated && text !== undefined;
  const dated = withNote(data, "_created", isNoted ? created : undefined);
  const stored = withNote(dated, "_moving", movingTo);
  return text === undefined || !MAY_ROUND.test(text) ? stored : withDigits(stored, text);
}

/** Returns a note, if there is one, and the data without it. */
export function splitNote(stored: unknown, name: Note): { note: unknown; others: unknown } {
  if (!isRecord(stored) || !(name in stored)) return { note: undefined, others: stored };
  const { [name]: note, ...others } = stored;
  return { note, others };
}

/**
 * Returns the data with a note, unless the note is undefined. Data of another program that is not an
 * object stays as it is.
 *
 * @throws {SessionDataInvalid} If the data has a key of that name
 */
export function withNote<Data>(data: Data, name: Note, note: unknown): Data {
  if (!isRecord(data)) return data;
  if (name in data) {
    throw new SessionDataInvalid(`Cannot keep "${name}" in a session: the name is reserved`);
  }
  return note === undefined ? data : { ...data, [name]: note };
}

function isRecord(data: unknown): data is Record<string, unknown> {
  return typeof data === "object" && data !== null && !Array.isArray(data);
}

/** Text without any of these has only integers that JavaScript keeps: no need to look closer. */
const MAY_ROUND = /\d{16}|\d[.eE]|-0/;

/**
 * Puts back the digits of numbers that JavaScript rounds, such as another program's 64-bit ids,
 * wherever `value` still has the rounded number.
 */
function withDigits(value: unknown, text: string): unknown {
  const rounded: unknown = JSON.parse(text);
  if (JSON.stringify(rounded) === text) return value;
  return unrounded(JSON.parse(JSON.stringify(value)), rounded, parseJson(text));
}

function unrounded(value: unknown, rounded: unknown, exact: unknown): unknown {
  if (JSON.stringify(value) === JSON.stringify(rounded)) return exact;
  if (!isRecord(value) || !isRecord(rounded) || !isRecord(exact)) return value;
  const members = Object.entries(value);
  return Object.fromEntries(
    members.map(([key, member]) => [key, unrounded(member, rounded[key], exact[key])]),
  );
}
