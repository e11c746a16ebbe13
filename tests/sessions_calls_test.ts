/** Random calls in middleware, handlers, onError and later, beside a plain model of the answers. */
import { assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { Hono, type MiddlewareHandler } from "hono";
import { type Session, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { scoped } from "./helpers/scoped.ts";
import { Browser, Counted, KINDS, sessionStore } from "./helpers/session_app.ts";

const call = fc.constantFrom("read", "count", "count", "same", "invalid", "rotate", "destroy");
const how = fc.constantFrom("awaited", "awaited", "caught", "forgotten");
const calls = fc.array(fc.record({ call, how }), { maxLength: 3 });
const ending = fc.constantFrom("redirect", "shared", "other", "response", "error", "nothing");
const request = fc.record({ before: calls, handler: calls, after: calls, last: calls, ending });
const kind = fc.constantFrom(...KINDS);
const requests = fc.array(request, { minLength: 1, maxLength: 3 });
type Calls = typeof calls extends fc.Arbitrary<infer Value> ? Value : never;
type Request = typeof request extends fc.Arbitrary<infer Value> ? Value : never;
type Counter = Session<{ count: number }>;
const [NONE, SET, CLEARED] = [/^$/, /^session=[\w.-]+; HttpOnly.*$/, /^session=; Max-Age=0.*$/];
const SHARED = new Response(null, { headers: { Vary: "Cookie" } });

/** What is promised to one request. Of a session's count, null says that there is no session. */
class Model {
  read: number | null = null;
  setCookie = NONE;
  isUsed = false;
  isOver = false;
  /** How many errors nobody awaits, before the response and after. */
  failed = 0;
  late = 0;
  constructor(readonly isSigned: boolean, public count: number | null, public sent = count) {}

  /** Returns the count that a call gives; null: it gives none; NaN: it is an error. */
  run(call: Calls[number]["call"]): number | null {
    this.isUsed ||= !this.isOver;
    if (call === "read") return this.read = (this.isOver ? null : this.read) ?? this.count ?? 0;
    const needsCookie = this.isSigned || call === "rotate" || call === "count" && !this.count;
    if (call === "invalid" || this.isOver && needsCookie) return NaN;
    if (call === "same") return this.read = this.count ?? 0;
    if (call === "rotate" && this.count === null) return null;
    if (call === "destroy") this.count = null;
    if (call === "count") this.count = (this.count ?? 0) + 1;
    const setCookie = call === "destroy" ? CLEARED : SET;
    if (!this.isOver) [this.setCookie, this.sent] = [setCookie, this.count];
    return this.read = call === "count" ? this.count : null;
  }
}

Deno.test("answers and the browser have what the calls of a request promised, whatever comes when", async () => {
  await fc.assert(fc.asyncProperty(kind, requests, simulate), { numRuns: 1000 });
});

async function simulate(kind: typeof KINDS[number], requests: Request[]): Promise<void> {
  await using memory = scoped(memoryStore());
  const store = sessionStore(kind, memory);
  let [request] = requests as [Request];
  let session: Counter | null = null;
  const wrong: string[] = [];
  let model = new Model(kind === "cookie", null);

  async function run(session: Counter, calls: Calls, isCaught = false): Promise<void> {
    for (const { call, how } of calls) {
      const expected = model.run(call);
      const added = call === "count" ? 1 : NaN;
      const running = call === "read" || call === "rotate" || call === "destroy"
        ? session[call]()
        : session.update((s) => call === "same" ? s : { count: s.count + added });
      const isForgotten = how === "forgotten" && !isCaught;
      if (isForgotten) model[model.isOver ? "late" : "failed"] += Number(Number.isNaN(expected));
      if (isForgotten) continue;
      const given = await running.catch(() => ({ count: NaN }));
      if (!Object.is(given?.count ?? null, expected)) wrong.push(`${call}: ${given?.count}`);
      if (Number.isNaN(expected) && how === "awaited" && !isCaught) throw new Error(call);
    }
  }

  const app = new Hono<{ Variables: { session: Counter } }>()
    .use(sessions({ store, schema: Counted }) as MiddlewareHandler)
    .use(async (c, next) => {
      await next();
      model.isOver = true;
      if (c.error) [model.late, model.failed] = [model.late + model.failed, 0];
    })
    .use(async (c, next) => {
      await run(session = c.var.session, request.before);
      await next();
      await run(session, request.after);
      if (request.ending === "other") c.res = new Response("other");
    })
    .get("/", async (c) => {
      await run(c.var.session, request.handler);
      if (request.ending === "error") throw new Error("the handler's own");
      if (request.ending === "nothing") return undefined as never;
      if (request.ending === "shared") return SHARED;
      if (request.ending !== "response") return Response.redirect("http://other");
      await new Promise((resolve) => setTimeout(resolve));
      model.isOver = model.isUsed;
      return c.var.session.response("");
    })
    .onError(async (_, c) => {
      await run(c.var.session, request.last, true);
      return c.text("", 410);
    });
  const browser = new Browser(app);
  for (request of requests) {
    model = new Model(model.isSigned, model.isSigned ? model.sent : model.count);
    const captured = captureErrors();
    const { status, headers } = await browser.request("GET", "/");
    const errors = captured.end();
    const what = [status, ...headers, errors].join("; ");
    const isFailed = model.failed > 0 || /nothing|error/.test(request.ending);
    if (isFailed) assertEquals([status, headers.get("Location")], [410, null], what);
    const logs = errors.split("nothing awaited it").length - 1;
    assertEquals(logs, model.late + Math.max(0, model.failed - 1), what);
    const vary = model.isUsed || request.ending === "shared" ? "Cookie" : null;
    assertEquals(headers.get("Vary"), vary, what);
    assertEquals(headers.has("Cache-Control"), model.setCookie !== NONE, what);
    assertMatch(headers.getSetCookie().join("\n"), model.setCookie, what);
    if (session) await run(session, request.last, true);
    assertEquals(wrong, [], what);
    const count = model.isSigned ? model.sent : model.count;
    const found = await store.load(browser.cookie ?? "");
    assertEquals(found?.data, count === null ? undefined : { count }, what);
    const living = (await memory.list("")).keys.filter((key) => !key.endsWith(".rotated"));
    assertEquals(living.length, model.isSigned || count === null ? 0 : 1, what);
  }
}
