/**
 * Each part of the bench ends and prints its tables, after loads of a fraction of a second. No
 * measured number is asserted. The peers that npm installs are left out.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { DISK } from "./helpers/disk.ts";
import { runToEnd, testWith } from "./helpers/programs.ts";
import { REDIS } from "./helpers/redis_servers.ts";

const SHORT = [
  "--rounds=1",
  "--seconds=0.05",
  "--sessions=2",
  "--keys=200",
  "--no-peers",
  "--processes=2",
];

for (
  const [part, programs, row] of [
    ["page", ["wrk", ...REDIS], /^\| ours, signed cookie +\| ours \| [\d,]+ \| [\d,]+ \|$/m],
    ["kv", ["wrk", "webdis", "etcd", ...REDIS], /^\| Webdis GET \| peer \| [\d,]+ \| [\d,]+ \|$/m],
    ["profile", ["wrk"], /^\| ours +(\| [\d.]+ ){5}\|$/m],
    ["growth", ["wrk", ...REDIS], /^\| kv\.ts \| [\d,]+ \| [\d,]+ \|$/m],
    ["contention", REDIS, /^\| Redis \| 2 \| [\d,]+ \| [\d.]+ \| \d+ \| [\d,]+ \| \w+.*\|$/m],
    ["hostile", ["prlimit"], /^\| 8,000,000 brackets \| \d+ \| [\d,]+ \| \d+ \| \d+ \| yes \|$/m],
    ["overload", ["wrk"], /^\| kv\.ts: writes( \| [\d,]+){4}.* \|$/m],
    ["soak", REDIS, /^\| SQLite \| [\d,]+( \| [\d.]+ \([+−][\d.]+\)){4} \|$/m],
    ["sqlite", [], /^\| reads a second, one by one \| [\d,]+ \| [\d,]+ \|$/m],
    [
      "disk",
      ["wrk", ...DISK],
      /^\| GET \/key, PUT \/key \| [\d,]+ \| [\d,]+ \| [\d.]+ \| [\d.]+ \| [\d,]+ \|$/m,
    ],
    ["dump", [], /^\| keys moved a second \| [\d,]+ \|$/m],
  ] as const
) {
  testWith([...programs], `deno task bench ${part} prints its tables`, async () => {
    const args = ["task", "bench", part, ...SHORT];
    const { code, stdout, stderr } = await runToEnd(Deno.execPath(), args);
    assertEquals(code, 0, stderr);
    assertMatch(stdout, row);
    assertMatch(stdout, /^Measured on \d{4}-\d\d-\d\d with \d+ cores: deno [\d.]+/m);
  });
}
