/** The metrics of a server's requests beside a list of the requests. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { BUCKETS, requestMetrics } from "../server/metrics.ts";

Deno.test("requestMetrics() counts each request once, in the buckets of its duration", async () => {
  const happened = { "at a bound": 0, "over all bounds": 0, "other methods": 0 };
  const request = fc.record({
    method: fc.constantFrom("GET", "POST", "BREW", "get"),
    status: fc.constantFrom(200, 404, 503),
    seconds: fc.oneof(
      fc.constantFrom(...BUCKETS, 10.5, 60),
      fc.double({ min: 0, max: 20, noNaN: true }),
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(request, { maxLength: 50, size: "max" }), async (requests) => {
      let time = 0;
      const { registry, count } = requestMetrics("app", () => time);
      for (const { method, status, seconds } of requests) {
        time = seconds * 1000;
        count(method, status, 0);
        if (BUCKETS.includes(time / 1000)) happened["at a bound"]++;
        if (seconds > Math.max(...BUCKETS)) happened["over all bounds"]++;
        if (seriesOf(method) === "other") happened["other methods"]++;
      }
      const text = await registry.metrics();
      const value = (name: string) => Number(text.split(`${name} `)[1]?.split("\n")[0] ?? 0);
      for (const method of ["GET", "POST", "other"]) {
        const durations = requests.filter((it) => seriesOf(it.method) === method)
          .map(({ seconds }) => seconds * 1000 / 1000);
        for (const bound of [...BUCKETS, Infinity]) {
          const le = bound === Infinity ? "+Inf" : bound;
          const bucket = `app_request_duration_seconds_bucket{le="${le}",method="${method}"}`;
          assertEquals(value(bucket), durations.filter((it) => it <= bound).length, bucket);
        }
        for (const status of [200, 404, 503]) {
          const series = `app_requests_total{method="${method}",status="${status}"}`;
          const expected = requests.filter((it) =>
            seriesOf(it.method) === method && it.status === status
          );
          assertEquals(value(series), expected.length, series);
        }
      }
    }),
    { numRuns: 100 },
  );
  for (const [what, times] of Object.entries(happened)) assert(times > 100, `${what}: ${times}`);
});

/** The label of a method: any others share one. */
function seriesOf(method: string): string {
  return ["GET", "POST"].includes(method) ? method : "other";
}
