/** @jsxImportSource hono/jsx */
/** The style, headers and layout that all pages share. */
import type { Child } from "hono/jsx";
import { html, raw } from "hono/html";
import { escapeToBuffer } from "hono/utils/html";
import { createHash } from "node:crypto";
import shared from "./layout.css" with { type: "text" };

function hash(text: string): string {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

/** A page's style and script, beside what every page shares. */
interface PageAssets {
  style: string;
  script?: string;
}

/** The headers of a page: no script and no style but its own, no frame, no outside asset. */
export function pageHeaders({ style, script }: PageAssets): Record<string, string> {
  const policy = [
    "default-src 'none'",
    `style-src ${hash(shared)} ${hash(style)}`,
    ...script
      ? [
        `script-src ${hash(script)}`,
        "connect-src 'self'",
        "require-trusted-types-for 'script'",
      ]
      : [],
    "img-src data:",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ];
  return {
    "Content-Security-Policy": policy.join("; "),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
  };
}

/** Renders a page once, with marks for its texts. Returns a function that fills them in, escaped. */
export function template<Name extends string>(
  names: readonly Name[],
  page: (texts: Record<Name, string>) => unknown,
): (texts: Record<Name, string>) => string {
  // A page has no control characters, and JSX leaves them as they are.
  const marks = names.map((name) => [name, `\0${name}\0`]);
  const [first = "", ...parts] = String(page(Object.fromEntries(marks))).split("\0");
  return (texts) => {
    const html: [string] = [first];
    for (let i = 0; i < parts.length; i += 2) {
      escapeToBuffer(texts[parts[i] as Name], html);
      html[0] += parts[i + 1];
    }
    return html[0];
  };
}

export function Layout(
  { title, children, style, script, mainId }:
    & PageAssets
    & { title: string; children: Child; mainId?: string },
) {
  return html`<!DOCTYPE html>${(
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <link rel="icon" href="data:," />
        <title>{title}</title>
        <style>{raw(shared)}</style>
        <style>{raw(style)}</style>
        {script && <script type="module">{raw(script)}</script>}
      </head>
      <body>
        <main id={mainId}>{children}</main>
      </body>
    </html>
  )}`;
}
