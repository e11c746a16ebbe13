/** What the counter tells those who operate it. None of it starts a session. */
import { Hono } from "hono";
import { requestMetrics } from "../server/metrics.ts";
import type { SessionStore } from "../sessions.ts";
import { StoreUnavailable } from "../stores/store.ts";

const NO_STORE = { "Cache-Control": "no-store" };

/**
 * Measures every request, and answers `GET /health` and `GET /metrics`.
 *
 * @param store Is healthy if it can be read
 */
export function operation(store: SessionStore): Hono {
  const { registry, count } = requestMetrics("counter");
  return new Hono()
    .use(async function measured(c, next) {
      const begun = performance.now();
      await next();
      count(c.req.method, c.res.status, begun);
    })
    .get("/health", async (c) => {
      try {
        await store.load(crypto.randomUUID());
      } catch (error) {
        if (!(error instanceof StoreUnavailable)) throw error;
        console.error(`counter: ${error.message}`);
        return c.json({ status: "unavailable" }, 503, { ...NO_STORE, "Retry-After": "1" });
      }
      return c.json({ status: "ok" }, 200, NO_STORE);
    })
    .get("/metrics", async (c) => {
      const headers = { ...NO_STORE, "Content-Type": registry.contentType };
      return c.body(await registry.metrics(), 200, headers);
    });
}
