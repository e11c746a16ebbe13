/**
 * Every order in which a few calls to a service can meet its network and their deadlines: the real
 * client, over connections that an order connects, answers, cuts and delays.
 */
import { assert, assertEquals } from "@std/assert";
import { everyOrder, type Program, type Tried } from "../helpers/orders.ts";
import { httpStore } from "../../stores/http/store.ts";
import { json } from "../../stores/json/text.ts";
import { type Store, StoreUnavailable } from "../../stores/store.ts";
import { KEY, Service, TIMEOUT } from "./http_service.ts";

/** What a client does. */
export type Call = "set" | "setAll" | "delete" | "get" | "close";

/** One client, which waits for none of its calls. */
class Client {
  readonly #store: Store = httpStore("http://127.0.0.1:5100", { deadline: 2 * TIMEOUT });
  readonly #service: Service;
  /** The numbers of its writes by what became of them. */
  readonly #writes: Record<"done" | "unchanged" | "unknown", number[]> = {
    done: [],
    unchanged: [],
    unknown: [],
  };
  readonly #wrong: unknown[] = [];
  #waiting = 0;
  #calls = 0;
  #reads = 0;
  #isClosed = false;

  constructor(service: Service) {
    this.#service = service;
  }

  /** Offers its calls, one after the other. */
  run(calls: readonly Call[]): void {
    const [call, ...others] = calls;
    if (call === undefined) return;
    const begin = () => {
      this.#waiting++;
      this.#call(call).catch((error) => this.#wrong.push(error)).finally(() => this.#waiting--);
      this.run(others);
    };
    this.#service.order.add("client", call, begin, {
      [`${call} as all connections end`]: () => (this.#service.endConnections(), begin()),
    });
  }

  async #call(call: Call): Promise<void> {
    const { values } = this.#service;
    const number = ++this.#calls;
    const isLate = this.#isClosed;
    const from = values.length - 1;
    try {
      if (call === "close") {
        this.#isClosed = true;
        await this.#store.close();
        assertEquals(this.#service.open.size, 0, "a connection is left");
        await new Promise((resolve) => setImmediate(resolve));
        assertEquals(this.#waiting, 1, "close() waits for other calls");
      } else if (call === "get") {
        this.#reads++;
        const found = await this.#store.get(KEY);
        const known = values.slice(from).map(String);
        assert(known.includes(found?.value ?? "null"), `${found?.value}, not of ${known}`);
      } else {
        const value = json(number);
        if (call === "set") await this.#store.set(KEY, value);
        else if (call === "setAll") await this.#store.setAll(new Map([[KEY, value]]));
        else await this.#store.delete(KEY);
        if (call !== "delete") this.#writes.done.push(number);
      }
      assert(!isLate, "a call after close()");
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error;
      assert(isLate || this.#service.order.hasFailed, "a failure of nothing");
      assert(!isLate || error.outcome === "unchanged", "a call after close()");
      if (call === "get") assertEquals(error.outcome, "unchanged", "of a read");
      if (call === "set" || call === "setAll") this.#writes[error.outcome].push(number);
    }
  }

  async check(): Promise<void> {
    for (const error of this.#wrong) throw error;
    assertEquals(this.#waiting, 0, "each call ends");
    const { values, sent, deadlines, open, connections, order } = this.#service;
    // One has all writes.
    const most = this.#reads + (this.#reads < this.#calls ? 1 : 0);
    assert(order.hasFailed || connections <= most, "connections are used again");
    const { done, unchanged, unknown } = this.#writes;
    const written = values.filter((it) => it !== null);
    assertEquals(new Set(written).size, written.length, `a write was done twice: ${written}`);
    const wasSent = (number: number) => new RegExp(`[":]${number}[,}]`).test(sent);
    assertEquals(done.filter((it) => !written.includes(it)), [], "done");
    assertEquals(done, written.filter((it) => done.includes(it)), "in the order of the calls");
    assertEquals(unchanged.filter((it) => written.includes(it) || wasSent(it)), [], "unchanged");
    assertEquals(unknown.filter((it) => !wasSent(it)), [], "unknown");
    assertEquals(deadlines, 0, "a timer is left");
    await this.#store.close();
    assertEquals(open.size, 0, "a connection is left");
  }
}

function calls(asked: readonly Call[]): Program {
  return (order) => {
    const service = new Service(order);
    const client = new Client(service);
    client.run(asked);
    return Promise.resolve({
      check: () => client.check(),
      end: () => Promise.resolve(service.end()),
    });
  };
}

/** Calls that meet, and how many messages or connections may fail. */
export interface Meeting {
  readonly faults: number;
  readonly asked: readonly Call[];
}

/** All orders of these take some seconds. */
export const MEETINGS: Meeting[] = [
  { faults: 0, asked: ["set", "setAll", "set"] },
  { faults: 1, asked: ["set", "get"] },
  { faults: 1, asked: ["set", "setAll", "close"] },
  { faults: 2, asked: ["set", "set"] },
];

/** All orders of these take minutes. */
export const LARGE_MEETINGS: Meeting[] = [
  { faults: 0, asked: ["set", "get", "delete", "set"] },
  { faults: 1, asked: ["set", "set", "get"] },
  { faults: 1, asked: ["set", "get", "close"] },
  { faults: 2, asked: ["get", "get"] },
  { faults: 2, asked: ["set", "setAll", "delete"] },
];

/** Names a meeting. */
export function nameOf({ faults, asked }: Meeting): string {
  return asked.join(", ") + (faults === 0 ? "" : `, and ${faults} of their messages may fail`);
}

/** Runs all orders of a meeting. */
export async function meet({ faults, asked }: Meeting): Promise<Tried> {
  return await everyOrder(calls(asked), { faults, turns: 3 });
}
