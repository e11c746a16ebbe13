/** What the calls of a session throw, and what the storage under them throws. */
import { HTTPException } from "hono/http-exception";
import type { StoredSession } from "./session_store.ts";
import { StoreFull, StoreUnavailable, ValueTooLarge } from "../stores/store.ts";

/**
 * The store is unavailable, or full (a {@linkcode StoreFull} as `cause`): a 503 that says when to
 * try again. The browser keeps its cookie, except where the `cause` is a {@linkcode RotationUnknown}.
 */
export class SessionUnavailable extends HTTPException {
  /** Keeps the store's error as `cause`. */
  constructor(cause: unknown) {
    const message = "The sessions are not available. Please try again in a moment";
    const headers = { "Content-Type": "text/plain", "Retry-After": "1" };
    super(503, { message, cause, res: new Response(message, { headers }) });
  }
}

/** Data that does not fit the schema, or that JSON cannot hold. Nothing was changed. */
export class SessionDataInvalid extends TypeError {}

/** The session is too large for a cookie or for a value of the store. Nothing was changed. */
export class SessionTooLarge extends RangeError {}

/**
 * The session has just moved to a new id, and the request has the old one. A session store throws
 * this; the app sees an `HTTPException` with status 409 and this as its `cause`. The response
 * carries no cookie, so that the browser keeps the new one, and a second try succeeds.
 */
export class SessionRotated extends Error {
  /** The message does not contain an id. */
  constructor() {
    super("The session has a new id. Please try again");
  }
}

/**
 * The session is stored under its new id, but it is not known whether the old id has ended. The
 * browser gets the new id, since the old one may be gone.
 */
export class RotationUnknown extends StoreUnavailable {
  readonly #session: StoredSession;

  /** Takes the session under its new id. */
  constructor(session: StoredSession, cause: Error) {
    super(cause.message, { cause, outcome: "unknown" });
    this.#session = session;
  }

  /** Private, so that logging the error does not show the id of a living session. */
  get session(): StoredSession {
    return this.#session;
  }
}

// On the prototypes, as in stores/store.ts.
const NAMED = { SessionUnavailable, SessionDataInvalid, SessionTooLarge, SessionRotated };
for (const [name, { prototype }] of Object.entries(NAMED)) prototype.name = name;

/** Maps an error of the storage to what the app sees, with its status. */
export function appError(error: unknown): unknown {
  if (error instanceof SessionRotated) {
    return new HTTPException(409, { message: error.message, cause: error });
  }
  if (error instanceof ValueTooLarge) return new SessionTooLarge(error.message, { cause: error });
  const isUnavailable = error instanceof StoreUnavailable || error instanceof StoreFull;
  return isUnavailable ? new SessionUnavailable(error) : error;
}
