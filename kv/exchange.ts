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
  /** Of Deno.serve: `completed` settles when the response was sent. */
  readonly info?: { readonly completed?: Promise<unknown> } | undefined;
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
  /** Whether the server is Deno's. */
  readonly isServed: boolean;
  readonly #info: ExchangeOptions["info"];
  #held = 0;

  constructor(readonly request: Request, { access, memory, info }: ExchangeOptions) {
    const { path, search } = splitUrl(request.url);
    this.method = request.method;
    this.headers = request.headers;
    this.path = path;
    this.search = search;
    this.access = access;
    this.store = access.store;
    this.memory = memory;
    this.isServed = "completed" in Object(info);
    this.#info = info;
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
    // Only here: it rejects when a client leaves, which would end the process if nobody handled it.
    const completed = this.#info?.completed;
    if (completed instanceof Promise) completed.then(release, release);
    else release();
  }
}
