import type { Options } from "./load.ts";
export async function hostile(_: Options): Promise<string> {
  return await "";
}
