/** The directory of the peers, and their installation by npm. */
import { join } from "node:path";

export const PEERS = join(import.meta.dirname ?? "", "peers");

/** Installs the peers as their lock pins them, unless they are installed. */
export async function installPeers(): Promise<void> {
  const lock = await Deno.readTextFile(join(PEERS, "package-lock.json"));
  const installed = join(PEERS, "node_modules", ".bench-lock");
  if (await Deno.readTextFile(installed).catch(ifMissing) === lock) return;
  console.error("installing the peers");
  const args = ["ci", "--no-audit", "--no-fund"];
  const { code, stderr } = await new Deno.Command("npm", { args, cwd: PEERS }).output();
  if (code !== 0) throw new Error(`npm ci failed: ${new TextDecoder().decode(stderr)}`);
  await Deno.writeTextFile(installed, lock);
}

function ifMissing(error: Error): null {
  if (error instanceof Deno.errors.NotFound) return null;
  throw error;
}
