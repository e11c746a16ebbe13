/**
 * Every order of events: runs a program again and again, each time with another order of its calls
 * to a store, or of what else it waits for, until all orders were tried.
 *
 * A call waits until it is chosen. Then it is done and answered; or, where faults are allowed, it is
 * refused; or its caller is told that the outcome is unknown, and the write is done at any later
 * moment or never; or its process crashes. Of two orders that differ only in calls which cannot
 * influence each other, one is tried (sleep sets: Godefroid, Partial-Order Methods, 1996, chapter 5).
 */
import { assertEquals } from "@std/assert";
import { setImmediate as endOfTurn } from "node:timers/promises";
import { type Store, StoreUnavailable } from "../../stores/store.ts";

/** Something that can happen next. */
interface Event {
  /** The same in every run with the same events before it. */
  readonly name: string;
  readonly process: string;
  /** What it reads or writes; null: everything; undefined: nothing outside of its process. */
  readonly key: string | null | undefined;
  readonly writes: boolean;
  readonly isFault: boolean;
  happen(): void;
}

/** A point of a run at which one of several events was chosen. */
interface Choice {
  readonly names: string[];
  /** Events that other runs have covered from here. */
  readonly covered: string[];
  chosen: string;
}

/** What {@linkcode everyOrder} has tried. */
export interface Tried {
  /** Orders that were run to their end and checked. */
  orders: number;
  /** Runs that were given up, since another order is the same. */
  same: number;
  /** The most events of one order. */
  longest: number;
}

/** What can happen instead of an event, by its name. */
export type Faults = Readonly<Record<string, () => void>>;

/** One run of a program, in one order. */
export class Order {
  readonly #pending: { event: Event; outcomes: Event[] }[] = [];
  readonly #calls = new Map<string, number>();
  readonly #crashed = new Set<string>();
  #faults: number;
  /** The names of what has happened, for a person who reads a failure. */
  readonly happened: string[] = [];
  /** Whether a call or something else has failed, or a process has crashed. */
  hasFailed = false;

  constructor(faults: number, readonly crashes: boolean, readonly turns: number) {
    this.#faults = faults;
  }

  /** Whether the process has crashed: its requests get no answer. */
  hasCrashed(process: string): boolean {
    return this.#crashed.has(process);
  }

  /** Returns `store` as one process sees it: each call waits until it is chosen. */
  storeOf(process: string, store: Store): Store {
    return {
      ...store,
      get: (key) => this.#call(process, "get", key, () => store.get(key)),
      set: (key, ...args) => this.#call(process, "set", key, () => store.set(key, ...args)),
      delete: (key, ...args) =>
        this.#call(process, "delete", key, () => store.delete(key, ...args)),
    };
  }

  /** Adds something else that can happen, and the faults that can happen instead of it. */
  add(process: string, what: string, happen: () => void, faults: Faults = {}): void {
    const number = this.#count(process);
    const named = (what: string, isFault: boolean, happen: () => void): Event => {
      const name = `${process}${number} ${what}`;
      return { name, process, key: null, writes: true, isFault, happen };
    };
    const outcomes = Object.entries(faults).map(([fault, happen]) => named(fault, true, happen));
    this.#add(named(what, false, happen), outcomes);
  }

  /** Returns what can happen next. */
  events(): Event[] {
    const all = this.#pending.flatMap(({ event, outcomes }) => [event, ...outcomes]);
    return all.filter(({ isFault }) => !isFault || this.#faults > 0);
  }

  happen(event: Event): void {
    const index = this.#pending.findIndex((it) =>
      it.event === event || it.outcomes.includes(event)
    );
    this.#pending.splice(index, 1);
    if (event.isFault) {
      this.#faults--;
      this.hasFailed = true;
    }
    this.happened.push(event.name);
    event.happen();
  }

  #call<T>(process: string, method: string, key: string, run: () => Promise<T>): Promise<T> {
    // A crashed process goes no further.
    if (this.#crashed.has(process)) return new Promise(() => {});
    const number = this.#count(process);
    const writes = method !== "get";
    return new Promise((resolve, reject) => {
      const named = (what: string, isFault: boolean, happen: () => void): Event => {
        const name = `${process}${number} ${method}${what}`;
        return { name, process, key: isFault ? undefined : key, writes, isFault, happen };
      };
      /** The write is done later, at any moment, or never. */
      const later = () => {
        if (!writes) return;
        const happen = () => void run().catch(() => {});
        const name = `${process}${number} late`;
        // It is at the store: what its process does has no influence on it.
        this.#add({ name, process: "", key, writes, isFault: false, happen });
      };
      const fail = (outcome: "unchanged" | "unknown") => {
        reject(new StoreUnavailable("It is gone", { outcome }));
      };
      const outcomes = [
        named(" refused", true, () => fail("unchanged")),
        named(" unknown", true, () => (later(), fail("unknown"))),
      ];
      if (!writes) outcomes.pop();
      if (this.crashes) {
        outcomes.push(named(" crash", true, () => {
          this.#crashed.add(process);
          later();
          this.#dropCallsOf(process);
        }));
      }
      this.#add(named("", false, () => void run().then(resolve, reject)), outcomes);
    });
  }

  /** Counts what a process waits for: its names are the same in every order. */
  #count(process: string): number {
    const number = (this.#calls.get(process) ?? 0) + 1;
    this.#calls.set(process, number);
    return number;
  }

  #dropCallsOf(process: string): void {
    const others = this.#pending.filter(({ event }) => event.process !== process);
    this.#pending.splice(0, Infinity, ...others);
  }

  #add(event: Event, outcomes: Event[] = []): void {
    this.#pending.push({ event, outcomes });
  }
}

/** Starts requests whose calls `order` chooses among. */
export type Program = (order: Order) => Promise<{
  /** Runs when nothing more can happen. */
  check(): Promise<void>;
  end(): Promise<void>;
}>;

/** What {@linkcode everyOrder} takes. */
export interface OrderOptions {
  /** How many calls of one order may fail. */
  faults?: number;
  /** Whether a process may crash, as one of the faults. */
  crashes?: boolean;
  /** The most orders to run; by default all. */
  limit?: number;
  /** How many turns of the event loop the program may need between two events. */
  turns?: number;
}

/**
 * Runs a program once for each order.
 *
 * @throws {Error} If a check fails; the message has the events of that order
 */
export async function everyOrder(
  begin: Program,
  { faults = 0, crashes = false, limit = Infinity, turns = 0 }: OrderOptions = {},
): Promise<Tried> {
  const tried: Tried = { orders: 0, same: 0, longest: 0 };
  const path: Choice[] = [];
  const { setTimeout, setImmediate } = globalThis;
  const counted = (run: () => void) => {
    pauses++;
    return setImmediate(() => {
      pauses--;
      run();
    });
  };
  // A pause of the code under test must not take time, nor make an order depend on it.
  const instant = (run: () => void, milliseconds = 0) =>
    milliseconds >= 1000 ? setTimeout(run, milliseconds) : counted(run);
  Object.assign(globalThis, { setTimeout: instant, setImmediate: counted });
  try {
    do {
      await runOnce(begin, new Order(faults, crashes, turns), path, tried);
    } while (tried.orders + tried.same < limit && backtrack(path));
  } finally {
    Object.assign(globalThis, { setTimeout, setImmediate });
  }
  return tried;
}

/** Runs the program in the order of `path`, and from its end on adds to it. */
async function runOnce(
  begin: Program,
  order: Order,
  path: Choice[],
  tried: Tried,
): Promise<void> {
  const { check, end } = await begin(order);
  try {
    if (!await follow(order, path)) {
      tried.same++;
      return;
    }
    await check();
  } catch (cause) {
    throw new Error(`After this order of events:\n${order.happened.join("\n")}`, { cause });
  } finally {
    await end();
  }
  tried.orders++;
  tried.longest = Math.max(tried.longest, order.happened.length);
}

/** Returns false where all that could follow has been covered by other orders. */
async function follow(order: Order, path: Choice[]): Promise<boolean> {
  let covered: string[] = [];
  for (let depth = 0;; depth++) {
    await settle(order.turns);
    const events = order.events();
    if (events.length === 0) return true;
    let choice = path[depth];
    if (choice === undefined) {
      const [first] = events.filter(({ name }) => !covered.includes(name));
      if (first === undefined) return false;
      choice = { names: events.map(({ name }) => name), covered, chosen: first.name };
      path.push(choice);
    }
    assertEquals(events.map(({ name }) => name), choice.names, "a run can be repeated");
    const chosen = events.find(({ name }) => name === choice.chosen) as Event;
    covered = choice.covered.filter((name) => {
      const event = events.find((it) => it.name === name);
      return event !== undefined && areIndependent(event, chosen);
    });
    order.happen(chosen);
  }
}

/** Pauses of the code under test that have not ended. */
let pauses = 0;

/** Prepares the next order. Returns false if there is none. */
function backtrack(path: Choice[]): boolean {
  for (let choice = path.pop(); choice !== undefined; choice = path.pop()) {
    const covered = [...choice.covered, choice.chosen];
    const next = choice.names.find((name) => !covered.includes(name));
    if (next === undefined) continue;
    path.push({ names: choice.names, covered, chosen: next });
    return true;
  }
  return false;
}

function areIndependent(a: Event, b: Event): boolean {
  if (a.key === null || b.key === null || a.process === b.process) return false;
  if (a.isFault && b.isFault) return false; // only one may be left
  return a.key !== b.key || !a.writes && !b.writes;
}

/** Lets the program go on until it waits for events: none of what it does between them takes long. */
async function settle(turns: number): Promise<void> {
  for (let turn = 0; turn <= turns || pauses > 0; turn++) await endOfTurn();
}
