/** Copies a store into another one, while programs use it. */
import { entries } from "../stores/dumps.ts";
import { json } from "../stores/json/text.ts";
import { ttlOf } from "../stores/lines.ts";
import type { Change, Entry, Store } from "../stores/store.ts";
import { changesOf, outlasting, type Patience } from "./outages.ts";

/** How many entries are on their way at a time. */
const AT_ONCE = 64;
/** How long a probe is kept if this program is killed, in seconds: longer than a listing takes. */
const PROBE_TTL = 600;

/**
 * The target of a copy is within the source, which would make copies of copies; or it has entries: what
 * was removed from the source would stay.
 */
export class UnfitTarget extends Error {
  override readonly name = "UnfitTarget";
}

export interface CopyOptions extends Patience {
  /** The beginning of the keys to copy; by default all. */
  prefix: string;
  /** Whether to go on with the changes of the source, until its watch ends. */
  watch: boolean;
  /** Called with the number of entries copied so far. */
  onProgress(copied: number): void;
  /** Called when every entry is copied, and before the changes since are followed. */
  onCopied(copied: number): void;
}

/**
 * Writes the entries of a store into an empty one. What changes meanwhile is copied again afterwards,
 * so that in the end both are the same, with lifetimes to the second.
 *
 * @throws {UnfitTarget} If the target has an entry under the prefix, or is within the source
 * @throws {ChangesLost} If more happened at once than the source keeps
 */
export async function copy(
  from: Store,
  to: Store,
  { prefix, watch, onProgress, onCopied, ...patience }: CopyOptions,
): Promise<void> {
  for await (const { key } of entries(to, prefix)) {
    throw new UnfitTarget(`Cannot copy: the target has "${key}" already, and has to be empty`);
  }
  await expectOther(from, to, prefix);
  // Before the keys are listed, so that no change is missed.
  const changed = watch ? changedKeys(await changesOf(from, prefix, patience)) : [];
  let copied = 0;
  let after: string | undefined;
  do {
    const { keys, next } = await from.list(prefix, { after });
    while (keys.length > 0) {
      copied += await write(to, await readAll(from, keys.splice(0, AT_ONCE)));
      onProgress(copied);
    }
    after = next ?? undefined;
  } while (after !== undefined);
  onCopied(copied);
  for await (const keys of changed) {
    const found = await outlasting(() => readAll(from, keys), patience);
    await write(to, found);
  }
}

/** What a store has under some keys. */
type Found = (readonly [key: string, entry: Entry | null])[];

async function readAll(store: Store, keys: string[]): Promise<Found> {
  return await Promise.all(keys.map(async (key) => [key, await store.get(key)] as const));
}

/**
 * Finds out whether the source reads what is written to the target. URLs do not tell: a service may
 * serve a file, and add a prefix of its own. Listing the keys takes a few percent of the copy's time.
 *
 * @throws {UnfitTarget} If it does
 */
async function expectOther(from: Store, to: Store, prefix: string): Promise<void> {
  const probe = `${prefix}dump.ts-${crypto.randomUUID()}`;
  await to.set(probe, json(null), { ttl: PROBE_TTL });
  try {
    let after: string | undefined;
    do {
      const { keys, next } = await from.list(prefix, { after });
      if (keys.some((key) => key.endsWith(probe))) {
        throw new UnfitTarget(
          "Cannot copy a store into itself: both URLs lead to one. For a copy of its keys under a " +
            "prefix, restore a backup: dump.ts --format backup URL > FILE, then " +
            "dump.ts --restore FILE 'URL?prefix=x:'",
        );
      }
      after = next ?? undefined;
    } while (after !== undefined);
  } finally {
    await to.delete(probe);
  }
}

/** Makes a store have what was found, and returns how many keys have an entry. */
async function write(to: Store, found: Found): Promise<number> {
  await Promise.all(found.map(async ([key, entry]) => {
    const ttl = entry === null ? 0 : ttlOf(entry.expires, Date.now());
    if (entry === null || ttl === 0) await to.delete(key);
    else await to.set(key, entry.value, { ttl });
  }));
  return found.filter(([, entry]) => entry !== null).length;
}

/**
 * Yields the keys of a watch's changes, each once. They are collected from now on, also while there is
 * no time to copy them.
 *
 * @throws {unknown} If the watch fails
 */
function changedKeys(changes: ReadableStream<Change>): AsyncGenerator<string[]> {
  const keys = new Set<string>();
  let isOver = false;
  let wake = () => {};
  const collecting = collect().finally(() => {
    isOver = true;
    wake();
  });
  collecting.catch(() => {}); // take() throws the error
  return take();

  async function collect(): Promise<void> {
    for await (const { key } of changes) {
      keys.add(key);
      wake();
    }
  }

  async function* take(): AsyncGenerator<string[]> {
    for (;;) {
      while (keys.size === 0 && !isOver) await new Promise<void>((resolve) => wake = resolve);
      if (keys.size === 0) return await collecting;
      const some = keys.values().take(AT_ONCE).toArray();
      for (const key of some) keys.delete(key);
      yield some;
    }
  }
}
