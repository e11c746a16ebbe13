/** The suite for session stores finds a store that does not check for other writers. */
import { assertEquals, assertRejects } from "@std/assert";
import type { SessionStore, StoredSession } from "../sessions.ts";
import { RACES } from "./conformance/sessions.ts";

/** A store that reads, computes and writes, as stores without compare-and-swap do. */
class CarelessStore implements SessionStore {
  readonly lifetime = 3600;
  readonly #sessions = new Map<string, string>();

  async load(cookie: string): Promise<StoredSession | null> {
    const text = this.#sessions.get(cookie);
    return text === undefined ? null : this.#stored(cookie, JSON.parse(text), false);
  }

  async create(data: object): Promise<StoredSession> {
    return this.#write(crypto.randomUUID(), data);
  }

  async update(cookie: string, change: (data: unknown) => Promise<object | null>) {
    const stored = await this.load(cookie);
    const data = stored && await change(stored.data);
    return data ? this.#write(cookie, data) : stored;
  }

  async rotate(cookie: string): Promise<StoredSession | null> {
    const stored = await this.load(cookie);
    await this.destroy(cookie);
    return stored && await this.create(stored.data as object);
  }

  async destroy(cookie: string): Promise<void> {
    this.#sessions.delete(cookie);
  }

  #write(cookie: string, data: object): StoredSession {
    this.#sessions.set(cookie, JSON.stringify(data));
    return this.#stored(cookie, data, true);
  }

  #stored(cookie: string, data: unknown, renewed: boolean): StoredSession {
    return { cookie, data, ttl: this.lifetime, renewed };
  }
}

Deno.test("the suite for session stores fails a store without a race check", async () => {
  for (const check of Object.values(RACES)) {
    await assertRejects(() => check(new CarelessStore()), Error, "");
  }
  assertEquals(Object.keys(RACES).length, 3);
});
