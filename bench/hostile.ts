/** Hostile clients: the answers they get, how long others wait, and how much memory the service takes. */
import { setTimeout as delay } from "node:timers/promises";
import { memory, type Options, progress, type Started, whole } from "./load.ts";
import { Servers } from "./servers.ts";
import { table } from "./tables.ts";

const MIB = 2 ** 20;
/** How long an answer is waited for, in milliseconds. */
const PATIENCE = 60_000;

/** What a client does to the service. */
interface Attack {
  name: string;
  /** Files and connections that the service may have open; by default as many as the shell's. */
  files?: number;
  /** What the store holds before. */
  values?: number;
  /** Returns the status of each answer. */
  run(service: Started, options: Options): Promise<string[]>;
}

/** Sizes are as `options.keys` says, so that a test can be short; the names hold for 1,000,000. */
const ATTACKS: Attack[] = [
  { name: "nothing, for comparison", run: (_, { seconds }) => delay(seconds * 1000, []) },
  {
    name: "an object of 1,400,000 keys",
    run: (service, { keys }) => post(service, object(1.4 * keys)),
  },
  {
    name: "an array of 1.0, 7 MiB",
    run: (service, { keys }) => post(service, `[${"1.0,".repeat(1.83 * keys)}1]`),
  },
  {
    name: "a form of 2,000,000 fields",
    run: (service, { keys }) => post(service, `${"a=1&".repeat(2 * keys)}a=1`, FORM),
  },
  {
    name: "8,000,000 brackets",
    run: (service, { keys }) => post(service, "[".repeat(8 * keys)),
  },
  {
    name: "60,000 chunks of one byte",
    run: (service, { keys }) =>
      posts(
        service,
        1,
        "Transfer-Encoding: chunked",
        `1\r\n \r\n`.repeat(0.06 * keys) + "0\r\n\r\n",
      ),
  },
  {
    name: "7 arrays of 1,000 reads of 1 MiB, unread",
    values: 1,
    run: (service, { seconds }) => {
      const operations = Array.from({ length: 1000 }, () => ({ op: "get", key: "value0" }));
      const body = JSON.stringify(operations);
      return posts(service, 7, `Content-Length: ${body.length}`, body, seconds);
    },
  },
  {
    name: "100 streams of changes, unread, during 64 writes of 1 MiB",
    run: async (service, { seconds, keys }) => {
      const answers = gets(service, 100, "text/event-stream", seconds + 1);
      await delay(Math.min(500, 500 * seconds));
      await putValues(service, 64, keys);
      return await answers;
    },
  },
  {
    name: "60 dumps of 64 MiB, unread",
    values: 64,
    run: (service, { seconds }) => gets(service, 60, "application/x-ndjson", seconds),
  },
  {
    name: "300 idle connections, 200 files allowed",
    files: 200,
    run: (service, { seconds }) => connections(service, 300, "", seconds),
  },
];

/** Each attack on a `kv.ts` of its own, on SQLite, while another client reads a key. */
export async function hostile(options: Options): Promise<string> {
  const rows: (string | number)[][] = [];
  for (const attack of ATTACKS) {
    progress(attack.name);
    await using servers = new Servers();
    const service = await servers.kv();
    const [pid = 0] = service.pids;
    await putValues(service, attack.values ?? 0, options.keys);
    if (attack.files !== undefined) limitFiles(pid, attack.files);
    const others = await watch(`${service.url}/probe`);
    const statuses = await attack.run(service, options);
    // What the service has to clean up may keep others waiting, too.
    await delay(Math.min(500, 500 * options.seconds));
    const { longest, failed } = await others.stop();
    const after = await fetch(service.url).then(
      (it) => it.body?.cancel().then(() => "yes"),
      () => "no",
    );
    const cells = [tally(statuses), whole(longest), failed, memory(pid).peak, after ?? ""];
    rows.push([attack.name, ...cells]);
  }
  return table([
    "Attack",
    "Answers",
    "Longest wait of another client, ms",
    "Others refused",
    "Peak memory, MiB",
    "Serves afterwards",
  ], rows);
}

const JSON_TYPE = "application/json";
const FORM = "application/x-www-form-urlencoded";

function object(keys: number): string {
  return `{${Array.from({ length: keys }, (_, i) => `"${i.toString(36)}":0`)}}`;
}

async function post(service: Started, body: string, type = JSON_TYPE): Promise<string[]> {
  return await posts(service, 1, `Content-Length: ${body.length}`, body, undefined, type);
}

/** Posts the same body over connections of their own. */
async function posts(
  service: Started,
  count: number,
  framing: string,
  body: string,
  seconds?: number,
  type = JSON_TYPE,
): Promise<string[]> {
  const head = `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\n${framing}\r\n\r\n`;
  return await connections(service, count, head + body, seconds);
}

async function gets(service: Started, count: number, type: string, seconds: number) {
  const head = `GET / HTTP/1.1\r\nHost: localhost\r\nAccept: ${type}\r\n\r\n`;
  return await connections(service, count, head, seconds);
}

/** Sends the same bytes over `count` connections, and returns the status of each. */
async function connections({ url }: Started, count: number, text: string, seconds?: number) {
  const bytes = new TextEncoder().encode(text);
  const one = () => connection(Number(new URL(url).port), bytes, seconds);
  return await Promise.all(Array.from({ length: count }, one));
}

/**
 * Sends bytes and reads the status; the rest of the answer stays unread.
 *
 * @param seconds How long the connection is kept; by default it is closed after the status
 */
async function connection(port: number, bytes: Uint8Array, seconds?: number): Promise<string> {
  const isKept = seconds !== undefined;
  // Unreferenced, so that the program can end before.
  const end = delay(isKept ? seconds * 1000 : PATIENCE, "none", { ref: isKept });
  let connection: Deno.TcpConn | undefined;
  try {
    const opened = connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const sent = send(opened, bytes);
    const status = await Promise.race([end, sent.then(() => readStatus(opened))]);
    if (isKept) await end;
    return status;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return "cut off";
  } finally {
    connection?.close();
  }
}

async function send(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  try {
    for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
  } catch (error) {
    // A server may answer and close the connection before it has read everything.
    const isCut = error instanceof Deno.errors.BrokenPipe ||
      error instanceof Deno.errors.ConnectionReset;
    if (!isCut) throw error;
  }
}

async function readStatus(connection: Deno.TcpConn): Promise<string> {
  const bytes = new Uint8Array(64);
  const length = await connection.read(bytes);
  if (length === null) return "closed";
  return /^HTTP\/1\.1 (\d+)/.exec(new TextDecoder().decode(bytes))?.[1] ?? "no HTTP";
}

/** Counts equal statuses: `60 × 200`. */
function tally(statuses: string[]): string {
  const groups = Map.groupBy(statuses, (status) => status);
  return [...groups].map(([status, { length }]) => length === 1 ? status : `${length} × ${status}`)
    .join(", ");
}

/** Writes values of 1 MiB at most, `value0` and so on. */
async function putValues({ url }: Started, count: number, keys: number): Promise<void> {
  const body = JSON.stringify("x".repeat(Math.min(MIB - 2, keys)));
  const headers = { "Content-Type": JSON_TYPE };
  for (let i = 0; i < count; i++) {
    const response = await fetch(`${url}/value${i}`, { method: "PUT", body, headers });
    await response.body?.cancel();
  }
}

function limitFiles(pid: number, files: number): void {
  const args = ["--pid", String(pid), `--nofile=${files}`];
  const { success, stderr } = new Deno.Command("prlimit", { args }).outputSync();
  if (!success) throw new Error(`prlimit: ${new TextDecoder().decode(stderr)}`);
}

/** Reads an address every few milliseconds, from a thread of its own, until it is stopped. */
export async function watch(url: string) {
  const worker = new Worker(import.meta.resolve("./probe.ts"), { type: "module" });
  const next = () => new Promise<MessageEvent>((resolve) => worker.onmessage = resolve);
  const started = next();
  worker.postMessage(url);
  await started;
  return {
    async stop(): Promise<{ longest: number; failed: number }> {
      const result = next();
      worker.postMessage("stop");
      return (await result).data;
    },
  };
}
