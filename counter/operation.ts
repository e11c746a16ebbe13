/** The counter's health check and metrics. They start no session. */
import { Hono } from "hono";
import { requestMetrics } from "../server/metrics.ts";
import { StoreFull, StoreUnavailable } from "../stores/store.ts";

const NO_STORE = { "Cache-Control": "no-store" };

/** Measures every request, and answers `GET /metrics`, and `GET /health` by `check`. */
export function operation(check: () => Promise<unknown>): Hono {
  const { registry, count } = requestMetrics("counter");
  /** The check under way, shared: each would be a request of its own to a service. */
  let checking: Promise<unknown> | undefined;
  return new Hono()
    .use(async function measured(c, next) {
      const begun = performance.now();
      await next();
      count(c.req.method, c.res.status, begun);
    })
    .get("/health", async (c) => {
      try {
        await (checking ??= check().finally(() => checking = undefined));
      } catch (error) {
        if (!(error instanceof StoreUnavailable || error instanceof StoreFull)) throw error;
        console.error(`counter: ${error.message}`);
        const status = error instanceof StoreFull ? "full" : "unavailable";
        return c.json({ status }, 503, { ...NO_STORE, "Retry-After": "1" });
      }
      return c.json({ status: "ok" }, 200, NO_STORE);
    })
    .get("/metrics", async (c) => {
      const headers = { ...NO_STORE, "Content-Type": registry.contentType };
      return c.body(await registry.metrics(), 200, headers);
    });
}
