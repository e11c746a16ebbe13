/** @jsxImportSource hono/jsx */
/** The key-value service's page: what it holds, as it changes. */
import dom from "./explorer/dom.js" with { type: "text" };
import editor from "./explorer/editor.js" with { type: "text" };
import main from "./explorer/main.js" with { type: "text" };
import style from "./explorer/page.css" with { type: "text" };
import row from "./explorer/row.js" with { type: "text" };
import service from "./explorer/service.js" with { type: "text" };
import { Layout, pageHeaders } from "../server/layout.tsx";

/**
 * The page's modules as one script, which can stand in the page, and needs no path that could be a
 * key: each after those that it imports, without `import` and `export`. Their names must not clash.
 */
const SCRIPT = [dom, service, row, editor, main]
  .map((module) => module.replace(/^import [^;]*;\n/gm, "").replace(/^export /gm, ""))
  .join("\n");

/** The headers of {@linkcode EXPLORER}: only its own script runs, and calls only its own origin. */
export const EXPLORER_HEADERS = await pageHeaders({ style, script: SCRIPT });

/** The page's HTML: every entry, with its value and the time left. The script fills it. */
export const EXPLORER = String(Explorer());

function Explorer() {
  return (
    <Layout title="Key-value store" style={style} script={SCRIPT} mainId="explorer">
      <header>
        <div class="name">
          <h1>Key-value store</h1>
          <span id="live" role="status">Connecting</span>
        </div>
        <label class="find">
          Prefix <input id="filter" type="search" autocomplete="off" spellcheck={false} />
        </label>
        <button type="button" class="add">Add entry</button>
      </header>
      <noscript>
        <p>
          This page needs JavaScript. Without it, use any HTTP client: a GET of this address lists
          the keys.
        </p>
      </noscript>
      <Pages label="Pages" />
      <Entries />
      <Pages label="Pages, below the list" />
      <div id="empty" class="notice" hidden>
        <p>This store is empty. Add an entry here, or with HTTPie:</p>
        <p>
          <code id="command"></code>
        </p>
      </div>
      <div id="nothing-found" class="notice" hidden>
        <p>No key begins with this prefix.</p>
        <button type="button" id="clear-filter" class="plain">Show all keys</button>
      </div>
      <p id="status" role="status"></p>
      <Editor />
    </Layout>
  );
}

function Pages({ label }: { label: string }) {
  return (
    <nav aria-label={label} hidden>
      <span class="range"></span>
      <button type="button" class="previous plain">Previous</button>
      <button type="button" class="next plain">Next</button>
    </nav>
  );
}

/** The roles are a table's own, which browsers forget where the style shows rows as blocks. */
function Entries() {
  return (
    <>
      <table role="table">
        <colgroup>
          <col class="key" />
          <col />
          <col class="expires" />
          <col class="actions" />
        </colgroup>
        <thead>
          <tr>
            <th scope="col">Key</th>
            <th scope="col">Value</th>
            <th scope="col">Expires</th>
            <th scope="col">Actions</th>
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
            <details>
              <summary>
                <bdi></bdi>
              </summary>
              <pre></pre>
            </details>
          </td>
          <td role="cell" class="expires"></td>
          <td role="cell">
            <button type="button" class="copy">Copy</button>
            <button type="button" class="edit">Edit</button>
            <button type="button" class="delete">Delete</button>
          </td>
        </tr>
      </template>
    </>
  );
}

function Editor() {
  return (
    <dialog id="editor" aria-labelledby="edit-title">
      <form id="edit-form">
        <h2 id="edit-title">Add an entry</h2>
        <label for="edit-key">Key</label>
        <input id="edit-key" required maxlength={1024} autocomplete="off" spellcheck={false} />
        <label for="edit-value">
          Value <span class="hint">in JSON: "text", 1.50, true, {"{"}"count": 1{"}"}</span>
        </label>
        <textarea id="edit-value" required rows={6} spellcheck={false}></textarea>
        <label for="edit-ttl">Expires in seconds</label>
        <input id="edit-ttl" type="number" min={1} step={1} aria-describedby="edit-ttl-hint" />
        <p id="edit-ttl-hint" class="hint"></p>
        <p id="edit-problem" role="alert"></p>
        <div id="edit-conflict" role="alert" hidden>
          <p id="edit-conflict-text"></p>
          <pre id="edit-current"></pre>
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
