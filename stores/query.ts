/** The query of a store's URL. */

/**
 * Returns the parameters of a query without its `?`, decoded, by the names that the store knows.
 *
 * @throws {TypeError} With what was expected
 */
export function parseQuery<Name extends string>(
  query: string,
  names: readonly Name[],
): Partial<Record<Name, string>> {
  if (query.includes("#")) throw new TypeError("expected %23 for each # in a parameter");
  const values: Partial<Record<Name, string>> = {};
  for (const item of query.split("&").filter((item) => item !== "")) {
    const [, given = item, value = ""] = /^(.*?)=(.*)$/s.exec(item) ?? [];
    const name = names.find((name) => name === given);
    if (name === undefined) {
      throw new TypeError(`expected no parameter except ${names.join(" and ")}, found "${given}"`);
    }
    values[name] = decodePart(value);
  }
  return values;
}

/** Decodes a part of a store's URL, or throws a `TypeError` if its percent-encoding is malformed. */
export function decodePart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new TypeError("expected percent-encoding that is well-formed", { cause });
  }
}
