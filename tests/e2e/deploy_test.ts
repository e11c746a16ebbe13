/** docs/DEPLOY.md: its container file, unit and nginx configuration, as the page gives them. */
import { assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  freePort,
  Program,
  PROJECT,
  runToEnd,
  startServer,
  testWith,
} from "../helpers/programs.ts";

const page = await Deno.readTextFile(join(PROJECT, "docs/DEPLOY.md"));

testWith(["deno"], "DEPLOY.md has a container file whose steps lead to two servers", async () => {
  const directory = await Deno.makeTempDir();
  const [app, data] = [join(directory, "app"), join(directory, "data")];
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
  assertEquals(await both.stop(), 0, both.output);
  assertEquals((await Deno.stat(join(data, "kv.db"))).isFile, true);
  await Deno.remove(directory, { recursive: true });
});

testWith(["systemd-analyze"], "DEPLOY.md has a unit that systemd accepts", async () => {
  const directory = await Deno.makeTempDir();
  const unit = replaceAll(block("counter@.service"), [["/usr/bin/deno", Deno.execPath()]]);
  const file = join(directory, "counter@kv.service");
  await Deno.writeTextFile(file, unit);
  const { code, stdout, stderr } = await runToEnd("systemd-analyze", ["verify", file]);
  assertEquals({ code, output: stdout + stderr }, { code: 0, output: "" });
  await Deno.remove(directory, { recursive: true });
});

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

/** Both servers behind an nginx. */
interface Site {
  /** The port that sends browsers to https. */
  http: number;
  /** The origin with TLS. */
  https: string;
  /** What `Authorization` has to be for the service. */
  token: string;
  /** Follows no redirect, and trusts the certificate. */
  get(url: string, init?: RequestInit): Promise<Response>;
}

/** Registers a test of both servers behind an nginx, all with the settings on the page. */
function testWithNginx(promise: string, run: (site: Site) => Promise<void>): void {
  testWith(["nginx", "openssl"], `DEPLOY.md has an nginx that ${promise}`, async () => {
    const directory = await Deno.makeTempDir();
    const settings = block("/etc/counter.env").match(/^\w+=.*$/gm) ?? [];
    const env = Object.fromEntries(settings.map((line) => line.split("=", 2)));
    env["KV_TOKEN"] = "t".repeat(32);
    await using kv = await startServer("kv.ts", { env });
    await using counter = await startServer("counter.ts", { env: { ...env, KV_URL: kv.url } });

    const certificate = join(directory, "counter.pem");
    const files: [string, string][] = [
      ["/etc/ssl/private/counter.key", join(directory, "counter.key")],
      ["/etc/ssl/certs/counter.pem", certificate],
      ["counter.example", "localhost"],
    ];
    const command = replaceAll(block("openssl req"), files);
    assertEquals((await runToEnd("sh", ["-c", command])).code, 0);

    const [http, tls] = [freePort(), freePort()];
    const config = replaceAll(block("conf.d/counter.conf"), [
      ...files,
      ["listen 80;", `listen 127.0.0.1:${http};`],
      ["listen 443 ", `listen 127.0.0.1:${tls} `],
      ["127.0.0.1:5000", `127.0.0.1:${new URL(counter.url).port}`],
      ["127.0.0.1:5100", `127.0.0.1:${new URL(kv.url).port}`],
    ]);
    await using _nginx = await startNginx(directory, config);
    using client = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(certificate)] });
    await run({
      http,
      https: `https://localhost:${tls}`,
      token: `Bearer ${env["KV_TOKEN"]}`,
      get: (url, init) => fetch(url, { client, redirect: "manual", ...init }),
    });
    await Deno.remove(directory, { recursive: true });
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
