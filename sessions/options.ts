/** Checks the options that an app passes, for plain JavaScript: TypeScript has checked them. */
/**
 * @param call The call that takes the options, as the error names it
 * @param expected The values of each option, by `typeof` or as JSON: `boolean or "auto"`
 * @throws {TypeError} If an option is unknown, or has another value
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
    // A text in place of an object may be a secret key, or a URL with a password.
    const isShown = typeof value === "string" && !words.includes("object");
    const given = isShown ? `"${value.slice(0, 40)}"` : kindOf(value);
    throw new TypeError(`Cannot use ${given} as ${name} of ${call}: expected ${wanted}`);
  }
}

/** @throws {TypeError} If a value that is to keep sessions lacks a method */
export function checkMethods(value: unknown, methods: readonly string[], wanted: string): void {
  const object = Object(value);
  if (methods.every((method) => typeof object[method] === "function")) return;
  throw new TypeError(`Cannot keep sessions in ${kindOf(value)}: expected ${wanted}`);
}

/** What a value is, without the words of a text. */
function kindOf(value: unknown): string {
  if (typeof value === "string") return "a text";
  if (value instanceof Promise) return "a promise";
  return typeof value === "object" && value !== null ? "this object" : String(value);
}
