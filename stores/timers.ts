/**
 * Timers, where the runtimes differ.
 *
 * @module
 */

/** Lets the program end while the timer is pending. Runtimes whose timers are numbers do so anyway. */
export function unref(timer: unknown): void {
  (timer as { unref?(): void }).unref?.();
}

/** Runs `task` after the calls that the event loop has ready now; web workers have no `setImmediate`. */
export const afterThisTurn: (task: () => void) => void = typeof setImmediate === "function"
  ? setImmediate
  : (task) => void setTimeout(task, 0);
