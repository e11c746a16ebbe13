/** Tables in Markdown, and their places in the documents. */
import { join } from "node:path";
import { PROJECT } from "../tests/helpers/programs.ts";
import { type Result, whole } from "./load.ts";

/** A table; the first column's cells are text, the others' are aligned to the right. */
export function table(head: string[], rows: (string | number)[][]): string {
  const rule = head.map((_, i) => i === 0 ? "---" : "--:");
  return [head, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** The results of variants, the fastest first. */
export function resultTable(results: Result[], what: string): string {
  const rows = results.toSorted((a, b) => b.rate - a.rate).map(({ name, kind, rate, cpu }) => [
    name,
    kind,
    whole(rate),
    Number.isNaN(cpu) ? "" : whole(cpu),
  ]);
  return table([what, "Ours, limit or peer", "Requests a second", "CPU µs a request"], rows);
}

/**
 * Ratios of the best rounds: each `[a, b]` is a row, a's rate divided by b's, and beside it how many
 * times the CPU time of a request b takes.
 */
export function ratioTable(results: Result[], pairs: [string, string][]): string {
  const find = (name: string) => results.find((result) => result.name === name);
  const rows = pairs.flatMap(([ours, other]) => {
    const [a, b] = [find(ours), find(other)];
    // Peers are left out where npm is.
    if (!a || !b) return [];
    return [[ours, other, b.kind, (a.rate / b.rate).toFixed(2), (b.cpu / a.cpu).toFixed(2)]];
  });
  return table(["Ours", "Divided by", "Limit or peer", "Ratio", "By CPU time"], rows);
}

/**
 * Writes tables between the markers `<!-- bench NAME -->` and `<!-- end -->` of a document.
 *
 * @throws {Error} If the document has no such markers
 */
export async function writeTables(document: string, name: string, tables: string): Promise<void> {
  const path = join(PROJECT, "docs", document);
  const text = await Deno.readTextFile(path);
  const start = `<!-- bench ${name} -->`;
  const from = text.indexOf(start);
  const to = text.indexOf("<!-- end -->", from);
  if (from < 0 || to < 0) throw new Error(`Cannot write to docs/${document}: expected ${start}`);
  const body = `${start}\n\n${tables}\n\n`;
  await writeFormatted(path, text.slice(0, from) + body + text.slice(to));
}

/** Writes a file as `deno fmt` wants it. */
export async function writeFormatted(path: string, text: string): Promise<void> {
  await Deno.writeTextFile(path, text);
  await new Deno.Command(Deno.execPath(), { args: ["fmt", "--quiet", path] }).output();
}
