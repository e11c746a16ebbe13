/**
 * Long work in short steps, so that other requests need not wait for its end.
 *
 * @module
 */
/** How long a request may work without a break, in milliseconds. */
const LONGEST_STEP = 20;

/** Work under way. Its first step begins with it. */
export class Pace {
  #begun = performance.now();

  /** Lets other requests go on if the current step was long. */
  async pause(): Promise<void> {
    if (performance.now() - this.#begun < LONGEST_STEP) return;
    // Not setImmediate: Deno looks for input only once in many turns, unless it waits.
    await new Promise<void>((resolve) => setTimeout(resolve, 1));
    this.#begun = performance.now();
  }
}
