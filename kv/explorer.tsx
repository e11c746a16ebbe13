/** @jsxImportSource hono/jsx */
/**
 * The key-value service's page: what it holds, as it changes. Without JavaScript, it is a plain list
 * of keys.
 */
import bulk from "./explorer/bulk.js" with { type: "text" };
import dom from "./explorer/dom.js" with { type: "text" };
import editor from "./explorer/editor.js" with { type: "text" };
import json from "./explorer/json.js" with { type: "text" };
import list from "./explorer/list.js" with { type: "text" };
import main from "./explorer/main.js" with { type: "text" };
import marks from "./explorer/marks.js" with { type: "text" };
import style from "./explorer/page.css" with { type: "text" };
import html from "./explorer/page.html" with { type: "text" };
import row from "./explorer/row.js" with { type: "text" };
import search from "./explorer/search.js" with { type: "text" };
import service from "./explorer/service.js" with { type: "text" };
import texts from "./explorer/texts.js" with { type: "text" };
import { raw } from "hono/html";
import { Layout, pageHeaders } from "../server/layout.tsx";
import { MAX_KEY_BYTES, MAX_TTL, StoreUnavailable } from "../stores/store.ts";
import type { Page, Store } from "../stores/store.ts";

/** How many keys a plain list has at once. */
const PLAIN_PAGE = 100;

/**
 * The page's modules as one script within the page, since any path could be a key: each after those
 * that it imports, without `import` and `export`. Their names must not clash.
 */
const SCRIPT = [dom, texts, json, service, search, marks, editor, row, list, bulk, main]
  .map((module) => module.replace(/^import [^;]*;\n/gm, "").replace(/^export /gm, ""))
  .join("\n");

/** Only its own script runs, and calls only its own origin. */
const HEADERS: Record<string, string> = {
  ...pageHeaders({ style, script: SCRIPT }),
  "Content-Type": "text/html; charset=UTF-8",
  "Cache-Control": "no-store",
  "Vary": "Accept",
};
/** Without the line breaks between tags, which would be part of the texts. */
const MAIN = html.replace(/>\n\s*</g, "><")
  .replace("MAX_KEY_BYTES", `${MAX_KEY_BYTES}`)
  .replace("MAX_TTL", `${MAX_TTL}`);
const PAGE = (
  <Layout title="Key-value store" style={style} script={SCRIPT} mainId="explorer">
    {raw(MAIN)}
  </Layout>
);
const [START = "", END = ""] = String(PAGE).split("<!-- The list without JavaScript. -->");

/**
 * Returns the page, also while the store is unavailable: its script tries again.
 *
 * @param store Lists the keys for browsers without JavaScript
 * @param search The request's query: a `prefix` and, from the link to the next page, `after`
 */
export async function explorerPage(store: Store, search: string | null) {
  const query = new URLSearchParams(search ?? "");
  const prefix = query.get("prefix") ?? "";
  const after = query.get("after") ?? undefined;
  try {
    const page = await store.list(prefix, { after, limit: PLAIN_PAGE });
    const body = START + String(<PlainList prefix={prefix} page={page} />) + END;
    return { status: 200, headers: HEADERS, body };
  } catch (error) {
    if (!(error instanceof StoreUnavailable)) throw error;
    const body = `${START}<p>The store is unavailable.</p>${END}`;
    return { status: 503, headers: { ...HEADERS, "Retry-After": "1" }, body };
  }
}

function PlainList({ prefix, page: { keys, next } }: { prefix: string; page: Page }) {
  return (
    <>
      {/[\r\n]/.test(prefix)
        // A field would drop the line break.
        ? <p>Prefix: {JSON.stringify(prefix)}</p>
        : (
          <form>
            <label>
              Prefix <input type="search" name="prefix" value={prefix} />
            </label>
            <button type="submit" class="plain">List</button>
          </form>
        )}
      {keys.length === 0 && <p>There is no entry.</p>}
      <ul>
        {keys.map((key) => (
          <li>
            <a class="key" href={encodeURIComponent(key)}>{key}</a>
          </li>
        ))}
      </ul>
      {next !== null && <a href={`?${new URLSearchParams({ prefix, after: next })}`}>Next page</a>}
    </>
  );
}
