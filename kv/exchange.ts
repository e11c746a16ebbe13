/**
 * One request and its response: what the handlers know of it, and what it holds.
 *
 * @module
 */
import { splitUrl } from "../server/guards.ts";
import type { Store } from "../stores/store.ts";
import type { Memory } from "./memory.ts";
import type { Access } from "./tokens.ts";

/** What an {@linkcode Exchange} takes beside the request. */
export interface ExchangeOptions {
  readonly access: Access;
  readonly memory: Memory;
  /** Settles when the response was sent, where the server tells. */
  readonly completed?: Promise<unknown> | undefined;
}

/** A request that was accepted. */
export class Exchange {
  readonly method: string;
  readonly headers: Headers;
  /** The path without its first slash, still percent-encoded: the root is empty. */
  readonly path: string;
  /** The query without its question mark, still percent-encoded; null if there is none. */
  readonly search: string | null;
  /** The store, as far as the request may use it. */
  readonly store: Store;
  readonly access: Access;
  readonly memory: Memory;
  readonly completed: Promise<unknown> | undefined;
  #held = 0;

  constructor(readonly request: Request, { access, memory, completed }: ExchangeOptions) {
    const { path, search } = splitUrl(request.url);
    this.method = request.method;
    this.headers = request.headers;
    this.path = path;
    this.search = search;
    this.access = access;
    this.store = access.store;
    this.memory = memory;
    this.completed = completed;
  }

  /**
   * Counts bytes until the response is sent.
   *
   * @throws {HTTPException} 503 if they do not fit
   */
  hold(bytes: number): void {
    this.memory.take(bytes);
    this.#held += bytes;
  }

  /** Is called once the response is made. */
  end(): void {
    if (this.#held === 0) return;
    const release = () => this.memory.give(this.#held);
    if (this.completed === undefined) release();
    else this.completed.then(release, release);
  }
}
