/** Reading a store through its short outages, such as a reload or a cut connection. */
import { setTimeout as delay } from "node:timers/promises";
import { type Change, type Store, StoreUnavailable, type Watch } from "../stores/store.ts";

/** How long an outage may take, and the pause before each try, in milliseconds. */
const LONGEST = 60_000;
const PAUSE = 1000;

/** How an outage is reported, and waited for. */
export interface Patience {
  /** Called with what happens. */
  tell(message: string): void;
  /** Waits for a time in milliseconds. */
  sleep?(time: number): Promise<unknown>;
  /** A clock in milliseconds. */
  now?(): number;
}

/**
 * Reads from a store, again and again while it is unavailable.
 *
 * @throws {StoreUnavailable} If that takes over a minute
 */
export async function outlasting<T>(
  read: () => Promise<T>,
  { tell, sleep = delay, now = () => performance.now() }: Patience,
): Promise<T> {
  const begun = now();
  for (let tries = 0;; tries++) {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof StoreUnavailable) || now() - begun > LONGEST) throw error;
      if (tries === 0) tell(`${error.message}: trying again`);
      await sleep(PAUSE);
    }
  }
}

/**
 * Watches a store, and resumes the watch after a short outage. After a restart, the changes since are
 * no longer known: the stream fails with `ChangesLost`.
 *
 * @throws {StoreUnavailable} If the watch cannot begin
 */
export async function watchOn(store: Store, prefix: string, patience: Patience): Promise<Watch> {
  const first = await store.watch(prefix);
  const changes = ReadableStream.from(resumed(store, prefix, first, patience));
  return { since: first.since, changes };
}

async function* resumed(
  store: Store,
  prefix: string,
  { since, changes }: Watch,
  patience: Patience,
): AsyncGenerator<Change> {
  for (;;) {
    try {
      for await (const change of changes) {
        since = change.id;
        yield change;
      }
      return;
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error;
      patience.tell(`${error.message}: trying to follow the changes again`);
    }
    ({ changes } = await outlasting(() => store.watch(prefix, { since }), patience));
    patience.tell("Following the changes again");
  }
}
