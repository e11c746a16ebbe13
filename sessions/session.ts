/** A session, as a handler sees it. */
/** What a `Response` takes as its body; `BodyInit`, which Node's types do not have. */
export type ResponseBody = ConstructorParameters<typeof Response>[0];

/** What {@linkcode Session.response} takes beside the body. */
export interface SessionResponseInit {
  /** By default 200. */
  status?: number;
  /** Headers beside those of the session. */
  headers?: Record<string, string>;
}

/**
 * The session of one request, `c.var.session`.
 *
 * Any call throws a {@linkcode SessionUnavailable} (503) if the store is unavailable, and an
 * `HTTPException` with status 409 and a {@linkcode SessionRotated} as its `cause` if the session has
 * just moved to a new id in another request, except `rotate`.
 *
 * After the response has begun, in a stream or a WebSocket, `read` loads the session again, and does not
 * renew it. On a store, `update` can still change an existing session and `destroy` end it. A call that
 * needs a header is then an error: `rotate`, an `update` that would create a session, and every change
 * in a signed cookie. An error that nobody awaits is then logged; before the response, it is the
 * request's.
 */
export interface Session<T extends object> {
  /**
   * Returns the data, as the schema gives it, frozen. The first call loads it. A session that does
   * not exist reads as the schema's defaults, and reading does not create it.
   *
   * @throws {SessionUnavailable} If the store is unavailable: never a new session instead
   * @throws {SessionDataInvalid} If what is stored does not fit the schema
   */
  read(): Promise<Readonly<T>>;
  /**
   * Replaces the data by `change(data)` and returns the new data. A session that does not exist, or
   * no longer exists, is created under a new id.
   *
   * On a store this is atomic: no update is lost. `change` runs again on the newer data if another
   * request was faster, so it should only compute. It is given frozen data and returns new data; if
   * it returns the very object that it was given, nothing is stored and no cookie is sent. What
   * `update` returns is frozen, too.
   *
   * @throws {SessionUnavailable} If the store is unavailable, and the session may have been changed;
   * or if the store is full
   * @throws {SessionDataInvalid} If the data, or what `change` returns, does not fit the schema; if
   * JSON would not give it back as it is (a Date, a Map, NaN, an instance of a class); if `change`
   * adds a key that the schema drops, or changes the data in place
   * @throws {SessionTooLarge} If the `Set-Cookie` would be over 4,093 bytes, or the store's value
   * over 1 MiB; nothing is changed
   */
  update(change: (data: Readonly<T>) => T): Promise<Readonly<T>>;
  /**
   * Moves the session to a new id and ends the old one. Call it when a user logs in, so that nobody
   * who knew the old id shares the login (OWASP, session fixation). Without a session it does
   * nothing. Under an id that has just moved, the session begins again, empty, and the next update
   * creates it under a new id. A signed cookie has no id: it is signed again, and the old cookie
   * stays valid.
   *
   * @throws {SessionTooLarge} If the `Set-Cookie` would be over 4,093 bytes, where Flask had
   * compressed it
   */
  rotate(): Promise<void>;
  /**
   * Ends the session at the store and clears the cookie. Requests under way cannot bring it back:
   * their `update` creates a new session. A signed cookie that one of them sends afterwards does.
   */
  destroy(): Promise<void>;
  /**
   * Makes the response, as `new Response(body, init)`, with the session's headers. Every response
   * gets them, but Deno sends one faster if its headers are not changed afterwards. After this call
   * the response counts as begun. As with any `Response` of your own, Hono leaves out what `c.header`
   * and `setCookie` have set before: give those headers in `init`.
   */
  response(body: ResponseBody, init?: SessionResponseInit): Response;
  /** The value of the cookie that the browser sent, or null. On a store it is a secret. */
  readonly cookie: string | null;
  /** The `Set-Cookie` header that the response carries after the calls so far, or null: none. */
  readonly setCookie: string | null;
  /**
   * A name for the session that may be shown and logged: a SHA-256 of its id, in hexadecimal. It
   * changes when the session rotates. Null before the first call, where there is no session, and in
   * a signed cookie, which has no id.
   */
  readonly handle: string | null;
  /**
   * When the session ends unless it is used, as of the last call. Null before the first call and
   * where there is no session.
   */
  readonly expires: Date | null;
}
