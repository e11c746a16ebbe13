/**
 * Long work in short steps, so that other requests need not wait for its end.
 *
 * @module
 */

/** How long the work of all requests may go on without a break, in milliseconds. */
const LONGEST_STEP = 20;

let begun = performance.now();
let nextStep: Promise<void> | undefined;

/** Waits for the next step if the current one was long. For large requests only: it may take 1 ms. */
export async function pause(): Promise<void> {
  while (performance.now() - begun >= LONGEST_STEP) {
    // Not setImmediate: Deno looks for input only once in many turns, unless it waits.
    nextStep ??= new Promise((resolve) =>
      setTimeout(() => {
        begun = performance.now();
        nextStep = undefined;
        resolve();
      }, 1)
    );
    await nextStep;
  }
}
