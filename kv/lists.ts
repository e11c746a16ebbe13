/** The keys of a store, as JSON. */
import { MAX_PAGE, type Page, type Store } from "../stores/store.ts";
import { type Answer, JSON_HEADERS, jsonAnswer, type KvContext } from "./answers.ts";
import { pause } from "./pace.ts";
import { QUERIES, readQuery } from "./requests.ts";

const HEADERS = { ...JSON_HEADERS, "Vary": "Accept" };

/** The longest `Link`, in bytes: proxies and clients limit the headers of a response. */
const MAX_LINK = 7 * 1024;

/** `GET /` for JSON: all keys under a prefix, or a page of them if the query asks for one. */
export async function list(c: KvContext): Promise<Answer> {
  const { prefix, limit, after } = readQuery(c, QUERIES.list);
  const { store } = c.get("access");
  const page = await store.list(prefix, { limit, after });
  if (limit === undefined && after === undefined) {
    if (page.next === null) return jsonAnswer({ keys: page.keys }, HEADERS);
    return { status: 200, headers: HEADERS, body: allKeys(store, prefix, page) };
  }
  const headers: Record<string, string> = { ...HEADERS };
  if (page.next !== null) {
    const next = new URLSearchParams({ prefix, limit: `${limit ?? MAX_PAGE}`, after: page.next });
    // Relative: a proxy may serve this under a path of its own.
    const link = `<?${next}>; rel="next"`;
    if (link.length <= MAX_LINK) headers["Link"] = link;
  }
  const total = prefix === "" ? await store.count?.() : undefined;
  if (total !== undefined) headers["X-Total-Count"] = String(total);
  return jsonAnswer(page, headers);
}

/** One JSON text, page by page. */
async function* allKeys(store: Store, prefix: string, first: Page): AsyncGenerator<string> {
  yield `{"keys":[${first.keys.map((key) => JSON.stringify(key)).join()}`;
  for (let after = first.next; after !== null;) {
    await pause();
    const { keys, next } = await store.list(prefix, { after });
    if (keys.length > 0) yield `,${keys.map((key) => JSON.stringify(key)).join()}`;
    after = next;
  }
  yield "]}";
}
