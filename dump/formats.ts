/** How `dump.ts` prints entries. */
import { bold, cyan, dim } from "@std/fmt/colors";
import stringWidth from "string-width";
import { printable } from "../server/log.ts";
import { backupLine } from "../stores/lines.ts";
import type { Entry } from "../stores/store.ts";

/** The values of `--format`. */
export const FORMATS = ["lines", "backup", "table", "json"] as const;
export type Format = typeof FORMATS[number];

/** The width of a key in a table: a session id's. */
const KEY_WIDTH = 36;
/** The width of the time that an entry has left. */
const TTL_WIDTH = 7;

/** Prints entries one after the other, so that a large store needs little memory. */
export interface Printer {
  readonly begin: string;
  /** @param entry What is under the key, or null where it was removed */
  print(key: string, entry: Entry | null): string;
  readonly end: string;
}

/**
 * Returns the printer of a format.
 *
 * @param columns The width of the terminal, or null for text that another program reads: it is not
 * cut, and has the characters as they are
 */
export function printer(format: Format, columns: number | null): Printer {
  if (format === "table") return tablePrinter(columns);
  const shown = (text: string) => columns === null ? text : printable(text);
  const member = (key: string, entry: Entry | null) =>
    `${cyan(shown(JSON.stringify(key)))}: ${shown(entry?.value ?? "null")}`;
  if (format === "lines") {
    return { begin: "", print: (key, entry) => `{${member(key, entry)}}\n`, end: "" };
  }
  if (format === "backup") {
    const print: Printer["print"] = (_, entry) => entry ? `${shown(backupLine(entry))}\n` : "";
    return { begin: "", print, end: "" };
  }
  let separator = "\n  ";
  return {
    begin: "{",
    print(key, entry) {
      const text = `${separator}${member(key, entry)}`;
      separator = ",\n  ";
      return text;
    },
    end: "\n}\n",
  };
}

function tablePrinter(columns: number | null): Printer {
  const row = (key: string, ttl: string, value: string) => {
    const space = " ".repeat(Math.max(0, KEY_WIDTH - stringWidth(key)));
    return `${key}${space}  ${ttl.padStart(TTL_WIDTH)}  ${value}`;
  };
  const cut = (text: string) => columns === null ? text : cutTo(text, columns);
  return {
    begin: `${bold(cut(row("KEY", "EXPIRES", "VALUE")))}\n`,
    print(key, entry) {
      const ttl = entry === null ? "removed" : timeLeft(entry.expires);
      const text = cut(row(printable(key), ttl, printable(entry?.value ?? "")));
      return `${entry === null ? dim(text) : text}\n`;
    },
    end: "",
  };
}

/** Shortens a text that is wider than the terminal. */
function cutTo(text: string, columns: number): string {
  if (stringWidth(text) <= columns) return text;
  let cut = "";
  let width = 1;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    width += stringWidth(segment);
    if (width > columns) break;
    cut += segment;
  }
  return `${cut}…`;
}

/** How long an entry stays, in its largest unit: `31 d`. */
function timeLeft(expires: number | null): string {
  if (expires === null) return "never";
  const seconds = Math.max(0, Math.round((expires - Date.now()) / 1000));
  const [unit, length] = Object.entries({ d: 86_400, h: 3600, min: 60, s: 1 })
    .find(([, length]) => seconds >= 2 * length) ?? ["s", 1];
  return `${Math.floor(seconds / length)} ${unit}`;
}
