/** docs/DEPLOY.md: its container file, unit and nginx configuration, as the page gives them. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotMatch,
  assertStringIncludes,
} from "@std/assert";
import { join } from "node:path";
import { counter } from "../../counter.ts";
import { kv } from "../../kv.ts";
import { CookieSessionStore, KeyValueSessionStore } from "../../sessions.ts";
import { memoryStore } from "../../stores/memory.ts";
import {
  freePort,
  Program,
  PROJECT,
  runToEnd,
  startServer,
  temporaryDirectory,
  testWith,
} from "../helpers/programs.ts";
import { scoped } from "../helpers/scoped.ts";

const page = await Deno.readTextFile(join(PROJECT, "docs/DEPLOY.md"));

testWith(["deno"], "DEPLOY.md has a container file whose steps lead to two servers", async () => {
  await using directory = await temporaryDirectory();
  const [app, data] = [join(directory.path, "app"), join(directory.path, "data")];
  await copyProject(app);
  const text = await Deno.readTextFile(join(PROJECT, "Containerfile"));
  const steps = [...text.matchAll(/^([A-Z]+) (.*)$/gm)].map(([, name = "", rest = ""]) => {
    return { name, rest: rest.replaceAll("/data", data).replace("deno:deno", String(Deno.uid())) };
  });
  const restOf = (step: string) => steps.filter(({ name }) => name === step).map((it) => it.rest);
  assertEquals(restOf("FROM"), [`docker.io/denoland/deno:${Deno.version.deno}`]);

  for (const command of restOf("RUN")) {
    const { code, stderr } = await runToEnd("sh", ["-c", command], { cwd: app });
    assertEquals(code, 0, stderr);
  }
  const [port, kvPort] = [freePort(), freePort()];
  const given = [`KV_TOKEN=${"t".repeat(32)}`, `PORT=${port}`, `KV_PORT=${kvPort}`];
  const settings = [...restOf("ENV").flatMap((rest) => rest.split(" ")), ...given];
  const env = Object.fromEntries(settings.map((it) => it.split("=")));
  const [command = "", ...args] = [...restOf("ENTRYPOINT"), ...restOf("CMD")]
    .flatMap((list) => JSON.parse(list));
  await using both = new Program(command, args, { cwd: app, env });
  await both.printed(new RegExp(`^counter: .*:${port} `, "m"));
  await both.printed(new RegExp(`^kv: .*:${kvPort} `, "m"));
  assertMatch(await (await fetch(`http://127.0.0.1:${port}`)).text(), /Count: 1/);
  const entry = {
    method: "PUT",
    body: "1",
    headers: { "Authorization": `Bearer ${"t".repeat(32)}`, "Content-Type": "application/json" },
  };
  assertEquals(await (await fetch(`http://127.0.0.1:${kvPort}/a`, entry)).text(), `{"a":1}`);
  const replaced: [string, string][] = [
    ["DENO_DIR=/srv/counter/.deno ", ""],
    ["/srv/counter", app],
    ["KV_TOKEN=…", `KV_TOKEN=${"t".repeat(32)}`],
    ["/var/backups", directory.path],
    ["5100", `${kvPort}`],
  ];
  const commands = replaceAll(block("--format backup") + block("--restore"), replaced);
  const { code, stderr } = await runToEnd("sh", ["-ec", commands]);
  assertEquals([code, stderr], [0, "Restored 1 entry\n"]);
  assertEquals(await both.stop(), 0, both.output);
  assertEquals((await Deno.stat(join(data, "kv.db"))).isFile, true);

  const failed = await runToEnd("sh", ["-ec", replaceAll(block("--format backup"), replaced)]);
  assertEquals(failed.code, 1);
  const backup = join(directory.path, "kv.backup");
  assertEquals(await Deno.readTextFile(backup), '{"key": "a", "value": 1, "expires": null}\n');
  assertEquals((await Deno.stat(backup)).mode, 0o100600);
});

testWith(
  ["systemd-analyze"],
  "DEPLOY.md has a unit that systemd accepts, with the rating that it names",
  async () => {
    await using directory = await temporaryDirectory();
    const unit = replaceAll(block("counter@.service"), [["/usr/bin/deno", Deno.execPath()]]);
    const file = join(directory.path, "counter@start.service");
    await Deno.writeTextFile(file, unit);
    const { code, stdout, stderr } = await runToEnd("systemd-analyze", ["verify", file]);
    assertEquals({ code, output: stdout + stderr }, { code: 0, output: "" });
    const security = await runToEnd("systemd-analyze", ["security", "--offline=true", file]);
    const [, rating] = /Overall exposure level .*: ([\d.]+) /.exec(security.stdout) ?? [];
    const [, named] = /rates the unit ([\d.]+) of 10/.exec(page) ?? [];
    // Other versions of systemd count a little differently.
    assert(Number(rating) <= Number(named) + 0.5, security.stdout);
  },
);

testWithNginx("sends a browser from http to https", async ({ get, http }) => {
  const response = await get(`http://localhost:${http}/counter/`);
  assertEquals(response.status, 308);
  assertEquals(response.headers.get("Location"), "https://localhost/counter/");
  await response.body?.cancel();
});

testWithNginx("serves the counter under a path prefix", async ({ get, https }) => {
  const first = await get(`${https}/counter/`);
  assertMatch(await first.text(), /Count: 1/);
  const cookie = first.headers.get("Set-Cookie") ?? "";
  assertMatch(cookie, /; Path=\/counter\/(;|$)/);
  assertMatch(cookie, /; Secure/);
  const headers = { Cookie: cookie.split(";")[0] ?? "", Origin: https };
  const second = await get(`${https}/counter/`, { headers });
  const html = await second.text();
  assertMatch(html, /Count: 2/);
  const action = /<form[^>]* action="([^"]*)"/.exec(html)?.[1] ?? "";
  const reset = await get(new URL(action, second.url).href, { method: "POST", headers });
  await reset.body?.cancel();
  assertEquals(reset.status, 303);
  assertEquals(new URL(reset.headers.get("Location") ?? "", reset.url).href, `${https}/counter/`);
});

testWithNginx("passes on the largest cookie that browsers take", async ({ get, https }) => {
  const store = new CookieSessionStore("s".repeat(32));
  const noise = crypto.getRandomValues(new Uint8Array(2200)).toBase64();
  const { cookie } = await store.create({ count: 1, noise });
  const response = await get(`${https}/counter/`, { headers: { Cookie: `session=${cookie}` } });
  assertMatch(await response.text(), /Count: 2/);
  assert((response.headers.get("Set-Cookie") ?? "").length > 4000);
}, { USE_SESSION_STORE: false });

testWithNginx("gives no session id to who may read the service", async (site) => {
  const { get, https, token } = site;
  const page = await get(`${https}/counter/`);
  await page.body?.cancel();
  const [, id = ""] = /session=([^;]+)/.exec(page.headers.get("Set-Cookie") ?? "") ?? [];
  const backup = await get(`${https}/kv/?backup`, { headers: { Authorization: token } });
  const entries = await backup.text();
  assertMatch(entries, /"count":1/);
  assert(id !== "" && !entries.includes(id), entries);
});

testWithNginx("shows no metrics of the counter to others", async ({ get, https }) => {
  const metrics = await get(`${https}/counter/metrics`);
  assertEquals(metrics.status, 404);
  await metrics.body?.cancel();
  const health = await get(`${https}/counter/health`);
  assertEquals([health.status, await health.json()], [200, { status: "ok" }]);
});

testWithNginx("limits the pages of one address", async ({ get, https }) => {
  const pages = Array.from({ length: 200 }, async () => {
    const { status, body } = await get(`${https}/counter/`);
    await body?.cancel();
    return status;
  });
  assertEquals(new Set(await Promise.all(pages)), new Set([200, 429]));
});

testWithNginx("serves the service under a path prefix, to who has the token", async (site) => {
  const { get, https, token } = site;
  const response = await get(`${https}/kv/`);
  assertEquals(response.status, 401);
  await response.body?.cancel();
  const headers = { Authorization: token };
  const body = new URLSearchParams({ a: "1", b: "2" });
  await (await get(`${https}/kv/`, { method: "POST", headers, body })).body?.cancel();
  const first = await get(`${https}/kv/?limit=1`, { headers });
  assertEquals((await first.json()).keys, ["a"]);
  const next = /^<([^>]*)>; rel="next"$/.exec(first.headers.get("Link") ?? "")?.[1] ?? "";
  const second = await get(new URL(next, first.url).href, { headers });
  assertEquals((await second.json()).keys, ["b"]);
  const page = await get(`${https}/kv/`, { headers: { ...headers, Accept: "text/html" } });
  assertNotMatch(await page.text(), /(?:href|src|action)="\//);
});

testWithNginx("hands the service each key as it was sent", async ({ get, https, token }) => {
  const headers = { Authorization: token, "Content-Type": "application/json" };
  for (const key of ["a//b", "a/b?c", "50%", "é", "a%2Fb"]) {
    const path = key.split("/").map(encodeURIComponent).join("/");
    const body = JSON.stringify(key);
    const response = await get(`${https}/kv/${path}`, { method: "PUT", body, headers });
    assertEquals([response.status, await response.json()], [201, { [key]: key }]);
  }
});

testWithNginx("finds nothing under another spelling of the prefix", async (site) => {
  const { get, https, token } = site;
  const headers = { Authorization: token, "Content-Type": "application/json" };
  for (const path of ["//kv/x", "/%6bv/x"]) {
    const response = await get(`${https}${path}`, { method: "PUT", body: "1", headers });
    await response.body?.cancel();
    assertEquals(response.status, 404, path);
  }
  const list = await get(`${https}/kv/`, { headers });
  assertEquals(await list.json(), { keys: [] });
});

testWithNginx("sends the service's changes as they happen", async ({ get, https, token }) => {
  const headers = { Authorization: token };
  const events = await get(`${https}/kv/`, {
    headers: { ...headers, Accept: "text/event-stream" },
  });
  const reader = events.body?.pipeThrough(new TextDecoderStream()).getReader();
  const body = new URLSearchParams({ change: "1" });
  await (await get(`${https}/kv/`, { method: "POST", headers, body })).body?.cancel();
  let text = "";
  while (!text.includes('"change"')) text += (await reader?.read())?.value ?? "";
  await reader?.cancel();
});

testWithNginx("an app's store can go through", async ({ https, token, certificate }) => {
  const code = `
    import { openStore } from ${JSON.stringify(import.meta.resolve("../../stores/open.ts"))};
    const [url, token] = Deno.args;
    const store = await openStore(url, { token });
    const reader = (await store.watch("")).changes.getReader();
    // nginx ends a connection after 1,000 requests.
    for (let i = 0; i < 1100; i++) await store.set("a", String(i));
    await store.set("large", JSON.stringify("é".repeat(500_000)));
    const { value } = await store.get("large");
    const { value: change } = await reader.read();
    console.log((await store.get("a")).value, value.length, change.key);
    await reader.cancel();
    await store.close();
  `;
  const args = ["eval", code, `${https}/kv/`, token.replace("Bearer ", "")];
  const env = { DENO_CERT: certificate };
  const { stdout, stderr } = await runToEnd(Deno.execPath(), args, { env });
  assertEquals(stdout, "1099 500002 a\n", stderr);
});

testWith(["nginx"], "DEPLOY.md has counters that restart in turns and fail no page", async () => {
  await using directory = await temporaryDirectory();
  const [port, first, second] = [freePort(), freePort(), freePort()];
  const text = replaceAll(block("upstream counters"), [["5001", `${first}`], [
    "5002",
    `${second}`,
  ]]);
  const [upstream = "", pass = ""] = text.split(/(?=^proxy_pass)/m);
  const site = `${upstream} server { listen 127.0.0.1:${port}; location /counter/ { ${pass} } }`;
  await using _nginx = await startNginx(directory.path, site);
  await using servers = new AsyncDisposableStack();
  const start = async (port: number) => servers.use(await startServer("counter.ts", { port }));
  for (const server of [await start(first), await start(second)]) {
    await server.program.stop();
    for (let i = 0; i < 4; i++) {
      const response = await fetch(`http://127.0.0.1:${port}/counter/`);
      await response.body?.cancel();
      assertEquals(response.status, 200);
    }
    await start(Number(new URL(server.url).port));
  }
});

/** Both servers behind an nginx. */
interface Site {
  /** The port that sends browsers to https. */
  http: number;
  /** The origin with TLS. */
  https: string;
  /** What `Authorization` has to be for the service. */
  token: string;
  /** The file of its certificate. */
  certificate: string;
  /** Follows no redirect, and trusts the certificate. */
  get(url: string, init?: RequestInit): Promise<Response>;
}

/** Registers a test of both servers behind an nginx, all with the settings on the page. */
function testWithNginx(
  promise: string,
  run: (site: Site) => Promise<void>,
  changes: Record<string, unknown> = {},
): void {
  testWith(["nginx", "openssl"], `DEPLOY.md has an nginx that ${promise}`, async () => {
    await using directory = await temporaryDirectory();
    const KV_TOKEN = "t".repeat(32);
    const SECRET_KEY = "s".repeat(32);
    const KV_READ_TOKEN = "r".repeat(32);
    const settings = JSON.parse(block('"KV_TOKEN": "<openssl'));
    const config = { ...settings, KV_TOKEN, KV_READ_TOKEN, SECRET_KEY, ...changes };
    await using kv = await startServer("kv.ts", { config });
    const KV_URL = kv.url;
    await using counter = await startServer("counter.ts", { config: { ...config, KV_URL } });

    const certificate = join(directory.path, "counter.pem");
    const files: [string, string][] = [
      ["/etc/ssl/private/counter.key", join(directory.path, "counter.key")],
      ["/etc/ssl/certs/counter.pem", certificate],
      ["counter.example", "localhost"],
    ];
    const command = replaceAll(block("openssl req"), files);
    assertEquals((await runToEnd("sh", ["-c", command])).code, 0);

    const [http, tls] = [freePort(), freePort()];
    const site = replaceAll(block("conf.d/counter.conf"), [
      ...files,
      ["listen 80;", `listen 127.0.0.1:${http};`],
      ["listen 443 ", `listen 127.0.0.1:${tls} `],
      ["127.0.0.1:5000", `127.0.0.1:${new URL(counter.url).port}`],
      ["127.0.0.1:5100", `127.0.0.1:${new URL(kv.url).port}`],
    ]);
    await using _nginx = await startNginx(directory.path, site);
    using client = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(certificate)] });
    await run({
      http,
      https: `https://localhost:${tls}`,
      token: `Bearer ${KV_TOKEN}`,
      certificate,
      get: (url, init) => fetch(url, { client, redirect: "manual", ...init }),
    });
  });
}

/** Copies the project as `COPY . .` does: without what .dockerignore names. */
async function copyProject(target: string): Promise<void> {
  const ignored = (await Deno.readTextFile(join(PROJECT, ".dockerignore"))).trim().split("\n");
  await Deno.mkdir(target);
  for await (const { name } of Deno.readDir(PROJECT)) {
    if (ignored.includes(name)) continue;
    const { code, stderr } = await runToEnd("cp", ["-R", join(PROJECT, name), target]);
    assertEquals(code, 0, stderr);
  }
}

/** Starts nginx in the foreground, with all of its files in the directory. */
async function startNginx(directory: string, site: string): Promise<Program> {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${directory}/${name};`);
  const config = `
    daemon off; pid ${directory}/nginx.pid; error_log stderr notice;
    events {}
    http { access_log off; ${temporary.join(" ")} ${site} }
  `;
  const file = join(directory, "nginx.conf");
  await Deno.writeTextFile(file, config);
  const nginx = new Program("nginx", ["-e", "stderr", "-p", directory, "-c", file]);
  await nginx.printed(/start worker processes/);
  return nginx;
}

testWith(["promtool"], "DEPLOY.md has alerts that Prometheus accepts, and that fire", async () => {
  await using directory = await temporaryDirectory();
  const write = (name: string, text: string) =>
    Deno.writeTextFile(join(directory.path, name), text);
  await write("counter.rules.yml", block("/etc/prometheus/counter.rules.yml"));
  const token = "/etc/prometheus/kv_read_token";
  const here = join(directory.path, "token");
  await write("token", "t");
  await write(
    "prometheus.yml",
    replaceAll(block("/etc/prometheus/prometheus.yml"), [[token, here]]),
  );
  await write("test.yml", ALERTS);
  for (const args of [["check", "config", "prometheus.yml"], ["test", "rules", "test.yml"]]) {
    const { code, stdout, stderr } = await runToEnd("promtool", args, { cwd: directory.path });
    assertEquals(code, 0, stdout + stderr);
  }
});

Deno.test("DEPLOY.md has alerts on metrics that the servers have", async () => {
  await using store = scoped(memoryStore());
  const service = kv(store);
  const page = counter({ store: new KeyValueSessionStore(store) });
  for (const app of [service, page]) await app.request("/");
  const metrics = await (await service.request("/?metrics")).text() +
    await (await page.request("/metrics")).text();
  const names = block("/etc/prometheus/counter.rules.yml").match(/\b(kv|counter)_\w+/g) ?? [];
  assertEquals(
    names.filter((name) =>
      !metrics.includes(`\n${name}{`) &&
      !metrics.includes(`\n${name} `)
    ),
    [],
  );
  assert(names.length >= 5, `${names}`);
});

/** For promtool: what is measured, and which alerts that means. */
const ALERTS = `
rule_files: [counter.rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - { series: 'up{job="kv"}', values: "1x5 0x30" }
      - { series: 'kv_store_up', values: "1x5 0x30" }
      - { series: 'counter_requests_total{method="GET",status="200"}', values: "0+100x40" }
      - { series: 'counter_requests_total{method="GET",status="503"}', values: "0x5 0+5x34" }
      - { series: 'kv_request_duration_seconds_bucket{le="0.1"}', values: "0+10x40" }
      - { series: 'kv_request_duration_seconds_bucket{le="1"}', values: "0+11x40" }
      - { series: 'kv_request_duration_seconds_bucket{le="+Inf"}', values: "0+11x40" }
      - { series: 'kv_held_bytes', values: "120000000x40" }
      - { series: 'kv_watchers', values: "10x30 950x10" }
    alert_rule_test:
      - { eval_time: 4m, alertname: ServerDown }
      - eval_time: 10m
        alertname: ServerDown
        exp_alerts:
          - { exp_labels: { job: kv }, exp_annotations: { summary: "kv does not answer" } }
      - eval_time: 10m
        alertname: StoreUnavailable
        exp_alerts: [{ exp_annotations: { summary: "The service cannot use its store" } }]
      - { eval_time: 4m, alertname: PagesFail }
      - eval_time: 30m
        alertname: PagesFail
        exp_alerts: [{ exp_annotations: { summary: "4.762% of the pages fail" } }]
      - eval_time: 30m
        alertname: ServiceSlow
        exp_alerts: [{ exp_annotations: { summary: "1 in 100 requests takes 901ms" } }]
      - eval_time: 30m
        alertname: ClientsSlow
        exp_alerts:
          - exp_annotations:
              summary: "Slow clients hold most of the 128 MiB: the next are refused"
      - { eval_time: 20m, alertname: WatchersNearLimit }
      - eval_time: 35m
        alertname: WatchersNearLimit
        exp_alerts: [{ exp_annotations: { summary: "950 of 1,000 streams of changes are in use" } }]
`;

/** The code block of the page that contains the text. */
function block(text: string): string {
  const blocks = [...page.matchAll(/^```\w+\n([^]*?)^```$/gm)].map(([, code = ""]) => code);
  const found = blocks.find((code) => code.includes(text));
  if (found === undefined) throw new Error(`docs/DEPLOY.md has no block with "${text}"`);
  return found;
}

/** Replaces each text, which has to be there. */
function replaceAll(text: string, replacements: [string, string][]): string {
  return replacements.reduce((before, [from, to]) => {
    assertStringIncludes(before, from);
    return before.replaceAll(from, to);
  }, text);
}
