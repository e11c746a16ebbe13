// What limits and peers share: the counter's page, from PAGE, and the line that tells the port.

import process from "node:process";

const { headers, parts } = JSON.parse(process.env.PAGE ?? "{}");

/** The page's own headers, without those that its session adds. */
export { headers };

export const SECRET = "a secret of the bench, 32 bytes at least";

export function page(count) {
  return parts.join(`Count: ${count}`);
}

export function listening(port) {
  console.log(`peer: http://127.0.0.1:${port}`);
}

/** Serves an app on Deno. */
export function serve(app) {
  const onListen = ({ port }) => listening(port);
  Deno.serve({ hostname: "127.0.0.1", port: 0, onListen }, app.fetch);
}
