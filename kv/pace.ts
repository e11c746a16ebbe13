/** Splits long work into short steps, so that other requests do not wait for its end. */

/** How long large requests may work without a break, all of them together, in milliseconds. */
const LONGEST_STEP = 20;

/** The runtime's own: under a test's fake timers all requests would wait for ever, also afterwards. */
const { setTimeout } = globalThis;

const waiting: (() => void)[] = [];
let isWaiting = false;
let begun = performance.now();

/**
 * Waits for a later step if large requests have worked for too long in this one. Those that wait
 * continue one by one. This may take a millisecond, so small requests should not call it.
 */
export function pause(): Promise<void> {
  if (!isWaiting && performance.now() - begun < LONGEST_STEP) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.push(resolve);
  if (!isWaiting) beginStep();
  return promise;
}

/** Uses a timer, since Deno checks for input only once in many turns of setImmediate. */
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

let turn: Promise<undefined> | undefined;

/** Resolves after everything that the event loop has ready now. */
export function endOfTurn(): Promise<undefined> {
  return turn ??= new Promise((resolve) => {
    setImmediate(() => {
      turn = undefined;
      resolve(undefined);
    });
  });
}

/** Lets a few callers proceed at a time; the others wait, in order. */
export class Turnstile {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(atOnce: number) {
    this.#free = atOnce;
  }

  async enter(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }
}
