/**
 * What clients do while services fail, and what they may be answered: calls of a store, watches,
 * and browsers at the counter.
 */
import { assert, assertEquals } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { type Call, recorded } from "../helpers/histories.ts";
import { httpStore } from "../../stores/http/store.ts";
import { json } from "../../stores/json/text.ts";
import {
  type Change,
  ChangesLost,
  InvalidArgument,
  type Store,
  type Watch,
} from "../../stores/store.ts";

/** How long a call may take, in milliseconds. */
export const DEADLINE = 2000;

/** Returns numbers from 0 to 1 that a seed determines (mulberry32). */
export function randomOf(seed: number): () => number {
  return () => {
    seed = seed + 0x6d2b79f5 | 0;
    let mixed = Math.imul(seed ^ seed >>> 15, 1 | seed);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

/** A client that reads, writes and deletes a few keys until it is stopped. */
export async function callAtRandom(
  url: string,
  options: { name: string; keys: string[]; history: Call[]; random(): number; stop: AbortSignal },
): Promise<void> {
  const { name, keys, history, random, stop } = options;
  const store = httpStore(url, { deadline: DEADLINE });
  const client = recorded(store, history);
  /** What this client saw last of each key. */
  const seen = new Map<string, string | null>();
  for (let writes = 1; !stop.aborted; writes++) {
    const key = keys[Math.floor(random() * keys.length)] ?? "";
    const ifRevision = random() < 0.6 ? seen.get(key) : undefined;
    const kind = random();
    try {
      const entry = kind < 0.4
        ? await client.get(key)
        : kind < 0.85
        ? await client.set(key, json(`${name} ${writes}`), { ifRevision })
        : await client.delete(key, { ifRevision }).then(() => null);
      seen.set(key, entry?.revision ?? null);
    } catch (error) {
      if (!(error instanceof Error) || error instanceof InvalidArgument) throw error;
      seen.delete(key);
    }
    await delay(random() * 10);
  }
  await store.close();
}

/** What a watch reported, and when it could not know what was written before. */
export interface Watched {
  changes: (Change & { at: number })[];
  /** When the watch began, each time that it had lost changes. */
  begins: number[];
}

/** Watches a service, and resumes whenever the watch ends. */
export async function watchAll(store: Store, watched: Watched, stop: AbortSignal): Promise<void> {
  let watch: Watch | undefined;
  while (!stop.aborted) {
    try {
      const since = watch?.position();
      watch = await store.watch("", { since });
      if (since === undefined) watched.begins.push(performance.now());
      const reader = watch.changes.getReader();
      const end = () => reader.cancel().catch(() => {}); // it has failed
      stop.addEventListener("abort", end);
      for (
        let { value, done } = await reader.read();
        !done;
        { value, done } = await reader.read()
      ) {
        if (value === undefined) break;
        watched.changes.push({ ...value, at: performance.now() });
      }
      stop.removeEventListener("abort", end);
    } catch (error) {
      if (error instanceof ChangesLost) watch = undefined;
      await delay(50);
    }
  }
}

/** Returns the acknowledged writes of a history that a watch has not reported, a sentence each. */
export function unreported(history: readonly Call[], watched: Watched): string[] {
  const lastBegin = Math.max(...watched.begins);
  const lastReport = new Map(watched.changes.map(({ key, at }) => [key, at]));
  return history.filter(({ op, key, begin, answer }) => {
    const isDone = answer.is === "written" ||
      op === "delete" && answer.is === "found" && answer.entry !== null;
    if (!isDone || begin < lastBegin) return false;
    return (lastReport.get(key) ?? -Infinity) < begin;
  }).map(({ key, begin }) => `no change of ${key} after ${begin}`);
}

/** A browser at the counter: it loads the page, and resets now and then. */
export async function browse(url: string, random: () => number, stop: AbortSignal) {
  let cookie = "";
  let count = 0;
  /** Loads since then that may have counted. */
  let unknown = 0;
  /** A reset may have been done. */
  let mayBeReset = false;
  let loads = 0;
  while (!stop.aborted) {
    const isReset = cookie !== "" && random() < 0.03;
    const response = await fetch(isReset ? `${url}/reset` : url, {
      method: isReset ? "POST" : "GET",
      redirect: "manual",
      headers: { Cookie: cookie },
    });
    const page = await response.text();
    const setCookie = response.headers.get("Set-Cookie")?.split(";")[0] ?? null;
    if (response.status === 503) {
      assertEquals(setCookie, null, "a failure brings no new identity");
      if (isReset) mayBeReset = true;
      else if (cookie !== "") unknown++;
    } else if (isReset) {
      assertEquals(response.status, 303, page);
      assertEquals(setCookie, "session=");
      [cookie, count, unknown, mayBeReset] = ["", 0, 0, false];
    } else {
      assertEquals(response.status, 200, page.slice(-300));
      const seen = Number(/Count: (\d+)/.exec(page)?.[1]);
      const isNew = setCookie !== cookie;
      assert(!isNew || cookie === "" || mayBeReset, "the session stays");
      if (isNew) assertEquals(seen, 1);
      else {assert(
          seen > count && seen <= count + 1 + unknown,
          `${seen} after ${count}, ${unknown} unknown`,
        );}
      [cookie, count, unknown, mayBeReset] = [setCookie ?? "", seen, 0, false];
      loads++;
    }
    await delay(random() * 20);
  }
  return loads;
}
