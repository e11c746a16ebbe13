/** The metrics of a server's requests, for Prometheus. */
import { Counter, Histogram, Registry } from "prom-client";

/** The methods with a series of their own. A client could invent any number of others. */
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/** Bounds of the histogram, in seconds. */
export const BUCKETS = [0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000]
  .map((milliseconds) => milliseconds / 1000);

/**
 * Measures the requests of a server, from now on. The names of its metrics begin with `server`; its
 * `registry` holds them, and takes others.
 */
export function requestMetrics(server: string, now = () => performance.now()) {
  const registry = new Registry();
  const durations = new Histogram({
    name: `${server}_request_duration_seconds`,
    help: "Time until the headers of the response",
    labelNames: ["method"],
    buckets: BUCKETS,
    registers: [registry],
  });
  const times = new Map(
    [...METHODS, "other"].map((method) => [method, durations.labels(method)] as const),
  );
  const add = counterOf(registry, {
    name: `${server}_requests_total`,
    help: "Requests",
    labelNames: ["method", "status"],
  });
  return {
    registry,
    /** Counts a request, and the time from `begun`, by the same clock, to its response's headers. */
    count(requestMethod: string, status: number, begun: number): void {
      const method = METHODS.includes(requestMethod) ? requestMethod : "other";
      add(`${method} ${status}`);
      times.get(method)?.observe((now() - begun) / 1000);
    },
  };
}

/**
 * Returns a function that adds one to a counter, for the values of its labels with a space between
 * them. The values are looked up when they are read: adding one to a Map is several times cheaper than
 * prom-client's look-up of labels.
 */
export function counterOf(
  registry: Registry,
  options: { name: string; help: string; labelNames: string[] },
): (labels: string) => void {
  const counts = new Map<string, number>();
  new Counter({
    ...options,
    registers: [registry],
    collect() {
      this.reset();
      for (const [labels, value] of counts) this.labels(...labels.split(" ")).inc(value);
    },
  });
  return (labels) => counts.set(labels, (counts.get(labels) ?? 0) + 1);
}
