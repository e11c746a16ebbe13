/**
 * Long work in short steps, so that other requests need not wait for its end.
 *
 * @module
 */

/** How long large requests may work without a break, all of them together, in milliseconds. */
const LONGEST_STEP = 20;

const waiting: (() => void)[] = [];
let isWaiting = false;
let begun = performance.now();

/**
 * Lets a large request go on now or in a later step: those that wait go on one after another. It may
 * take a millisecond, so small requests should not call it.
 */
export function pause(): Promise<void> {
  if (!isWaiting && performance.now() - begun < LONGEST_STEP) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.push(resolve);
  if (!isWaiting) beginStep();
  return promise;
}

/** Not by setImmediate: Deno looks for input only once in many turns, unless it waits. */
function beginStep(): void {
  isWaiting = true;
  setTimeout(() => {
    begun = performance.now();
    goOn();
  }, 1);
}

function goOn(): void {
  waiting.shift()?.();
  isWaiting = waiting.length > 0;
  if (!isWaiting) return;
  setImmediate(() => performance.now() - begun < LONGEST_STEP ? goOn() : beginStep());
}
