/** What a response tells the browser of its session. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setTimeout as delay } from "node:timers/promises";
import { type Context, type Handler, Hono, type MiddlewareHandler } from "hono";
import { every, except, some } from "hono/combine";
import { deleteCookie } from "hono/cookie";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";
import { methodOverride } from "hono/method-override";
import { streamText } from "hono/streaming";
import { timeout } from "hono/timeout";
import { z } from "zod";
import { CookieSessionStore, KeyValueSessionStore, type Session, sessions } from "../sessions.ts";
import { memoryStore } from "../stores/memory.ts";
import { captureErrors } from "./helpers/captured_errors.ts";
import { testClock } from "./helpers/clock.ts";
import { brokenStore } from "./helpers/faulty_stores.ts";
import { Browser, Counted, KEY, testApp } from "./helpers/session_app.ts";
import { scoped } from "./helpers/scoped.ts";
import { serve } from "./helpers/http.ts";

type Counter = Session<{ count: number }>;

Deno.test("an update that nobody awaited and that fails is the request's error", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted })).get("/", (c) => {
    c.var.session.update((s) => ({ ...s, count: 5 }));
    c.var.session.update((s) => ({ ...s, count: 6 }));
    return c.redirect("/next");
  });
  const response = await app.request("/");
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("Retry-After"), "1");
});

Deno.test("a call that nobody awaited and that failed early is the request's error, not the end of the process", async () => {
  await using memory = scoped(memoryStore());
  const store = new KeyValueSessionStore(brokenStore(memory, () => true));
  const app = new Hono().use(sessions({ store, schema: Counted }))
    .get("/forgotten", async (c) => {
      c.var.session.update((s) => ({ ...s, count: 5 }));
      await delay(20);
      return c.text("");
    })
    .get("/awaited-late", async (c) => {
      const update = c.var.session.update((s) => ({ ...s, count: 5 }));
      await delay(20);
      return c.text(await update.then(() => "done", () => "failed"));
    });
  assertEquals((await app.request("/forgotten")).status, 503);
  assertEquals(await (await app.request("/awaited-late")).text(), "failed");
});

Deno.test("sessions() leaves the app's other cookies and Vary alone", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => ({ ...s }));
      c.header("Set-Cookie", "theme=dark");
      c.header("Vary", "Accept");
      return c.text("");
    });
  const { headers } = await app.request("/");
  assertEquals(headers.getSetCookie().length, 2);
  assertEquals(headers.get("Vary"), "Accept, Cookie");
});

Deno.test("a login or logout within methodOverride() is not undone by the session around it", async () => {
  const { now, pass } = testClock();
  const memory = memoryStore({ now });
  const schema = z.object({ user: z.string().default("nobody") });
  for (
    const store of [
      new CookieSessionStore(KEY, { now }),
      new KeyValueSessionStore(memory, { now }),
    ]
  ) {
    const app = new Hono();
    app.use(sessions({ store, schema }))
      .use(async (c, next) => {
        await c.var.session.read();
        await next();
      })
      .use(methodOverride({ app }))
      .put("/session", async (c) => {
        await c.var.session.rotate();
        await c.var.session.update(() => ({ user: "ada" }));
        return c.text("Welcome");
      })
      .delete("/session", async (c) => {
        await c.var.session.destroy();
        return c.text("Bye");
      })
      .get("/", async (c) => c.text((await c.var.session.read()).user));
    const browser = new Browser(app);
    const send = (_method: string) =>
      browser.request("POST", "/session", { body: new URLSearchParams({ _method }) });
    const user = async () => await (await browser.request("GET", "/")).text();
    browser.cookie = (await store.create({ user: "bob" })).cookie;
    pass(7 * 24 * 60 * 60); // so that the read renews the session
    assertEquals((await send("PUT")).headers.getSetCookie().length, 1);
    assertEquals(await user(), "ada");
    pass(7 * 24 * 60 * 60);
    assertEquals((await send("DELETE")).headers.getSetCookie().length, 1);
    assertEquals([browser.cookie, await user()], [null, "nobody"]);
  }
  await memory.close();
});

Deno.test("a login in a mounted app is not undone by the sessions around it, with a middleware between", async () => {
  await using memory = scoped(memoryStore());
  const add = (added: number) => (s: { count: number }) => ({ ...s, count: s.count + added });
  for (const store of [new CookieSessionStore(KEY), new KeyValueSessionStore(memory)]) {
    const both = [
      sessions({ store, schema: Counted }),
      sessions({ store, schema: Counted, name: "prefs" }),
    ] as const;
    const inner = new Hono().use(...both).post(
      "/",
      async ({ var: { session, prefs }, redirect }) => {
        for (const it of [session, prefs]) await it.rotate();
        for (const it of [session, prefs]) await it.update(add(10));
        return redirect("/", 303);
      },
    );
    const between: MiddlewareHandler[] = [
      (_, next) => next(),
      cors(),
      async (c, next) => {
        await next();
        c.header("Cache-Control", "no-store");
      },
    ];
    for (const middleware of between) {
      const app = new Hono().use(...both)
        .use(async ({ var: { session, prefs } }, next) => {
          for (const it of [session, prefs]) await it.update(add(1));
          await next();
        })
        .use(middleware)
        .mount("/", inner.fetch);
      const cookies = await Promise.all([store, store.named("prefs")].map(async (it) => {
        return (await it.create({ count: 1 })).cookie;
      }));
      const headers = { Cookie: `session=${cookies[0]}; prefs=${cookies[1]}` };
      const set = (await app.request("/", { method: "POST", headers })).headers.getSetCookie();
      assertEquals(set.length, 2);
      for (const [name, its] of [["session", store], ["prefs", store.named("prefs")]] as const) {
        const value = set.find((it) => it.startsWith(`${name}=`))?.split(/[=;]/)[1] ?? "";
        // A signed cookie has the changes of the inner app alone.
        const count = store instanceof CookieSessionStore ? 11 : 12;
        assertEquals((await its.load(value))?.data, { count }, name);
      }
    }
  }
});

Deno.test("the session around an app within an app has the last word if it changes later", async () => {
  const memory = memoryStore();
  const add = (s: { count: number }) => ({ ...s, count: s.count + 1 });
  for (const store of [new CookieSessionStore(KEY), new KeyValueSessionStore(memory)]) {
    const options = { store, schema: Counted, permanent: true };
    const inner = new Hono().use(sessions(options))
      .get("/", async (c) => c.json(await c.var.session.update(add)));
    const app = new Hono().use(sessions(options))
      .use(async (c, next) => {
        await next();
        const { session } = c.var;
        if (c.req.query("end")) await session.destroy();
        else await session.update((s) => ({ ...s, count: 10 }));
      })
      .mount("/", inner.fetch);
    const headers = { Cookie: `session=${(await store.create({ count: 1 })).cookie}` };
    const lastCookie = async (path: string) => {
      const response = await app.request(path, { headers });
      return response.headers.getSetCookie().findLast((it) => it.startsWith("session=")) ?? "";
    };
    const [, cookie = ""] = /^session=([^;]+)/.exec(await lastCookie("/")) ?? [];
    assertEquals((await store.load(cookie))?.data, { count: 10, _permanent: true });
    assertMatch(await lastCookie("/?end=1"), /^session=; Max-Age=0/);
  }
  await memory.close();
});

Deno.test("the session is sent beside a cookie of its name that the app sets or deletes", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      deleteCookie(c, "session");
      return c.json(await c.var.session.update((s) => ({ ...s, count: 5 })));
    })
    .get("/upstream", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      return new Response("", { headers: { "Set-Cookie": "session=theirs; Path=/" } });
    });
  for (const path of ["/", "/upstream"]) {
    const last = (await app.request(path)).headers.getSetCookie().at(-1) ?? "";
    assertMatch(last, /^session=ey.*; HttpOnly; SameSite=Lax; Path=\/$/, path);
  }
});

Deno.test("an app within an app keeps the cookies of both, if their paths differ", async () => {
  const store = new CookieSessionStore(KEY);
  const count = (s: { count: number }) => ({ ...s, count: s.count + 1 });
  const inner = new Hono().basePath("/admin")
    .use(sessions({ store, schema: Counted, cookie: { path: "/admin" } }))
    .get("/", async (c) => c.json(await c.var.session.update(count)));
  const app = new Hono().use(sessions({ store, schema: Counted }))
    .use(async (c, next) => {
      await c.var.session.update(count);
      await next();
    })
    .mount("/", inner.fetch);
  const { headers } = await app.request("/admin");
  assertEquals(headers.getSetCookie().map((it) => /Path=[^;]*/.exec(it)?.[0]), [
    "Path=/admin",
    "Path=/",
  ]);
});

Deno.test("a page that asks for the cookie says so to caches", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", (c) => c.text(c.var.session.cookie === null ? "Log in" : "Log out"))
    .get("/handle", (c) => c.text(`${c.var.session.handle}`));
  assertEquals((await app.request("/")).headers.get("Vary"), "Cookie");
  assertEquals((await app.request("/handle")).headers.get("Vary"), null, "it is null for everyone");
});

Deno.test("a stream that reads the session after its headers says so to caches", async () => {
  await using memory = scoped(memoryStore());
  const app = new Hono()
    .use(sessions({ store: new KeyValueSessionStore(memory), schema: Counted }))
    .get("/stream", (c) =>
      streamText(c, async (stream) => {
        await delay(1);
        await stream.write(String((await c.var.session.read()).count));
      }))
    .get("/text", (c) => c.text("0"));
  const stream = await app.request("/stream");
  assertEquals(stream.headers.get("Vary"), "Cookie");
  assertEquals(await stream.text(), "0");
  assertEquals((await app.request("/text")).headers.get("Vary"), null);
});

Deno.test("session.response() makes the response that the session's headers would be set on", async () => {
  const ofJavaScript = new Headers({ "Content-Type": "text/html" }) as unknown;
  const cases: [name: string, init: { status?: number; headers?: Record<string, string> }][] = [
    ["no headers", {}],
    ["a status and a type", { status: 201, headers: { "Content-Type": "text/html" } }],
    ["headers with the same names", {
      headers: { "Vary": "Accept", "Set-Cookie": "theme=dark", "Cache-Control": "public" },
    }],
    ["a Vary alone", { headers: { "Vary": "Accept" } }],
    ["another cookie alone", { headers: { "Set-Cookie": "theme=dark" } }],
    ["the same names in lower case", {
      headers: { "vary": "Accept", "set-cookie": "theme=dark", "cache-control": "public" },
    }],
    ["a cache-control alone", { headers: { "cache-control": "public" } }],
    ["Headers", { headers: ofJavaScript as Record<string, string> }],
  ];
  for (const call of ["none", "read", "update", "destroy"] as const) {
    for (const [name, init] of cases) {
      const app = new Hono()
        .use(sessions({ store: new CookieSessionStore(KEY, { now: () => 1e12 }), schema: Counted }))
        .use(async ({ var: { session } }, next) => {
          if (call === "update") await session.update((s) => ({ ...s, count: 5 }));
          else if (call !== "none") await session[call]();
          await next();
        })
        .get("/made", (c) => c.var.session.response("page", init))
        .get("/set", () => new Response("page", init));
      const [made, set] = await Promise.all(["/made", "/set"].map(async (path) => {
        const response = await app.request(path);
        return [response.status, await response.text(), ...response.headers];
      }));
      assertEquals(made, set, `${call}, ${name}`);
    }
  }
});

Deno.test("session.response() ends the time in which the cookie can change", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/late", async (c) => {
      await c.var.session.read();
      const response = c.var.session.response("page");
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      return response;
    })
    .get("/other", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      c.var.session.response("page");
      return c.text("other");
    })
    .get("/copied", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      const { headers } = c.var.session.response("page");
      return new Response("copy", { headers });
    })
    .get("/pending", (c) => {
      c.var.session.update((s) => ({ ...s, count: 5 }));
      return c.var.session.response("page");
    })
    .onError((error, c) => c.text(error.message, 500));
  assertMatch(await (await app.request("/late")).text(), /^Cannot change the session, its cookie/);
  for (const path of ["/other", "/copied", "/pending"]) {
    const { headers } = await app.request(path);
    assertEquals(headers.getSetCookie().length, 1, path);
    assertEquals(headers.get("Vary"), "Cookie", path);
    assertEquals(headers.get("Cache-Control"), "no-store", path);
  }
});

Deno.test("session.response() with an invalid status leaves the session as it was", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.read();
      return c.var.session.response("page", { status: 999 });
    })
    .onError(async (error, c) => {
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      return c.text(error.name, 500);
    });
  const response = await app.request("/");
  assertEquals([response.status, await response.text()], [500, "RangeError"]);
  assertEquals(response.headers.getSetCookie().length, 1);
});

Deno.test("a response whose headers cannot be changed carries the cookie, too", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => ({ ...s }));
      return Response.redirect("http://localhost/elsewhere", 303);
    });
  const { status, headers } = await app.request("/");
  assertEquals(status, 303);
  assertEquals(headers.get("Location"), "http://localhost/elsewhere");
  assertMatch(headers.get("Set-Cookie") ?? "", /^session=/);
  assertEquals(headers.get("Vary"), "Cookie");
  assertEquals(headers.get("Cache-Control"), "no-store");
});

Deno.test("a response that a handler gives to all requests carries nobody else's cookie", async () => {
  for (const init of [{ status: 204 }, { headers: { "Content-Type": "text/plain" } }]) {
    const done = new Response(null, init);
    const app = new Hono()
      .get("/outside", () => done)
      .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
      .get("/read", async (c) => {
        await c.var.session.read();
        return done;
      })
      .get("/count", async (c) => {
        await c.var.session.update((s) => ({ ...s, count: s.count + 1 }));
        return done;
      })
      .get("/untouched", () => done);
    const paths = { "/count": 1, "/read": 0, "/untouched": 0, "/outside": 0 };
    for (const [path, cookies] of [...Object.entries(paths), ...Object.entries(paths)]) {
      const { headers } = await app.request(path);
      assertEquals(headers.getSetCookie().length, cookies, path);
      assertEquals(headers.get("Cache-Control"), cookies === 1 ? "no-store" : null, path);
    }
  }
});

Deno.test("an error page still carries the cookie of an update that was done", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 3 }));
      throw new Error("a defect behind the update");
    });
  const logged = captureErrors();
  const response = await app.request("/");
  logged.end();
  assertEquals(response.status, 500);
  assertMatch(response.headers.get("Set-Cookie") ?? "", /^session=/);
});

Deno.test("an error that goes through every() or except() carries the cookie, and its own body", async () => {
  const middleware = sessions({ store: new CookieSessionStore(KEY), schema: Counted });
  const guard = async ({ var: { session } }: Context<{ Variables: { session: Counter } }>) => {
    await session.update((s) => ({ ...s, count: s.count + 1 }));
    session.update(() => ({ count: NaN }));
    throw new HTTPException(401, { message: "Log in" });
  };
  for (const combined of [every(middleware, guard), except("/public", middleware, guard)]) {
    const app = new Hono().use(combined);
    const errors = captureErrors();
    const response = await app.request("/");
    assertMatch(errors.end(), /count/, "the error that nobody awaited is logged");
    assertEquals([response.status, await response.text()], [401, "Log in"]);
    assertMatch(response.headers.get("Set-Cookie") ?? "", /^session=eyJjb3VudCI6MX0/);
    assertEquals(response.headers.get("Vary"), "Cookie");
  }
});

Deno.test("after an error within some(), the next middleware makes the response", async () => {
  const middleware = sessions({ store: new CookieSessionStore(KEY), schema: Counted });
  const guard = async ({ var: { session } }: Context<{ Variables: { session: Counter } }>) => {
    await session.read();
    throw new HTTPException(401);
  };
  const app = new Hono()
    .use(some(every(middleware, guard), (_, next) => next()))
    .get("/", (c) => c.text("by token"));
  const response = await app.request("/");
  assertEquals([response.status, await response.text()], [200, "by token"]);
  assertEquals(response.headers.get("Vary"), "Cookie");
});

Deno.test("the error of a call that nobody awaited leaves the cookie of the calls before it", async () => {
  const app = testApp({ store: new CookieSessionStore(KEY) }).post("/forgotten", async (c) => {
    await c.var.session.update((s) => ({ ...s, count: 7 }));
    c.var.session.update((s) => ({ ...s, count: 0.5 }));
    return c.text("");
  });
  const browser = new Browser(app);
  const logged = captureErrors();
  assertEquals((await browser.request("POST", "/forgotten")).status, 500);
  logged.end();
  assertEquals(await browser.get("/read"), { count: 7 });
});

Deno.test("the error of a call that nobody awaited has nothing of the handler's page", async () => {
  let isCancelled = false;
  const app = testApp({ store: new CookieSessionStore(KEY) }).get("/page", (c) => {
    c.var.session.update(() => {
      throw new Error("No more counts");
    });
    const body = new ReadableStream({ cancel: () => void (isCancelled = true) });
    return c.body(body, 200, {
      "Content-Length": "1000",
      "Content-Encoding": "gzip",
      "Content-Disposition": "attachment",
      "Content-Security-Policy": "default-src 'none'",
      "Cache-Control": "public, max-age=31536000, immutable",
      "ETag": '"1"',
      "Refresh": "0; url=/welcome",
    });
  });
  app.onError((error, c) => c.text(error.message, 500));
  const response = await app.request("/page");
  assertEquals([response.status, await response.text()], [500, "No more counts"]);
  assertEquals([...response.headers], [
    ["content-security-policy", "default-src 'none'"],
    ["content-type", "text/plain; charset=UTF-8"],
    ["vary", "Cookie"],
  ]);
  assert(isCancelled);
});

Deno.test("a handler's own error goes before that of a call that nobody awaited", async () => {
  const app = testApp({ store: new CookieSessionStore(KEY) }).get("/page", (c) => {
    c.var.session.update(() => {
      throw new Error("No more counts");
    });
    throw new HTTPException(403);
  });
  const logged = captureErrors();
  assertEquals((await app.request("/page")).status, 403);
  assertMatch(logged.end(), /nothing awaited it: Error: No more counts/);
});

Deno.test("a handler that returns nothing gets Hono's error with the cookie, not an empty page", async () => {
  const middleware = sessions({ store: new CookieSessionStore(KEY), schema: Counted });
  const app = new Hono().use(middleware).use(middleware);
  app.get(
    "/nothing",
    (async (c: Context<{ Variables: { session: Session<{ count: number }> } }>) => {
      await c.var.session.update((s) => ({ ...s, count: 1 }));
    }) as unknown as Handler,
  );
  app.onError((error, c) => c.text(error.message, 500));
  const response = await app.request("/nothing");
  assertMatch(await response.text(), /^Context is not finalized/);
  assertMatch(response.headers.get("Set-Cookie") ?? "", /^session=ey/);
});

Deno.test("a cookie that is too late, as behind timeout(), is logged", async () => {
  const over = Promise.withResolvers<void>();
  const app = new Hono()
    .use(timeout(5))
    .use(async (_, next) => {
      await next();
      over.resolve();
    })
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await delay(30);
      await c.var.session.update((s) => ({ ...s, count: 5 }));
      return c.text("");
    });
  const logged = captureErrors();
  await using server = serve(app.fetch);
  const response = await fetch(server.url);
  assertEquals([response.status, await response.text()], [504, "Gateway Timeout"]);
  await over.promise;
  assertMatch(logged.end(), /^The session's cookie is not sent: a response was sent before/);
});

Deno.test("a response from fetch, whose headers cannot be changed, keeps its body", async () => {
  const app = new Hono()
    .use(sessions({ store: new CookieSessionStore(KEY), schema: Counted }))
    .get("/", async (c) => {
      await c.var.session.update((s) => ({ ...s, count: 1 }));
      return await fetch("data:text/plain,from%20elsewhere");
    });
  const response = await app.request("/");
  assertEquals(await response.text(), "from elsewhere");
  assertMatch(response.headers.get("Set-Cookie") ?? "", /^session=/);
});
