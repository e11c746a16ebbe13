// The load where wrk is missing: the same requests, by autocannon, from a JSON argument.
import autocannon from "autocannon";

const { url, lines, seconds, connections, rate } = JSON.parse(process.argv[2]);
const requests = lines.map(({ method, path, cookie, type, body }) => ({
  method,
  path,
  headers: { ...cookie && { Cookie: cookie }, ...type && { "Content-Type": type } },
  ...body && { body },
}));
let clients = 0;

const result = await autocannon({
  url,
  connections,
  duration: seconds,
  ...rate && { overallRate: rate },
  // Each connection begins elsewhere, so that they do not load one session at one time.
  setupClient(client) {
    const first = Math.floor(clients++ * requests.length / connections);
    client.setRequests([...requests.slice(first), ...requests.slice(0, first)]);
  },
});
console.log(
  "RESULT " + JSON.stringify({
    requests: result.requests.total,
    microseconds: result.duration * 1e6,
    refused: result.non2xx,
    failed: result.errors,
    p99: result.latency.p99 * 1000,
    longest: result.latency.max * 1000,
  }),
);
