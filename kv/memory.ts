/**
 * How much the service holds for its clients: bodies that arrive slowly and responses that are not
 * read. A limit for each of them would not bound their sum.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";

/** The most bytes held for all clients together. */
export const MAX_HELD_BYTES = 128 * 1024 * 1024;
/** Bodies and results up to this many bytes are not counted: they cost less than their request. */
export const UNCOUNTED_BYTES = 4 * 1024;
/** Bodies and responses up to this many bytes are handled in one step. */
export const SMALL_BYTES = 64 * 1024;

/** A count of bytes with a limit. */
export class Memory {
  #held = 0;

  constructor(readonly limit = MAX_HELD_BYTES) {}

  get held(): number {
    return this.#held;
  }

  /**
   * Counts bytes, until they are given back.
   *
   * @throws {HTTPException} 503 if they do not fit
   */
  take(bytes: number): void {
    if (this.#held + bytes > this.limit) {
      throw new HTTPException(503, { message: "Too much is held for slow clients: try again" });
    }
    this.#held += bytes;
  }

  give(bytes: number): void {
    this.#held -= bytes;
  }
}
