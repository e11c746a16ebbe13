/** A worker that reads an address every few milliseconds, and keeps the longest time to an answer. */
import { setTimeout as delay } from "node:timers/promises";

declare const self: Worker & { close(): void };

/** Between two reads, in milliseconds. */
const PAUSE = 5;

self.onmessage = async ({ data: url }: MessageEvent<string>) => {
  let longest = 0;
  let failed = 0;
  let stopped = false;
  self.onmessage = () => stopped = true;
  self.postMessage("started");
  while (!stopped) {
    const start = performance.now();
    try {
      const response = await fetch(url);
      await response.body?.cancel();
      if (response.status !== 200) failed++;
    } catch {
      // A refused connection counts as a failure, too.
      failed++;
    }
    longest = Math.max(longest, performance.now() - start);
    await delay(PAUSE);
  }
  self.postMessage({ longest, failed });
  self.close();
};
