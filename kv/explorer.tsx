/** @jsxImportSource hono/jsx */
/** The key-value service's page: what it holds, as it changes. */
import client from "./explorer_client.js" with { type: "text" };
import { Layout, pageHeaders } from "../server/layout.tsx";

const STYLE = `
  body { display: block; }
  main { width: auto; max-width: 70rem; margin: 2rem auto; text-align: left; }
  h1 { font-size: 1.75rem; }
  header, nav { display: flex; flex-wrap: wrap; gap: .75rem 1rem; align-items: center; }
  header h1 { margin: 0 auto 0 0; }
  input { font: inherit; padding: .4rem .75rem; border-radius: .5rem; background: transparent;
    border: 1px solid light-dark(#767b85, #8a909c); color: inherit; }
  table { width: 100%; margin: 1.5rem 0; border-collapse: collapse; table-layout: fixed; }
  th, td { padding: .5rem .75rem .5rem 0; text-align: left; vertical-align: top; font-weight: normal;
    border-bottom: 1px solid light-dark(#ddd, #3a3f48); overflow-wrap: anywhere; }
  thead th { font-weight: 600; }
  .key, .value { font: .9rem/1.6 ui-monospace, monospace; white-space: pre-wrap; }
  col.key { width: 30%; } col.expires { width: 7rem; } col.actions { width: 11rem; }
  button { margin: 0; padding: .15rem .8rem; font-size: .9rem; color: var(--accent);
    background: transparent; border: 1px solid; }
  td button { margin: 0 .25rem .25rem 0; }
  button:hover { background: light-dark(#0001, #fff2); }
  button:disabled { color: light-dark(#60656e, #9aa0aa); cursor: default; }
  button.delete { color: light-dark(#b3261e, #f2b8b5); }
  #live { font-size: .9rem; }
  #live::before { content: "●"; margin-right: .35rem; color: light-dark(#946200, #ffd27a); }
  #live.on::before { color: light-dark(#1a7f37, #57d37a); }
  #status { min-height: 1.5em; }
  @media (max-width: 40rem) {
    main { margin: 0; padding: 1rem; border-radius: 0; width: auto; }
    thead, col { display: none; }
    tr { display: block; padding: .5rem 0; border-bottom: 1px solid light-dark(#ddd, #3a3f48); }
    tbody :is(th, td) { display: block; border: 0; padding: .1rem 0; }
    .expires::before { content: "expires: "; }
  }
`;

/** The headers of {@linkcode ExplorerPage}: it runs its own script alone, and calls its own origin. */
export const EXPLORER_HEADERS = await pageHeaders({ style: STYLE, script: client });

/** Every entry, with its value and the time that it has left. The script fills it. */
export function ExplorerPage() {
  return (
    <Layout title="Key-value store" style={STYLE} script={client}>
      <header>
        <h1>Key-value store</h1>
        <span id="live" role="status">Connecting</span>
        <label>
          Prefix <input id="filter" type="search" autocomplete="off" spellcheck={false} />
        </label>
      </header>
      <noscript>
        <p>This page needs JavaScript. Without it, any HTTP client that asks here gets the keys.</p>
      </noscript>
      <table>
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
        <tbody id="entries"></tbody>
      </table>
      <p id="empty" hidden>There is nothing under this prefix.</p>
      <nav aria-label="Pages">
        <button type="button" id="previous" disabled>Previous</button>
        <span id="page">Page 1</span>
        <button type="button" id="next" disabled>Next</button>
      </nav>
      <p id="status" role="status"></p>
      <template id="entry">
        <tr>
          <th scope="row">
            <bdi class="key"></bdi>
          </th>
          <td>
            <bdi class="value"></bdi>
          </td>
          <td class="expires"></td>
          <td>
            <button type="button" class="copy">Copy</button>
            <button type="button" class="delete">Delete</button>
          </td>
        </tr>
      </template>
    </Layout>
  );
}
