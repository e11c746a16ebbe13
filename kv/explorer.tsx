/** @jsxImportSource hono/jsx */
/**
 * The key-value service's page: what it holds, as it changes. Without JavaScript, it is a plain list
 * of keys.
 */
import bulk from "./explorer/bulk.js" with { type: "text" };
import dom from "./explorer/dom.js" with { type: "text" };
import editor from "./explorer/editor.js" with { type: "text" };
import json from "./explorer/json.js" with { type: "text" };
import keys from "./explorer/keys.js" with { type: "text" };
import list from "./explorer/list.js" with { type: "text" };
import main from "./explorer/main.js" with { type: "text" };
import style from "./explorer/page.css" with { type: "text" };
import marks from "./explorer/marks.js" with { type: "text" };
import question from "./explorer/question.js" with { type: "text" };
import row from "./explorer/row.js" with { type: "text" };
import search from "./explorer/search.js" with { type: "text" };
import service from "./explorer/service.js" with { type: "text" };
import { Layout, pageHeaders } from "../server/layout.tsx";
import { MAX_KEY_BYTES, MAX_TTL, StoreUnavailable } from "../stores/store.ts";
import type { Page, Store } from "../stores/store.ts";

const TITLE = "Key-value store";
/** How many keys a plain list has at once. */
const PLAIN_PAGE = 100;
/** Stands for the plain list. */
const PLAIN = "\0";

/**
 * The page's modules as one script within the page, since any path could be a key: each after those
 * that it imports, without `import` and `export`. Their names must not clash.
 */
const SCRIPT = [dom, keys, json, question, service, search, marks, editor, row, list, bulk, main]
  .map((module) => module.replace(/^import [^;]*;\n/gm, "").replace(/^export /gm, ""))
  .join("\n");

/** Only its own script runs, and calls only its own origin. */
const HEADERS: Record<string, string> = {
  ...pageHeaders({ style, script: SCRIPT }),
  "Content-Type": "text/html; charset=UTF-8",
  "Cache-Control": "no-store",
  "Vary": "Accept",
};
const [START = "", END = ""] = String(<Explorer />).split(PLAIN);

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

function Explorer() {
  return (
    <Layout title={TITLE} style={style} script={SCRIPT} mainId="explorer">
      <div id="plain">
        <h1>{TITLE}</h1>
        {PLAIN}
      </div>
      <div id="scripted" hidden>
        <header>
          <div class="name">
            <h1>{TITLE}</h1>
            <span id="live" role="status">Connecting</span>
          </div>
          <search>
            <label>
              Prefix <input id="prefix" type="search" autocomplete="off" spellcheck={false} />
            </label>
            <label>
              Contains <input id="contains" type="search" autocomplete="off" spellcheck={false} />
            </label>
          </search>
          <button type="button" id="add">Add entry</button>
        </header>
        <div class="bar">
          <Pages label="Pages" />
          <button type="button" id="clear" class="plain" hidden>Show all</button>
          <div class="tools">
            <span id="whole-prefix" class="hint" hidden>
              To download or delete, clear Contains
            </span>
            <a id="download" class="button plain" download="kv.ndjson">Download</a>
            <button type="button" id="restore" class="plain">Restore</button>
            <button type="button" id="remove" class="plain danger">Delete all</button>
            <input type="file" id="file" accept=".ndjson,.jsonl,.json,.txt" hidden />
          </div>
        </div>
        <Entries />
        <Pages label="Pages, below the list" />
        <div id="empty" class="notice" hidden>
          <p>This store is empty. Add an entry here, or with HTTPie:</p>
          <p>
            <code id="command"></code>
          </p>
        </div>
        <p id="nothing-found" class="notice" hidden>No entry matches.</p>
        <p id="status" role="status"></p>
        <Editor />
        <Question />
      </div>
    </Layout>
  );
}

function Pages({ label }: { label: string }) {
  return (
    <nav aria-label={label}>
      <span class="range"></span>
      <button type="button" class="previous plain" hidden>Previous</button>
      <button type="button" class="next plain" hidden>Next</button>
    </nav>
  );
}

/** The roles are those of a table, which browsers drop if the style lays it out as a grid. */
function Entries() {
  return (
    <>
      <table role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th role="columnheader" scope="col">Key</th>
            <th role="columnheader" scope="col">Value</th>
            <th role="columnheader" scope="col">Expires</th>
            <th role="columnheader" scope="col">Actions</th>
          </tr>
        </thead>
        <tbody id="entries" role="rowgroup"></tbody>
      </table>
      <template id="entry">
        <tr role="row">
          <th scope="row" role="rowheader">
            <bdi class="key"></bdi>
          </th>
          <td role="cell">
            <bdi class="value"></bdi>
          </td>
          <td role="cell" class="expires"></td>
          <td role="cell" class="actions">
            <button type="button" class="copy plain">Copy</button>
            <button type="button" class="edit plain">Edit</button>
            <button type="button" class="delete plain danger">Delete</button>
          </td>
        </tr>
      </template>
    </>
  );
}

function Editor() {
  return (
    <dialog id="editor" aria-labelledby="edit-title edit-key-text">
      <form id="edit-form">
        <h2 id="edit-title">Add an entry</h2>
        <bdi id="edit-key-text" class="key"></bdi>
        <div id="edit-new-key">
          <label for="edit-key">Key</label>
          <textarea id="edit-key" required maxlength={MAX_KEY_BYTES} rows={1} spellcheck={false}>
          </textarea>
        </div>
        <label for="edit-value">
          Value <span class="hint">in JSON: "text", 1.50, true, {"{"}"count": 1{"}"}</span>
        </label>
        <textarea id="edit-value" required rows={6} spellcheck={false}></textarea>
        <label for="edit-ttl">Expires in</label>
        <div class="ttl">
          <input
            id="edit-ttl"
            type="number"
            min={1}
            max={MAX_TTL}
            aria-describedby="edit-ttl-hint"
          />
          <select id="edit-unit" aria-label="Unit">
            <option value="1">seconds</option>
            <option value="60">minutes</option>
            <option value="3600">hours</option>
            <option value="86400">days</option>
          </select>
        </div>
        <p id="edit-ttl-hint" class="hint"></p>
        <p id="edit-problem" role="alert"></p>
        <div id="edit-conflict" role="alert" hidden>
          <p id="edit-conflict-text"></p>
          <pre id="edit-current" tabindex={0}></pre>
          <button type="button" id="edit-use-current" class="plain">Edit this value instead</button>
        </div>
        <div class="buttons">
          <button type="button" id="edit-cancel" class="plain">Cancel</button>
          <button type="submit" id="edit-save">Save</button>
        </div>
      </form>
    </dialog>
  );
}

function Question() {
  return (
    <dialog id="question" role="alertdialog" aria-labelledby="question-text">
      <form method="dialog">
        <p id="question-text"></p>
        <div class="buttons">
          <button type="submit" value="no" class="plain">Cancel</button>
          <button type="submit" value="yes" id="question-yes" class="danger"></button>
        </div>
      </form>
    </dialog>
  );
}
