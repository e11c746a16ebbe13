/**
 * Answers that go on: every key, and the changes as they happen.
 *
 * @module
 */
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import { ChangesLost, type Store, type Watch } from "../stores/store.ts";
import { changeText } from "../stores/wire.ts";
import { report } from "./errors.ts";

/** How often a stream of changes says that it is alive, in milliseconds. */
export const HEARTBEAT = 15_000;

/** Every key, however many there are: page by page, as the client reads. */
export function allKeys(
  c: Context,
  store: Store,
  prefix: string,
  first: { keys: string[]; next: string | null },
): Response {
  if (first.next === null) return c.json({ keys: first.keys });
  const headers = { "Content-Type": "application/json" };
  if (c.req.method === "HEAD") return c.body(null, 200, headers);
  async function* text() {
    yield `{"keys":[${first.keys.map((key) => JSON.stringify(key)).join()}`;
    let after = first.next;
    while (after !== null) {
      const { keys, next } = await store.list(prefix, { after });
      for (const key of keys) yield `,${JSON.stringify(key)}`;
      after = next;
    }
    yield "]}";
  }
  const stream = ReadableStream.from(text()).pipeThrough(new TextEncoderStream());
  return c.body(stream, 200, headers);
}

/** Changes as server-sent events (HTML, section 9.2), until the client, the store or the server ends. */
export function events(
  c: Context,
  watch: Watch,
  stopping: AbortSignal,
  ended: () => void,
): Response {
  c.header("X-Accel-Buffering", "no");
  return streamSSE(c, async (stream) => {
    const reader = watch.changes.getReader();
    const stop = () => reader.cancel();
    stream.onAbort(stop);
    stopping.addEventListener("abort", stop);
    if (stopping.aborted) await stop();
    const heartbeat = setInterval(() => stream.write(":\n\n"), HEARTBEAT);
    try {
      await stream.writeSSE({ event: "ready", id: watch.since, data: "{}" });
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        const { id, key, entry } = next.value;
        await stream.writeSSE({ id, data: changeText(key, entry) });
      }
    } catch (error) {
      // The client comes again with its Last-Event-ID, and learns what is the matter.
      if (!(error instanceof ChangesLost)) report(503, error);
    } finally {
      clearInterval(heartbeat);
      stopping.removeEventListener("abort", stop);
      ended();
      // Changes that have failed would fail here once more.
      await reader.cancel().catch(() => {});
    }
  });
}
