/** Timers where the runtimes differ, a limit of time, and a clock that does not step back. */

/** Lets the program end while a timer is pending, and returns it. Timers that are numbers do so anyway. */
export function unref<Timer>(timer: Timer): Timer {
  (timer as { unref?(): void }).unref?.();
  return timer;
}

/** Runs `task` after the callbacks that are ready now. Edge workers have no `setImmediate`. */
export const afterThisTurn: (task: () => void) => void = typeof setImmediate === "function"
  ? setImmediate
  : (task) => void setTimeout(task, 0);

/**
 * Returns what a promise resolves to, or what `late` returns if it takes longer than `milliseconds`.
 *
 * @param late By default, throws an error that says so
 */
export async function within<T, Late = never>(
  milliseconds: number,
  promise: Promise<T>,
  late: () => Late = () => {
    throw new Error(`no answer within ${milliseconds} ms`);
  },
): Promise<T | Late> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeUp = new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds));
  try {
    return await Promise.race([promise, timeUp.then(late)]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Returns a clock that never goes back: an expired entry must not be read again. When `now` steps
 * back, the clock goes on at the same pace, so that new entries expire on time.
 *
 * @example
 * ```ts
 * import { forwardOnly } from "./timers.ts";
 *
 * const times = [2000, 1000, 3000];
 * const clock = forwardOnly(() => times.shift() ?? 0);
 * console.log(clock(), clock(), clock()); // 2000 2000 4000
 * ```
 */
export function forwardOnly(now: () => number): () => number {
  let last = -Infinity;
  let ahead = 0;
  return () => {
    const time = now();
    if (time < last) ahead += last - time;
    last = time;
    return time + ahead;
  };
}
