/**
 * What the servers print: events, each with the program's name first. `LOG=requests` adds the time,
 * and a line for each request; `LOG=json` prints all of it as JSON lines.
 */
import { unref } from "../stores/timers.ts";
import { splitUrl } from "./guards.ts";

/** The values of `LOG`: what is printed, and in which format. */
export const LOG_MODES = ["events", "requests", "json"] as const;

/** Characters that control a terminal, end a line, or change the direction of text. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/** Escapes unprintable characters as JSON does: others may have put them into a key or a message. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (it) => `\\u${it.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A request that was answered: without its query, and perhaps without its path. */
class RequestEvent {
  constructor(
    readonly method: string,
    readonly path: string,
    readonly status: number,
    /** Milliseconds until the response began. */
    readonly ms: number,
  ) {}

  toString(): string {
    return `${this.method} ${this.path} ${this.status} ${this.ms} ms`;
  }
}

/** How often a repeated error is printed, in milliseconds. */
const REPEAT_INTERVAL = 5000;
/** The most different errors that are counted; any other is printed each time. */
const MAX_REPEATS = 100;

/**
 * Prints a repeated error, such as that of each request while a store is down, when it begins; then
 * how often it occurred in each interval; and when it has stopped.
 */
export class Repeats {
  /** By the error's text. */
  readonly #counters = new Map<string, () => void>();

  constructor(readonly interval = REPEAT_INTERVAL) {}

  /** Counts or prints one occurrence. */
  add(text: string, print: (text: string) => void): void {
    const count = this.#counters.get(text);
    if (count !== undefined) return count();
    print(text);
    if (this.#counters.size === MAX_REPEATS) return;
    let recent = 0;
    let all = 1;
    this.#counters.set(text, () => {
      recent++;
      all++;
    });
    const seconds = `${this.interval / 1000} s`;
    const timer = unref(setInterval(() => {
      if (recent > 0) {
        print(`${recent.toLocaleString("en")} more in ${seconds}: ${text}`);
        recent = 0;
        return;
      }
      if (all > 1) print(`none for ${seconds}, ${all.toLocaleString("en")} in all: ${text}`);
      this.#counters.delete(text);
      clearInterval(timer);
    }, this.interval));
  }
}

/**
 * Makes `console` print log lines, for the rest of the process. The lines of a message after its
 * first one, as of a stack trace, are indented, so that no message can imitate another. An error that
 * occurs repeatedly is counted instead of printed. Every line begins with `name`, in place of `prefix`.
 */
export function logAs(name: string, prefix: string, mode: typeof LOG_MODES[number]): void {
  const repeats = new Repeats();
  for (const method of ["log", "info", "warn", "error"] as const) {
    const write = console[method].bind(console);
    const level = method === "log" ? "info" : method;
    const print = (message: string, event?: unknown) => {
      const time = new Date().toISOString();
      const fields = event instanceof RequestEvent ? event : { message };
      const begin = mode === "requests" ? `${name}: ${time}` : `${name}:`;
      const line = mode === "json"
        ? printable(JSON.stringify({ time, level, program: name, ...fields }))
        : `${begin} ${message.split("\n").map(printable).join("\n    ")}`;
      try {
        write(line);
      } catch {
        // Without room for the log, a line is lost: no request, and not the server.
      }
    };
    console[method] = (...values: unknown[]) => {
      const text = values.map((it) =>
        typeof it === "string" || it instanceof RequestEvent ? `${it}` : Deno.inspect(it)
      ).join(" ");
      const message = text.startsWith(prefix) ? text.slice(prefix.length) : text;
      if (method === "error") repeats.add(message, print);
      else print(message, values[0]);
    };
  }
}

/** Logs each request. A path that is not one of `paths` may hold a key, and is printed as `/…`. */
export function logRequests(handler: Deno.ServeHandler, paths: string[]): Deno.ServeHandler {
  return async function logged(request, info) {
    const start = performance.now();
    const response = await handler(request, info);
    // Not parsed: the Host may be malformed.
    const pathname = `/${splitUrl(request.url).path}`;
    const path = paths.includes(pathname) ? pathname : "/…";
    const ms = Math.round(performance.now() - start);
    console.info(new RequestEvent(request.method, path, response.status, ms));
    return response;
  };
}
