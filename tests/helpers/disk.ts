/** Disks for tests: slow ones, full ones, ones that fail or keep what was synced, and a clock (`disk.c`). */
import { join } from "node:path";
import { runToEnd } from "./programs.ts";

/** What {@linkcode disk} needs. */
export const DISK = ["cc", "/usr/include/stdio.h"];

/** How a disk differs from that of this machine; `disk.c` says what each means. */
export type DiskOptions = Partial<
  Record<
    "CLOCK_AHEAD" | "DISK_FULL" | "DISK_DELAY" | "DISK_FAILS" | "DISK_SKIPS" | "DISK_COPIES",
    string
  >
>;

/** Compiles a disk, and returns the environment of a program on it. Leaving the scope removes it. */
export async function disk() {
  const directory = await Deno.makeTempDir();
  const library = join(directory, "disk.so");
  const source = join(import.meta.dirname ?? "", "disk.c");
  const { code, stderr } = await runToEnd("cc", ["-shared", "-fPIC", "-O", "-o", library, source]);
  if (code !== 0) throw new Error(`Cannot compile ${source}: ${stderr}`);
  return {
    env: (options: DiskOptions): Record<string, string> => ({ LD_PRELOAD: library, ...options }),
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}
