import type { Options } from "./load.ts";
export async function growth(_: Options): Promise<string> {
  return await "";
}
