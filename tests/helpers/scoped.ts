import type { Store } from "../../stores/store.ts";

/** Returns the store, which closes at the end of the scope that it is used in. */
export function scoped<T extends Store>(store: T): T & AsyncDisposable {
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() });
}
