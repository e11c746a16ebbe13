/** Serves by the configuration, and reads its tokens, keys and passwords again on SIGHUP. */
import { setTimeout as delay } from "node:timers/promises";
import { isRemote, openStore, withoutPassword } from "../stores/open.ts";
import { type Store, StoreUnavailable } from "../stores/store.ts";
import { type Config, readConfig } from "./config.ts";
import { GUARD_HEADERS, splitUrl } from "./guards.ts";
import { listen } from "./listen.ts";
import { logRequests } from "./log.ts";
import { onHangUp, printProblem, printWarnings, type Program } from "./program.ts";

/** The keys that SIGHUP changes; of a store's URL, its password. */
const SECRETS = ["KV_TOKEN", "KV_READ_TOKEN", "SECRET_KEY", "SECRET_KEY_FALLBACKS"];
/** How long a store may take until it is available, in milliseconds. */
const SECOND_TRY = 2000;
/**
 * The most reads without a response: more would only wait longer, all of them. Health checks do not
 * count, so that they keep no page from its visitor. Nor do others, since their clients decide how
 * long they take; the bytes of their bodies are limited.
 */
export const MAX_WAITING = 1000;

/** The server of one configuration. */
export interface Served {
  fetch: Deno.ServeHandler;
  /** What it serves, for the line with the address. */
  about: string;
  /** Ends the responses that would go on forever. */
  onStop?: () => void;
}

export interface Service {
  /** Where it listens without `PORT`. */
  port: number;
  /** The path and query of the health check, which is never refused. */
  health: string;
  /** The paths that a line about a request may show: by default `/`. */
  logPaths?: string[];
  /** Makes the server. Its store, if any, is opened by `open`, and closed when it is not needed. */
  make(config: Config, open: typeof openStore): Promise<Served>;
}

interface Opened {
  url: string;
  token: string | undefined;
  store: Store;
  /** Whether it has a password or a token that could change. Any other is never opened again. */
  isRemote: boolean;
  /** How many requests may use it; not counted unless it is remote. */
  requests: number;
}

/**
 * Serves until a signal stops the program.
 *
 * On SIGHUP the configuration is read again, and new requests are answered by it. A request under way
 * is answered as it began; a stream of changes ends, and its client resumes it.
 *
 * @throws {ConfigError} If the configuration is invalid, or the server cannot listen
 */
export async function serve(program: Program, service: Service): Promise<void> {
  const { port, health, logPaths = ["/"], make } = service;
  let config = readConfig();
  let current = await begin(config);
  let reloading = Promise.resolve();
  /** Requests without a response. Of the reads, the bodies do not matter. */
  let reads = 0, others = 0;
  let isStopping = false;
  const answered = Promise.withResolvers<void>();
  onHangUp(() => reloading = reloading.then(reload));
  if (current.opened) tellIfUnavailable(current.opened).catch(console.error);
  await listen(program, config.LOG === "events" ? handle : logRequests(handle, logPaths), {
    hostname: config.HOST,
    port: config.PORT ?? port,
    about: current.about,
    onStop: async () => {
      isStopping = true;
      current.onStop?.();
      if (others > 0) await answered.promise;
    },
  });
  await reloading;
  await current.opened?.store.close();

  /** Opens a store only if the one in use has another address. */
  async function begin(config: Config, before?: Opened) {
    let opened: Opened | undefined;
    const served = await make(config, async (url, { token } = {}) => {
      const isSame = before?.url === url && (before.token === token || !before.isRemote);
      if (isSame) opened = before;
      else {
        const store = await openStore(url, { token });
        opened = { url, token, store, isRemote: isRemote(url), requests: 0 };
      }
      return opened.store;
    });
    return { ...served, opened: opened as Opened | undefined };
  }

  async function handle(request: Request, info: Deno.ServeHandlerInfo): Promise<Response> {
    const { opened, fetch } = current;
    if (isStopping) return refusal("The server is stopping: try again");
    const isRead = ["GET", "HEAD"].includes(request.method) && !asksFor(health, request);
    if (isRead && reads >= MAX_WAITING) {
      return refusal("Too many requests are under way: try again");
    }
    if (opened?.isRemote) {
      opened.requests++;
      const end = () => {
        opened.requests--;
        if (opened !== current.opened) closeUnused(opened).catch(console.error);
      };
      info.completed.then(end, end);
    }
    if (isRead) reads++;
    else others++;
    try {
      const response = await fetch(request, info as Deno.ServeHandlerInfo<Deno.NetAddr>);
      return request.method === "HEAD" ? withoutLength(response) : response;
    } finally {
      if (isRead) reads--;
      else if (--others === 0 && isStopping) answered.resolve();
    }
  }

  /** Logs why a store is unavailable, also on a second try: both servers may have just started. */
  async function tellIfUnavailable(opened: Opened): Promise<void> {
    for (const isLast of [false, true]) {
      try {
        await opened.store.get("health");
        return;
      } catch (error) {
        if (isStopping || opened !== current.opened) return;
        if (!(error instanceof StoreUnavailable)) throw error;
        if (isLast) {
          console.error(`${withoutPassword(opened.url)} is unavailable: ${error.message}`);
        }
      }
      await delay(SECOND_TRY, undefined, { ref: false });
    }
  }

  async function closeUnused(opened: Opened): Promise<void> {
    if (opened !== current.opened && opened.requests === 0) await opened.store.close();
  }

  async function reload(): Promise<void> {
    try {
      const { now, changed, later } = readAgain(config);
      for (const key of later) console.warn(`${key} has changed: restart to apply that`);
      console.log(`configuration read again: ${changed.join(", ") || "no key"} changed`);
      if (changed.length === 0) return;
      const before = current;
      current = await begin(now, before.opened);
      printWarnings(program.warnings);
      if (config.KV_TOKEN.length > 0 && now.KV_TOKEN.length === 0) {
        console.warn("KV_TOKEN is not set any more");
      }
      config = now;
      before.onStop?.();
      if (before.opened) await closeUnused(before.opened);
    } catch (error) {
      printProblem(error);
      // Not as an error: those are counted, and a count comes seconds later, after another reload.
      console.warn("the previous configuration stays in use");
    }
  }
}

/**
 * Hono answers HEAD with no body at all, for which Deno would send a Content-Length of 0. That has to
 * be the length of GET, or absent (RFC 9110, section 8.6), as it is for an empty stream.
 */
function withoutLength(response: Response): Response {
  const isKnown = response.headers.has("Content-Length") || response.body !== null;
  if (isKnown || [204, 205, 304].includes(response.status)) return response;
  return new Response(new ReadableStream({ start: (stream) => stream.close() }), response);
}

function asksFor(target: string, { url }: Request): boolean {
  if (!url.includes(target)) return false; // as most, without splitting each URL twice
  const { path, search } = splitUrl(url);
  return target === (search === null ? `/${path}` : `/${path}?${search}`);
}

function refusal(detail: string): Response {
  const problem = { title: "Service Unavailable", status: 503, detail, outcome: "unchanged" };
  const type = "application/problem+json";
  const headers = { ...GUARD_HEADERS, "Content-Type": type, "Retry-After": "1" };
  return new Response(JSON.stringify(problem), { status: 503, headers });
}

/** Reads the configuration again. Returns which keys have changed, and which need a restart. */
function readAgain(before: Config): { now: Config; changed: string[]; later: string[] } {
  const after = readConfig();
  const text = (config: Config, key: string) => JSON.stringify(config[key as keyof Config]);
  const differing = Object.keys({ ...before, ...after })
    .filter((key) => text(before, key) !== text(after, key));
  const changed = differing.filter((key) =>
    SECRETS.includes(key) ||
    withoutPassword(text(before, key)) === withoutPassword(text(after, key))
  );
  const values = changed.map((key) => [key, after[key as keyof Config]]);
  const later = differing.filter((key) => !changed.includes(key));
  return { now: { ...before, ...Object.fromEntries(values) }, changed, later };
}
