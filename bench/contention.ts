import type { Options } from "./load.ts";
export async function contention(_: Options): Promise<string> {
  return await "";
}
