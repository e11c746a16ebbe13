/** Replaces properties of an object, such as a clock or a timer, until the end of the scope. */
export function replaced(object: object, properties: Record<string, unknown>): Disposable {
  const names = Object.keys(properties);
  const before = Object.fromEntries(names.map((name) => [name, Reflect.get(object, name)]));
  Object.assign(object, properties);
  return { [Symbol.dispose]: () => void Object.assign(object, before) };
}
