/**
 * Whether a session's cookie outlives the browser. It is stored beside the data, as Flask does, so
 * that a Flask app which shares the session keeps it.
 *
 * @module
 */
import { SessionDataInvalid } from "./errors.ts";
import { isRecord } from "./session_record.ts";

const PERMANENT = "_permanent";

/** Takes the note off what was stored. */
export function splitPermanent(stored: unknown): { data: unknown; isPermanent: boolean } {
  if (!isRecord(stored) || !(PERMANENT in stored)) return { data: stored, isPermanent: false };
  const { [PERMANENT]: isPermanent, ...data } = stored;
  return { data, isPermanent: isPermanent === true };
}

/**
 * Adds the note to data that is to be stored.
 *
 * @throws {SessionDataInvalid} If the data has a key of that name
 */
export function withPermanent(data: object, isPermanent: boolean): object {
  if (PERMANENT in data) {
    throw new SessionDataInvalid(`Cannot keep "${PERMANENT}" in a session: the name is reserved`);
  }
  return isPermanent ? { ...data, [PERMANENT]: true } : data;
}
