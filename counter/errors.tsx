/** @jsxImportSource hono/jsx */
/** The counter's answers to what goes wrong: pages that say what to do. */
import type { Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { methodsOf } from "../server/guards.ts";
import { Layout, template } from "../server/layout.tsx";
import { SessionDataInvalid, SessionUnavailable } from "../sessions.ts";
import { StoreFull } from "../stores/store.ts";
import style from "./page.css" with { type: "text" };
import { COUNTER_HEADERS, ResetForm } from "./page.tsx";

/** How soon a page that says "Temporarily unavailable" is loaded again, in seconds. */
const RETRY_SECONDS = 5;
const TRY_AGAIN = { href: "./", action: "Try again" };

export function notFound(c: Context, app: Pick<Hono, "routes">): Response {
  const allowed = methodsOf(app, c.req.path);
  const href = "../".repeat(c.req.path.split("/").slice(2).length) || "./";
  const title = allowed ? "Not allowed" : "Not found";
  const message = allowed
    ? `Cannot ${c.req.method} here: expected ${allowed}.`
    : "There is no page at this address.";
  const html = errorPage({ title, message, href, action: "To the counter" });
  const headers = { ...COUNTER_HEADERS, ...allowed && { Allow: allowed } };
  return c.body(html, allowed ? 405 : 404, headers);
}

export function failed(error: Error, c: Context): Response {
  if (error instanceof SessionUnavailable) return unavailable(error, c);
  if (error instanceof SessionDataInvalid) {
    console.error(`counter: ${error.message}`);
    return c.body(UNREADABLE_PAGE, 500, COUNTER_HEADERS);
  }
  const status = error instanceof HTTPException ? error.status : 500;
  if (status === 500) console.error(error);
  const message = status === 500 ? "An internal error. It was logged." : `${error.message}.`;
  const html = errorPage({ title: "That failed", message, ...TRY_AGAIN });
  return c.body(html, status, COUNTER_HEADERS);
}

function unavailable({ cause }: SessionUnavailable, c: Context): Response {
  console.error(`counter: ${(cause as Error).message}`);
  const title = "Temporarily unavailable";
  const problem = cause instanceof StoreFull ? "is full" : "is unavailable";
  const headers = { ...COUNTER_HEADERS, "Retry-After": "1" };
  if (c.req.method === "POST") {
    const message = `Your session was not reset: the store that keeps it ${problem}.`;
    return c.body(
      errorPage({ title, message, href: "./", action: "To the counter" }),
      503,
      headers,
    );
  }
  const message = `Your count is safe, but the store that keeps it ${problem}. ` +
    `This page tries again every ${RETRY_SECONDS} seconds.`;
  // For browsers, without a script; relative, for a path prefix.
  const refresh = { "Refresh": `${RETRY_SECONDS}; url=./` };
  return c.body(errorPage({ title, message, ...TRY_AGAIN }), 503, { ...headers, ...refresh });
}

const errorPage = template(
  ["title", "message", "href", "action"],
  ({ title, message, href, action }) => (
    <Layout title={title} style={style}>
      <h1>{title}</h1>
      <p role="alert">{message}</p>
      <a class="button" href={href}>{action}</a>
    </Layout>
  ),
);

/** The page of a visitor whose session cannot be read: loading it again would fail again. */
const UNREADABLE_PAGE = template([], () => (
  <Layout title="That failed" style={style}>
    <h1>That failed</h1>
    <p role="alert">What is in your session is not a count, so it cannot go on.</p>
    <ResetForm action="Begin a new session" />
  </Layout>
))({});
