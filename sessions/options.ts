/**
 * Checks of what an app gives. TypeScript makes them at compile time; plain JavaScript does not.
 */
/**
 * @param call Where the options were given, as the error words it
 * @param expected For each option what it may be, by `typeof` or as JSON: `boolean or "auto"`
 * @throws {TypeError} If an option is unknown, or is something else
 */
export function checkOptions<Options extends object>(
  call: string,
  options: Options,
  expected: Record<keyof Options, string>,
): void {
  const known = new Map(Object.entries<string>(expected));
  for (const [name, value] of Object.entries(options ?? {})) {
    const wanted = known.get(name);
    if (wanted === undefined) {
      const names = [...known.keys()].join(", ");
      throw new TypeError(`Cannot use the option "${name}" of ${call}: expected one of ${names}`);
    }
    const words = wanted.split(" or ");
    if (value === undefined || words.includes(typeof value)) continue;
    if (words.includes(JSON.stringify(value))) continue;
    throw new TypeError(`Cannot use ${shown(value)} as ${name} of ${call}: expected ${wanted}`);
  }
}

/**
 * @param methods What the value has to have, to be the thing that is wanted
 * @throws {TypeError} If it has not
 */
export function checkMethods(value: unknown, methods: readonly string[], wanted: string): void {
  const object = Object(value);
  if (methods.every((method) => typeof object[method] === "function")) return;
  throw new TypeError(`Cannot keep sessions in ${shown(value)}: expected ${wanted}`);
}

/** A value as an error shows it: of a text only the beginning. */
function shown(value: unknown): string {
  if (value instanceof Promise) return "a promise";
  if (typeof value === "object" && value !== null) return "this object";
  return typeof value === "string" ? `"${value.slice(0, 40)}"` : String(value);
}
