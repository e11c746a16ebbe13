/** @jsxImportSource hono/jsx */
/**
 * The counter's pages. Each is rendered once, when the server starts; a request only puts its texts
 * between the constant parts. Rendering would take 30 µs a page, this takes 1.
 */
import { Buffer } from "node:buffer";
import { hostOf, isKnownHost, isLoopback } from "../server/guards.ts";
import { Layout, pageHeaders, template } from "../server/layout.tsx";
import type { SessionStore } from "../sessions.ts";
import style from "./page.css" with { type: "text" };

export const COUNTER_HEADERS = {
  "Content-Type": "text/html; charset=UTF-8",
  ...pageHeaders({ style }),
};

/** What a response did, which the page shows. */
interface Load {
  data: { count: number };
  setCookie: string;
  request: Request;
}

/** What the page says of a cookie that holds the session. */
const SIGNED = {
  keptIn: "a signed cookie",
  marked: "The marked part is the session, in base64",
  note: "Anyone can read it. Nobody can change it: its signature is at the end.",
  isNew: "This is the first load of a new session, with a new cookie.",
  changed: ", so the cookie is a new one.",
};
/** What it says of one that hides the session: the page does not show it either. */
const ENCRYPTED = {
  ...SIGNED,
  keptIn: "an encrypted cookie",
  marked: "The marked part is the session, encrypted: this page cannot show what is in it",
  note: "Nobody without the server's key can read or change it.",
};
/** What it says of a cookie that holds an id. */
const ID = {
  keptIn: "a key-value store, under an id in the cookie",
  marked: "The marked part is the session's id, for which the store keeps",
  note: undefined,
  isNew: "This is the first load of a new session, with a new id.",
  changed: " in the store. The cookie is the same.",
};

/** Returns what makes the HTML of a load, with a link to a store on the browser's own machine. */
export function counterPage(
  { store: { dataInCookie }, trustProxy = false }: { store: SessionStore; trustProxy?: boolean },
  kvUrl = "",
): (load: Load) => string {
  const words = dataInCookie === "encrypted" ? ENCRYPTED : dataInCookie ? SIGNED : ID;
  const link = dataInCookie ? undefined : linkTo(kvUrl);
  const [page, pageWithLink] = [render(words), render(words, link)];
  return ({ data, setCookie, request }) => {
    const { count } = data;
    // The session or its id, and after it the signature.
    const [, start = "", marked = "", end = ""] = /^([^=]*=)([^.;]*)(.*)$/.exec(setCookie) ?? [];
    const holds = dataInCookie === true
      ? Buffer.from(marked, "base64url").toString()
      : JSON.stringify(data);
    return (link && isKnownHost(hostOf(request, trustProxy), "localhost") ? pageWithLink : page)({
      count: String(count),
      start,
      marked,
      end,
      holds,
      change: count === 1
        ? words.isNew
        : `The count went from ${count - 1} to ${count}${words.changed}`,
    });
  };
}

/** The page of a key-value service on this machine, without the password that its URL may have. */
function linkTo(kvUrl: string): string | undefined {
  const url = URL.parse(kvUrl);
  if (!url || !/^https?:$/.test(url.protocol) || !isLoopback(url.hostname)) return undefined;
  return url.origin + url.pathname + url.search;
}

function render(words: typeof SIGNED | typeof ID, link?: string) {
  return template(
    ["count", "start", "marked", "end", "holds", "change"],
    ({ count, start, marked, end, holds, change }) => (
      <Layout title={`Count: ${count}`} style={style} mainId="counter">
        <h1>Count: {count}</h1>
        <p>Kept in {words.keptIn}</p>
        <div class="actions">
          <a class="button" href="./">Count again</a>
          <ResetForm action="Reset" />
        </div>
        <section aria-labelledby="response">
          <h2 id="response">What this response did</h2>
          <dl>
            <dt>It sent this header, which the developer tools show under Network</dt>
            <dd>
              <code>
                Set-Cookie: {start}
                <mark>{marked}</mark>
                {end}
              </code>
            </dd>
            <dt>{words.marked}</dt>
            {words !== ENCRYPTED && (
              <dd>
                <code>{holds}</code>
              </dd>
            )}
            {words.note && <dd>{words.note}</dd>}
            {link && (
              <dd>
                <a href={link}>See what the store holds</a>
              </dd>
            )}
            <dt>Since your last load</dt>
            <dd>{change}</dd>
          </dl>
        </section>
      </Layout>
    ),
  );
}

export function ResetForm({ action }: { action: string }) {
  return (
    <form method="post" action="reset">
      <button type="submit" class="outlined">{action}</button>
    </form>
  );
}
