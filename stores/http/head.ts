/** The head of a response by HTTP/1.1 (RFC 9112), and the sizes that it has. */
import { UnexpectedAnswer } from "../wire.ts";

/** The first part of a response. */
export interface Head {
  readonly status: number;
  /** Returns the value of a header, by its name in lower case. */
  header(name: string): string | null;
  /** Whether the connection stays open. */
  readonly isPersistent: boolean;
}

/** @throws {UnexpectedAnswer} If the text is not the head of a response */
export function readHead(text: string): Head {
  const [line = "", ...fields] = text.split("\r\n");
  const [, minor, status] = /^HTTP\/1\.([01]) (\d{3})(?: |$)/.exec(line) ?? [];
  if (status === undefined) throw new UnexpectedAnswer("no HTTP");
  const headers = new Map<string, string>();
  for (const field of fields) {
    const colon = field.indexOf(":");
    const name = field.slice(0, colon).toLowerCase();
    const value = field.slice(colon + 1).trim();
    headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
  }
  const isPersistent = minor === "1" && !/\bclose\b/i.test(headers.get("connection") ?? "");
  return { status: Number(status), header: (name) => headers.get(name) ?? null, isPersistent };
}

/** @throws {UnexpectedAnswer} If the text is not a number in that form */
export function sizeOf(text: string, form: RegExp, base: number): number {
  const size = form.exec(text)?.[1];
  if (size === undefined) throw new UnexpectedAnswer("a body of unknown length");
  return parseInt(size, base);
}
