/**
 * What moving a service costs: `deno run --allow-all bench/dump.ts [keys]`.
 *
 * Fills a SQLite file (by default with 1,000,000 keys), serves it and an empty one, each by a
 * process of its own, pipes the dump of the one into the other, and prints how long that took, what
 * the memory of each process was before and at most, and whether both give the same dump then.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { NDJSON } from "../kv/dumps.ts";
import { sqliteStore } from "../stores/sqlite.ts";
import { json } from "../stores/json_text.ts";
import { MAX_PAGE } from "../stores/store.ts";
import { type Server, startServer } from "../tests/helpers/programs.ts";

const keys = Number(Deno.args[0] ?? 1_000_000);

const directory = await Deno.makeTempDir();
try {
  const DBM = join(directory, "full.db");
  await fill(DBM);
  await using from = await startServer("kv.ts", { env: { DBM } });
  await using to = await startServer("kv.ts", { env: { DBM: join(directory, "copy.db") } });
  const servers = [from, to];
  const before = await Promise.all(servers.map(memory));
  const most = [...before];
  let sampling = true;
  const samples = (async () => {
    while (sampling) {
      const now = await Promise.all(servers.map(memory));
      for (const [i, mebibytes] of now.entries()) most[i] = Math.max(most[i] ?? 0, mebibytes);
      await new Promise((done) => setTimeout(done, 200));
    }
  })();

  const start = performance.now();
  const { body } = await dump(from);
  const headers = { "Content-Type": NDJSON };
  const answer = await fetch(to.url, { method: "POST", body, headers });
  const { restored } = await answer.json();
  const seconds = (performance.now() - start) / 1000;
  sampling = false;
  await samples;

  const rate = Math.round(restored / seconds);
  console.log(`${restored} keys moved in ${seconds.toFixed(1)} s, ${rate} a second`);
  for (const [i, name] of ["dumping", "restoring"].entries()) {
    console.log(`${name.padEnd(10)} ${before[i]} MiB before, ${most[i]} MiB at most`);
  }
  const [one, other] = await Promise.all([digest(from), digest(to)]);
  console.log(one === other ? "Both hold the same" : "They differ");
} finally {
  await Deno.remove(directory, { recursive: true });
}

async function fill(path: string): Promise<void> {
  const store = sqliteStore(path);
  for (let i = 0; i < keys; i += MAX_PAGE) {
    const page = Array.from({ length: Math.min(MAX_PAGE, keys - i) }, (_, j) => i + j);
    const value = (n: number) => json({ count: n, user: crypto.randomUUID() });
    await store.setAll(new Map(page.map((n) => [`key${n}`, value(n)])));
  }
  await store.close();
}

async function dump(server: Server): Promise<Response> {
  return await fetch(server.url, { headers: { Accept: NDJSON } });
}

async function digest(server: Server): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of (await dump(server)).body ?? []) hash.update(chunk);
  return hash.digest("hex");
}

/** The memory of a server's process, in MiB. */
async function memory({ program }: Server): Promise<number> {
  const args = ["-o", "rss=", "-p", String(program.pid)];
  const { stdout } = await new Deno.Command("ps", { args }).output();
  return Math.round(Number(new TextDecoder().decode(stdout)) / 1024);
}
