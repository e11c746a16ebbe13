/** @jsxImportSource hono/jsx */
/**
 * The counter's pages. Each is rendered once, when the server starts; a request only puts its texts
 * between the constant parts. Rendering would take 30 µs a page, this takes 1.
 */
import { Buffer } from "node:buffer";
import { Layout, pageHeaders, template } from "../server/layout.tsx";
import style from "./page.css" with { type: "text" };

/** The headers of the counter's pages. */
export const COUNTER_HEADERS = {
  "Content-Type": "text/html; charset=UTF-8",
  ...await pageHeaders({ style }),
};

/** What a response did, for those who look at its headers. */
export interface Load {
  count: number;
  /** The session's data. */
  data: object;
  /** The response's `Set-Cookie`. */
  setCookie: string;
}

/** What a page says of its server. */
export interface CounterPageOptions {
  /** Where the count is kept, as in "a signed cookie". */
  keptIn: string;
  /** The address of the page that shows what the store holds. */
  storePage?: string | undefined;
}

const TEXTS = ["count", "start", "marked", "end", "holds", "change"] as const;
type Texts = Record<typeof TEXTS[number], string>;

/**
 * Returns what makes the HTML of a load. It tells a cookie with the session in it from one with an
 * id by its layout, `payload.timestamp.signature`.
 */
export function counterPage(options: CounterPageOptions): (load: Load) => string {
  const signedPage = template(TEXTS, (texts) => (
    <CounterPage {...options} texts={texts}>
      <dt>The marked part is the session, in base64</dt>
      <dd>
        <code>{texts.holds}</code>
      </dd>
      <dd>Anyone can read it. Nobody can change it: its signature is at the end.</dd>
    </CounterPage>
  ));
  const idPage = template(TEXTS, (texts) => (
    <CounterPage {...options} texts={texts}>
      <dt>The marked part is the session's id, for which the store keeps</dt>
      <dd>
        <code>{texts.holds}</code>
      </dd>
      {options.storePage && (
        <dd>
          <a href={options.storePage}>See what the store holds</a>
        </dd>
      )}
    </CounterPage>
  ));
  return ({ count, data, setCookie }) => {
    const [, start = "", marked = "", signature = "", attributes = ""] =
      /^([^=]*=)([^.;]*)([^;]*)(.*)$/.exec(setCookie) ?? [];
    const isSigned = signature !== "";
    const counted = `The count went from ${count - 1} to ${count}`;
    return (isSigned ? signedPage : idPage)({
      count: String(count),
      start,
      marked,
      end: signature + attributes,
      holds: isSigned ? Buffer.from(marked, "base64url").toString() : JSON.stringify(data),
      change: count === 1
        ? `This is the first load of a new session, with a new ${isSigned ? "cookie" : "id"}.`
        : isSigned
        ? `${counted}, so the cookie is a new one.`
        : `${counted} in the store. The cookie is the same.`,
    });
  };
}

function CounterPage(
  { texts, keptIn, children }: CounterPageOptions & { texts: Texts; children: unknown },
) {
  return (
    <Layout title={`Count: ${texts.count}`} style={style} mainId="counter">
      <h1>Count: {texts.count}</h1>
      <p>Kept in {keptIn}</p>
      <div class="actions">
        <a class="button" href="./">Count again</a>
        <form method="post" action="reset">
          <button type="submit" class="outlined">Reset</button>
        </form>
      </div>
      <section aria-labelledby="response">
        <h2 id="response">What this response did</h2>
        <dl>
          <dt>It sent this header, which the developer tools show under Network</dt>
          <dd>
            <code>
              Set-Cookie: {texts.start}
              <mark>{texts.marked}</mark>
              {texts.end}
            </code>
          </dd>
          {children}
          <dt>Since your last load</dt>
          <dd>{texts.change}</dd>
        </dl>
      </section>
    </Layout>
  );
}

/** Returns the HTML of a page that says what went wrong, and what to do. */
export const errorPage = template(
  ["title", "message", "href", "action"],
  ({ title, message, href, action }) => (
    <Layout title={title} style={style}>
      <h1>{title}</h1>
      <p role="alert">{message}</p>
      <a class="button" href={href}>{action}</a>
    </Layout>
  ),
);
