/** A server on Node or Bun. */
import { serve as serveOnNode } from "@hono/node-server";
import type { AddressInfo } from "node:net";

type Fetch = (request: Request) => Response | Promise<Response>;

/** What this uses of Bun. */
interface BunServe {
  serve(options: { port: number; hostname: string; fetch: Fetch }): {
    port: number;
    stop(closeConnections: boolean): Promise<void>;
  };
}

/** Serves on a free port of loopback. */
export async function serve(fetch: Fetch): Promise<{ url: string; close(): Promise<void> }> {
  const hostname = "127.0.0.1";
  const { Bun } = globalThis as { Bun?: BunServe };
  if (Bun) {
    const server = Bun.serve({ port: 0, hostname, fetch: (request) => fetch(request) });
    return { url: `http://${hostname}:${server.port}`, close: () => server.stop(true) };
  }
  const listening = Promise.withResolvers<AddressInfo>();
  const server = serveOnNode({ port: 0, hostname, fetch }, listening.resolve);
  const { port } = await listening.promise;
  return {
    url: `http://${hostname}:${port}`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      if ("closeAllConnections" in server) server.closeAllConnections();
      await closed;
    },
  };
}
