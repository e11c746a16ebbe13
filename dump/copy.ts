/** Copies a store into another one, while programs use it. */
import { entries, LIMITS } from "../stores/dumps.ts";
import { json } from "../stores/json/text.ts";
import { ttlOf } from "../stores/lines.ts";
import { type Change, type Entry, InvalidArgument, type Store } from "../stores/store.ts";
import { changesOf, outlasting, type Patience } from "./outages.ts";

/** How many entries are written at once, and about how many characters of values. */
const WRITTEN = 64;
const WRITTEN_LENGTH = 256 * 1024;
/** How long a probe is kept if this program is killed, in seconds: longer than a listing takes. */
const PROBE_TTL = 600;
const PROBE = /dump\.ts-[\da-f-]{36}$/;

/**
 * The target of a copy is within the source, which would make copies of copies; or it has entries: what
 * was removed from the source would stay; or it does not take a key.
 */
export class UnfitTarget extends Error {}

/** A copy that stopped early. What it has written stays. */
export class CopyStopped extends Error {
  override readonly name = "CopyStopped";

  /**
   * @param cause Why reading or writing failed
   * @param copied How many entries were written
   */
  constructor(override readonly cause: unknown, readonly copied: number) {
    super((cause as Error).message);
  }
}

export interface CopyOptions extends Patience {
  /** The beginning of the keys to copy; by default all. */
  prefix: string;
  /** Whether to go on with the changes of the source, until its watch ends. */
  watch: boolean;
  /** Called with the number of entries copied so far. */
  onProgress(copied: number): void;
  /**
   * Called when every entry is copied, and before the changes since are followed.
   *
   * @param expired How many entries were left out, since they have expired by the clock of this machine
   */
  onCopied(copied: number, expired: number): void;
}

/**
 * Writes the entries of a store into an empty one. What changes meanwhile is copied again afterwards,
 * so that in the end both are the same, with lifetimes to the second.
 *
 * @throws {UnfitTarget} If the target has an entry under the prefix, or is within the source
 * @throws {CopyStopped} If reading or writing fails before every entry is copied
 * @throws {ChangesLost} If more happened at once than the source keeps
 */
export async function copy(
  from: Store,
  to: Store,
  { prefix, watch, onProgress, onCopied, ...patience }: CopyOptions,
): Promise<void> {
  for await (const { key } of entries(to, prefix)) {
    if (PROBE.test(key)) continue; // of a copy that was killed
    throw new UnfitTarget(`Cannot copy: the target has "${key}" already, and has to be empty`);
  }
  await expectOther(from, to, prefix);
  // Before the keys are listed, so that no change is missed.
  const changed = watch ? changedKeys(await changesOf(from, prefix, patience)) : [];
  const done = { copied: 0, expired: 0 };
  try {
    for await (const batch of batches(entries(from, prefix))) {
      await write(to, batch, done);
      onProgress(done.copied);
    }
  } catch (cause) {
    throw new CopyStopped(cause, done.copied);
  }
  onCopied(done.copied, done.expired);
  let atOnce = 1;
  for await (const pending of changed) {
    const keys = pending.values().take(atOnce).toArray();
    for (const key of keys) pending.delete(key);
    const found = await outlasting(() => readAll(from, keys), patience);
    for await (const batch of batches(found)) await write(to, batch, done);
    const isLong = lengthOf(found) > LIMITS.fetchedLength;
    atOnce = isLong ? Math.ceil(atOnce / 2) : Math.min(2 * atOnce, LIMITS.fetched);
  }
}

/** What a store has under a key. */
type Found = Entry | { key: string; value: null };

async function readAll(store: Store, keys: string[]): Promise<Found[]> {
  return await Promise.all(
    keys.map(async (key) => await store.get(key) ?? { key, value: null }),
  );
}

/** Few enough at a time that a slow link carries them before the store's deadline. */
async function* batches(
  found: Iterable<Found> | AsyncIterable<Found>,
): AsyncGenerator<Found[]> {
  let batch: Found[] = [];
  for await (const one of found) {
    batch.push(one);
    if (batch.length < WRITTEN && lengthOf(batch) < WRITTEN_LENGTH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

function lengthOf(found: Found[]): number {
  return found.reduce((length, { value }) => length + (value?.length ?? 0), 0);
}

/**
 * Fails if the source reads what is written to the target. URLs do not tell: a service may serve a
 * file, and add a prefix of its own. Listing the keys takes a few percent of the copy's time.
 */
async function expectOther(from: Store, to: Store, prefix: string): Promise<void> {
  const probe = `${prefix}dump.ts-${crypto.randomUUID()}`;
  await to.set(probe, json(null), { ttl: PROBE_TTL }).catch((cause) => {
    if (!(cause instanceof InvalidArgument)) throw cause;
    throw new UnfitTarget("Cannot copy under a prefix of more than 980 bytes", { cause });
  });
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

/** Makes a store have what was found, and counts what it does. */
async function write(
  to: Store,
  found: Found[],
  done: { copied: number; expired: number },
): Promise<void> {
  const writes = found.map(async ({ key, ...entry }) => {
    if (entry.value === null) return void await to.delete(key);
    const ttl = ttlOf(entry.expires, Date.now());
    if (ttl === 0) {
      await to.delete(key);
      done.expired++;
    } else {
      await to.set(key, entry.value, { ttl }).catch((cause) => {
        if (!(cause instanceof InvalidArgument)) throw cause;
        throw new UnfitTarget(`Cannot copy "${key}": ${cause.message}`, { cause });
      });
      done.copied++;
    }
  });
  // Each is counted, also after one that fails.
  await Promise.allSettled(writes);
  await Promise.all(writes);
}

/**
 * Yields the keys that changed, whenever there are any: take some off. They are collected from now on,
 * each once, also while there is no time to copy them, until the watch ends or fails.
 */
function changedKeys(changes: ReadableStream<Change>): AsyncGenerator<Set<string>> {
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

  async function* take(): AsyncGenerator<Set<string>> {
    for (;;) {
      while (keys.size === 0 && !isOver) await new Promise<void>((resolve) => wake = resolve);
      if (keys.size === 0) return await collecting;
      yield keys;
    }
  }
}
