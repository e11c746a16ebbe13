/**
 * Counts the bytes that the service holds for its clients: bodies that arrive slowly and responses
 * that are not read. A limit for each of them would not bound their sum.
 */
import { Buffer } from "node:buffer";

/** The most bytes held for all clients together. */
export const MAX_HELD_BYTES = 128 * 1024 * 1024;
/** Bodies up to this many bytes are not counted: they cost less than their request. */
export const UNCOUNTED_BYTES = 4 * 1024;
/** Responses up to this many bytes are handled in one step, and not counted. */
export const SMALL_BYTES = 64 * 1024;

/** There is no room for a request's body or response. A write that throws it was not done. */
export class TooMuchHeld extends Error {
  override readonly name = "TooMuchHeld";

  constructor() {
    super("Too much is held for slow clients: try again");
  }
}

/** The bytes held for all requests, or for some of them. */
export class Budget {
  #held = 0;

  /** @param whole The budget that these bytes count for, too */
  constructor(readonly limit = MAX_HELD_BYTES, readonly whole?: Budget) {}

  get held(): number {
    return this.#held;
  }

  /** @throws {TooMuchHeld} If the bytes do not fit; fewer than zero always do */
  add(bytes: number): void {
    if (bytes > 0 && this.#held + bytes > this.limit) throw new TooMuchHeld();
    this.whole?.add(bytes);
    this.#held += bytes;
  }
}

/**
 * The bytes held for one request: what its handler keeps, and the text that is sent. Without room for
 * more, counting them throws {@linkcode TooMuchHeld}.
 */
export class Held {
  #kept = 0;
  #sent = 0;
  /** What the budget counts for both. */
  #counted = 0;

  constructor(readonly budget: Budget) {}

  get kept(): number {
    return this.#kept;
  }

  /** Counts a body or a result. */
  keep(bytes: number): void {
    this.#count(this.#kept + bytes, this.#sent);
  }

  /** Releases what was kept. It stays counted until the next call, which may need the room. */
  drop(bytes: number = this.#kept): void {
    this.#kept -= bytes;
  }

  /**
   * Counts a text that will be sent, in place of the one before. A write calls this before it writes,
   * so that its answer cannot fail for lack of room.
   */
  send(text: string): void {
    this.#count(this.#kept, text.length > SMALL_BYTES ? Buffer.byteLength(text) : 0);
  }

  end(): void {
    this.#count(0, 0);
  }

  #count(kept: number, sent: number): void {
    const bytes = kept + sent;
    if (bytes !== this.#counted) this.budget.add(bytes - this.#counted);
    this.#counted = bytes;
    this.#kept = kept;
    this.#sent = sent;
  }
}
