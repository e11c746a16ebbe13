/**
 * What the project costs, beside the least it could cost and what others cost.
 *
 * ```sh
 * deno task bench                     # page and kv
 * deno task bench growth              # a part: see PARTS
 * deno task bench page --write        # its tables go to docs/, too
 * deno task bench page --rounds=2 --seconds=1
 * ```
 *
 * Tables go to standard output, as Markdown, and progress to standard error. Servers are processes
 * of their own, on free ports of 127.0.0.1, and load comes over sockets. It needs `wrk`,
 * `redis-server`, `webdis` and `etcd` (Debian's packages), and `node` with `npm` for the peers.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { contention } from "./contention.ts";
import { slowDisk } from "./disk.ts";
import { dump } from "./dump.ts";
import { growth } from "./growth.ts";
import { hostile } from "./hostile.ts";
import { keyValues } from "./kv.ts";
import { type Options, progress } from "./load.ts";
import { pages } from "./pages.ts";
import { profiles } from "./profile.ts";
import { overload } from "./overload.ts";
import { soak } from "./soak.ts";
import { sqlite } from "./sqlite.ts";
import { writeTables } from "./tables.ts";
import { versions } from "./versions.ts";

const PARTS: Record<string, (options: Options) => Promise<string>> = {
  page: pages,
  kv: keyValues,
  profile: profiles,
  growth,
  contention,
  hostile,
  overload,
  soak,
  sqlite,
  disk: slowDisk,
  dump,
};

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    connections: { type: "string", default: "32" },
    sessions: { type: "string", default: "64" },
    keys: { type: "string", default: "1000000" },
    processes: { type: "string", default: "2,4,8" },
    "no-peers": { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});
const options: Options = {
  rounds: Number(values.rounds),
  seconds: Number(values.seconds),
  connections: Number(values.connections),
  sessions: Number(values.sessions),
  keys: Number(values.keys),
  processes: values.processes.split(",").map(Number),
  peers: !values["no-peers"],
  write: values.write,
};
const names = positionals.length > 0 ? positionals : ["page", "kv"];
const unknown = names.find((name) => !Object.hasOwn(PARTS, name));
if (unknown !== undefined) {
  console.error(`There is no part "${unknown}": expected ${Object.keys(PARTS).join(", ")}`);
  Deno.exit(2);
}
for (const name of names) {
  progress(`bench ${name}`);
  const text = `${await PARTS[name]?.(options)}\n\n${await versions(name)}`;
  console.log(`## ${name}\n\n${text}\n`);
  const document = ["contention", "hostile", "overload", "soak"].includes(name)
    ? "RELIABILITY.md"
    : "PERFORMANCE.md";
  if (options.write) await writeTables(document, name, text);
}
