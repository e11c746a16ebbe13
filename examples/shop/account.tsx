/** Login, logout and the theme. */
import { Hono } from "hono";
import { page } from "./page.tsx";
import { type Env, say } from "./session.ts";

/** A real shop keeps a slow hash of each password, as of `argon2`. */
const PASSWORDS = new Map([["ada", "analytical"], ["grace", "compiler"]]);

/** A second click within five seconds does nothing. */
const ONCE = "if (Date.now() < this.until) return false; this.until = Date.now() + 5000";

export const account = new Hono<Env>()
  .get("/login", async (c) =>
    await page(
      c,
      "Log in",
      <form method="post" onsubmit={ONCE}>
        <label>
          Name <input name="user" autocomplete="username" />
        </label>
        <label>
          Password <input name="password" type="password" autocomplete="current-password" />
        </label>
        <label>
          <input name="remember" type="checkbox" /> Remember me
        </label>
        <button type="submit">Log in</button>
      </form>,
    ))
  .post("/login", async (c) => {
    const { user, password, remember } = await c.req.parseBody<Record<string, string>>();
    if (user === undefined || password === undefined || PASSWORDS.get(user) !== password) {
      await c.var.session.update((s) => say(s, "The name or the password is wrong"));
      return c.redirect("/login", 303);
    }
    // Nobody who knew the old id shares the login. The basket stays.
    await c.var.session.rotate();
    await c.var.session.update((s) =>
      say({ ...s, user, remember: remember !== undefined }, `Welcome, ${user}`)
    );
    return c.redirect("/", 303);
  })
  .post("/logout", async (c) => {
    await c.var.session.destroy();
    return c.redirect("/", 303);
  })
  .post("/theme", async (c) => {
    await c.var.prefs.update(({ theme }) => ({ theme: theme === "light" ? "dark" : "light" }));
    return c.redirect("/", 303);
  });
