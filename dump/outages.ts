/** Reading a store through its short outages, such as a reload or a cut connection. */
import { setTimeout as delay } from "node:timers/promises";
import { type Change, type Store, StoreUnavailable } from "../stores/store.ts";

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

/** Reads from a store, repeatedly while it is unavailable, for up to a minute. */
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
 * Returns the changes of a store. After a short outage it resumes; after a restart, the changes since
 * are no longer known, and the stream fails with `ChangesLost`.
 */
export async function changesOf(
  store: Store,
  prefix: string,
  patience: Patience,
): Promise<ReadableStream<Change>> {
  let watch = await store.watch(prefix);
  return ReadableStream.from(resumed());

  async function* resumed(): AsyncGenerator<Change> {
    for (;;) {
      try {
        return yield* watch.changes;
      } catch (error) {
        if (!(error instanceof StoreUnavailable)) throw error;
        patience.tell(`${error.message}: trying to follow the changes again`);
      }
      const since = watch.position();
      watch = await outlasting(() => store.watch(prefix, { since }), patience);
      patience.tell("Following the changes again");
    }
  }
}
