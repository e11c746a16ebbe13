/** Following the changes of a store through its short outages, such as a reload or a cut connection. */
import { setTimeout as delay } from "node:timers/promises";
import { type Change, type Store, StoreUnavailable, type Watch } from "../stores/store.ts";

/** How often resuming is tried, and the pause before each try, in milliseconds. */
const TRIES = 60;
const PAUSE = 1000;

/** How an outage is reported, and waited for. */
export interface Patience {
  /** Called with what happens. */
  tell(message: string): void;
  /** Waits for a time in milliseconds. */
  sleep?(time: number): Promise<unknown>;
}

/**
 * Watches a store, and resumes the watch if the store is unavailable for about a minute at most.
 * After a restart, the changes since are no longer known: the stream fails with `ChangesLost`.
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
  { tell, sleep = delay }: Patience,
): AsyncGenerator<Change> {
  for (let tries = 0;;) {
    try {
      if (tries > 0) {
        await sleep(PAUSE);
        ({ changes } = await store.watch(prefix, { since }));
        tell("Following the changes again");
        tries = 0;
      }
      for await (const change of changes) {
        since = change.id;
        yield change;
      }
      return;
    } catch (error) {
      if (!(error instanceof StoreUnavailable) || tries === TRIES) throw error;
      if (tries === 0) tell(`${error.message}: trying to follow the changes again`);
      tries++;
    }
  }
}
