/**
 * Histories: what clients asked of a store, and when they were answered what. `violations` decides
 * whether a store that does one call after the other, each at some moment between its begin and its
 * end, could have given all these answers (Herlihy and Wing, Linearizability, 1990).
 *
 * Every write has a value of its own, so that a value names the write that it came from.
 */
import {
  type Entry,
  type JsonText,
  RevisionConflict,
  type RevisionOption,
  type Store,
  StoreFull,
  StoreUnavailable,
} from "../../stores/store.ts";

/** What is said of an entry: its value and its revision. */
interface Seen {
  value: string;
  revision: string;
}

/** How a call ended. */
export type Answer =
  /** A `get` or a `delete`, or a conflict: the entry that was there. */
  | { is: "found" | "conflict"; entry: Seen | null }
  | { is: "written"; revision: string }
  /** A write that was not done, or any read that failed. */
  | { is: "unchanged" }
  /** A write that may have been done, or may be done later. */
  | { is: "unknown" };

/** One call, and its answer. */
export interface Call extends RevisionOption {
  op: "get" | "set" | "delete";
  key: string;
  /** What a `set` writes: no other writes the same. */
  value?: string;
  /** When it was called and when it was answered, by one clock. */
  begin: number;
  end: number;
  answer: Answer;
}

/** The most moments that are tried before the search gives up. */
const MOST_MOMENTS = 1_000_000;

/** Returns `store`, each of whose calls is noted in `history`. */
export function recorded(
  store: Store,
  history: Call[],
  now = () => performance.now(),
): Pick<Store, "get" | "set" | "delete"> {
  async function note<T>(
    call: Pick<Call, "op" | "key" | "value" | "ifRevision">,
    run: () => Promise<T>,
    answerOf: (result: T) => Answer,
  ): Promise<T> {
    const begin = now();
    const add = (answer: Answer) => history.push({ ...call, begin, end: now(), answer });
    try {
      const result = await run();
      add(answerOf(result));
      return result;
    } catch (error) {
      if (error instanceof RevisionConflict) add({ is: "conflict", entry: error.current });
      else if (error instanceof StoreFull) add({ is: "unchanged" });
      else if (error instanceof StoreUnavailable) add({ is: error.outcome });
      throw error;
    }
  }
  const found = (entry: Entry | null): Answer => ({ is: "found", entry });
  return {
    get: (key) => note({ op: "get", key }, () => store.get(key), found),
    set: (key, value: JsonText, options = {}) =>
      note(
        { op: "set", key, value, ifRevision: options.ifRevision },
        () => store.set(key, value, options),
        ({ revision }) => ({ is: "written", revision }),
      ),
    delete: (key, options = {}) =>
      note(
        { op: "delete", key, ifRevision: options.ifRevision },
        () => store.delete(key, options),
        found,
      ),
  };
}

/** Returns what no store that keeps its promises could have answered, a sentence each. */
export function violations(history: readonly Call[]): string[] {
  const byKey = Map.groupBy(history, ({ key }) => key);
  return [...byKey].flatMap(([key, calls]) => violationsOf(calls).map((it) => `${key}: ${it}`));
}

function violationsOf(calls: readonly Call[]): string[] {
  const values = new Map<string, string>();
  const revisions = new Map<string, string>();
  const found: string[] = [];
  for (const { value, answer } of calls) {
    const seen = answer.is === "written"
      ? { value: value ?? "", revision: answer.revision }
      : seenIn(answer);
    if (seen === null) continue;
    if ((values.get(seen.revision) ?? seen.value) !== seen.value) {
      found.push(
        `revision ${seen.revision} is of ${values.get(seen.revision)} and of ${seen.value}`,
      );
    }
    if ((revisions.get(seen.value) ?? seen.revision) !== seen.revision) {
      found.push(`${seen.value} was written twice`);
    }
    values.set(seen.revision, seen.value);
    revisions.set(seen.value, seen.revision);
  }
  for (const { value, answer } of calls) {
    if (answer.is === "unchanged" && value !== undefined && revisions.has(value)) {
      found.push(`${value} was told unchanged, and is stored`);
    }
  }
  const stuck = found.length > 0 ? null : firstStuck(calls, values, revisions);
  if (stuck !== null) found.push(`no order explains ${JSON.stringify(stuck)}`);
  return found;
}

function seenIn(answer: Answer): Seen | null {
  return answer.is === "found" || answer.is === "conflict" ? answer.entry : null;
}

/** A moment in an order that is being tried: what was done, and the value that is stored. */
interface Moment {
  /** All before this one are done. */
  readonly first: number;
  /** Those after it that are done. */
  readonly ahead: ReadonlySet<number>;
  /** The unknown sets that are done. */
  readonly late: ReadonlySet<number>;
  /** How many unknown deletes without a condition are done; one is as good as another. */
  readonly deletes: number;
  readonly value: string | null;
}

/**
 * Searches for an order, depth first (Wing and Gong, 1993; with Lowe's memory of moments, 2017).
 * Returns null if there is one, or the earliest call that no order got past.
 */
function firstStuck(
  all: readonly Call[],
  values: ReadonlyMap<string, string>,
  revisions: ReadonlyMap<string, string>,
): Call | null {
  const known = all.filter(({ answer }) => answer.is !== "unchanged" && answer.is !== "unknown")
    .sort((a, b) => a.begin - b.begin);
  // A value that nobody has seen explains nothing.
  const unknown = all.filter(({ op, value = "", answer }) => {
    return answer.is === "unknown" && (op === "delete" || revisions.has(value));
  }).sort((a, b) => Number(isPlainDelete(b)) - Number(isPlainDelete(a)) || a.begin - b.begin);
  const tried = new Map<string, number>();
  const start = {
    first: 0,
    ahead: new Set<number>(),
    late: new Set<number>(),
    deletes: 0,
    value: null,
  };
  const stack: Moment[] = [start];
  let furthest = 0;
  for (let moment = stack.pop(); moment !== undefined; moment = stack.pop()) {
    const { first, ahead, late, deletes, value } = moment;
    if (first === known.length) return null;
    const name = `${first} ${[...ahead].sort()} ${[...late].sort()} ${value}`;
    // With fewer deletes done, more is possible from here.
    if ((tried.get(name) ?? Infinity) <= deletes) continue;
    tried.set(name, deletes);
    if (tried.size > MOST_MOMENTS) throw new Error(`No verdict after ${MOST_MOMENTS} moments`);
    furthest = Math.max(furthest, first);
    stack.push(...nextMoments(moment, known, unknown, values));
  }
  return known[furthest] ?? null;
}

function nextMoments(
  moment: Moment,
  known: readonly Call[],
  unknown: readonly Call[],
  values: ReadonlyMap<string, string>,
): Moment[] {
  // Whatever begins after another call has ended comes after it.
  let end = Infinity;
  const possible: number[] = [];
  for (let i = moment.first; i < known.length; i++) {
    const call = known[i] as Call;
    if (call.begin > end) break;
    if (moment.ahead.has(i)) continue;
    possible.push(i);
    end = Math.min(end, call.end);
  }
  const next = unknown.flatMap((call, i) => lateMoment(moment, call, i, end, values) ?? []);
  for (const i of possible) {
    const call = known[i] as Call;
    const value = valueAfter(call, moment.value, values);
    if (value === undefined) continue;
    const done = doneAt(moment, i);
    // What changes nothing may as well be done now.
    if (value === moment.value && call.answer.is !== "written") return [{ ...moment, ...done }];
    next.push({ ...moment, ...done, value });
  }
  return next;
}

/** Returns the moment after an unknown write is done, or null if it cannot be done now. */
function lateMoment(
  moment: Moment,
  call: Call,
  i: number,
  end: number,
  values: ReadonlyMap<string, string>,
): Moment | null {
  const { value, late, deletes } = moment;
  if (call.begin > end || !holds(call, value, values)) return null;
  if (call.op === "set") {
    return late.has(i)
      ? null
      : { ...moment, late: new Set(late).add(i), value: call.value ?? null };
  }
  if (value === null) return null;
  // A revision is stored once, so a delete of it is done once.
  if (call.ifRevision !== undefined) return { ...moment, value: null };
  // The unknown deletes come first, in the order in which they began.
  return i === deletes ? { ...moment, deletes: deletes + 1, value: null } : null;
}

function doneAt({ first, ahead }: Moment, i: number): Pick<Moment, "first" | "ahead"> {
  const rest = new Set(ahead).add(i);
  while (rest.delete(first)) first++;
  return { first, ahead: rest };
}

/** Returns the value that is stored after a call, or undefined if its answer cannot be this one. */
function valueAfter(
  call: Call,
  before: string | null,
  values: ReadonlyMap<string, string>,
): string | null | undefined {
  const { answer } = call;
  if (answer.is === "written") return holds(call, before, values) ? call.value : undefined;
  const seen = seenIn(answer)?.value ?? null;
  if (seen !== before) return undefined;
  if (answer.is === "conflict") return holds(call, before, values) ? undefined : before;
  if (call.op === "get") return before;
  return holds(call, before, values) ? null : undefined;
}

function isPlainDelete({ op, ifRevision }: Call): boolean {
  return op === "delete" && ifRevision === undefined;
}

/** Whether the condition of a write holds. */
function holds(
  { ifRevision }: Call,
  before: string | null,
  values: ReadonlyMap<string, string>,
): boolean {
  if (ifRevision === undefined) return true;
  return ifRevision === null ? before === null : values.get(ifRevision) === before;
}
