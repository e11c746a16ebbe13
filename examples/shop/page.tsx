/** The layout of every page. */
import type { Context } from "hono";
import { html } from "hono/html";
import type { Child } from "hono/jsx";
import { type Env, takeMessages } from "./session.ts";

/** Answers with a page that shows the messages once, in the visitor's theme. */
export async function page(c: Context<Env>, title: string, content: Child): Promise<Response> {
  // After a logout, Back asks again instead of showing the user's page.
  c.header("Cache-Control", "no-store");
  const messages = await takeMessages(c.var.session);
  const { user } = await c.var.session.read();
  const { theme } = await c.var.prefs.read();
  return await c.html(html`<!DOCTYPE html>${(
    <html lang="en" style={`color-scheme: ${theme}`}>
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>{title}</title>
      </head>
      <body>
        <nav>
          <a href="/">Shop</a> <a href="/basket">Basket</a>{" "}
          {user === null
            ? <a href="/login">Log in</a>
            : <Button to="/logout">Log out {user}</Button>}
          <Button to="/theme">{theme === "light" ? "Dark" : "Light"} theme</Button>
        </nav>
        {messages.map((message) => <p key={message} role="status">{message}</p>)}
        <h1>{title}</h1>
        {content}
      </body>
    </html>
  )}`);
}

/** A form with a button only. */
export function Button({ to, children }: { to: string; children: Child }) {
  return (
    <form method="post" action={to}>
      <button type="submit">{children}</button>
    </form>
  );
}
