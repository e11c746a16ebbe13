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

/** Which calls of a list are done. */
interface Done {
  /** All before this one. */
  readonly first: number;
  /** Those after it. */
  readonly ahead: ReadonlySet<number>;
}

/** A moment in an order that is being tried: what was done, and the value that is stored. */
interface Moment {
  readonly known: Done;
  readonly sets: Done;
  /** How many unknown deletes without a condition are done; one is as good as another. */
  readonly deletes: number;
  readonly value: string | null;
}

/** The calls of one key, each list by their begin. */
interface Calls {
  readonly known: readonly Call[];
  /** Sets of unknown outcome whose value was seen: others explain nothing. */
  readonly sets: readonly Call[];
  readonly deletes: readonly Call[];
  /** Deletes of one revision, by its value. */
  readonly removals: ReadonlyMap<string | null, readonly Call[]>;
  /** By revision. */
  readonly values: ReadonlyMap<string, string>;
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
  const sorted = all.filter(({ answer }) => answer.is !== "unchanged")
    .toSorted((a, b) => a.begin - b.begin);
  const known = sorted.filter(({ answer }) => answer.is !== "unknown");
  const unknown = sorted.filter(({ answer }) => answer.is === "unknown");
  const deletes = unknown.filter(({ op }) => op === "delete");
  const calls: Calls = {
    known,
    sets: unknown.filter(({ op, value = "" }) => op === "set" && revisions.has(value)),
    deletes: deletes.filter(({ ifRevision }) => ifRevision === undefined),
    removals: Map.groupBy(
      deletes.filter(({ ifRevision }) => ifRevision !== undefined),
      ({ ifRevision }) => values.get(ifRevision ?? "") ?? null,
    ),
    values,
  };
  const tried = new Map<string, number>();
  const none: Done = { first: 0, ahead: new Set() };
  const stack: Moment[] = [{ known: none, sets: none, deletes: 0, value: null }];
  let furthest = 0;
  for (let moment = stack.pop(); moment !== undefined; moment = stack.pop()) {
    const { first } = moment.known;
    if (first === known.length) return null;
    const name = `${nameOf(moment.known)} ${nameOf(moment.sets)} ${moment.value}`;
    // With fewer deletes done, more is possible from here.
    if ((tried.get(name) ?? Infinity) <= moment.deletes) continue;
    tried.set(name, moment.deletes);
    if (tried.size > MOST_MOMENTS) throw new Error(`No verdict after ${MOST_MOMENTS} moments`);
    furthest = Math.max(furthest, first);
    stack.push(...nextMoments(moment, calls));
  }
  return known[furthest] ?? null;
}

function nameOf({ first, ahead }: Done): string {
  return `${first} ${[...ahead].sort()}`;
}

function nextMoments(moment: Moment, calls: Calls): Moment[] {
  const { known, values } = calls;
  // Whatever begins after another call has ended comes after it.
  let end = Infinity;
  const possible: number[] = [];
  for (const i of rest(moment.known, known)) {
    const call = known[i] as Call;
    if (call.begin > end) break;
    possible.push(i);
    end = Math.min(end, call.end);
  }
  const next = lateMoments(moment, calls, end);
  for (const i of possible) {
    const call = known[i] as Call;
    const value = valueAfter(call, moment.value, values);
    if (value === undefined) continue;
    const done = { known: withDone(moment.known, i) };
    // What changes nothing may as well be done now.
    if (value === moment.value && call.answer.is !== "written") return [{ ...moment, ...done }];
    next.push({ ...moment, ...done, value });
  }
  return next;
}

/** Returns the moments after one of the unknown writes that had begun by `end`. */
function lateMoments(moment: Moment, calls: Calls, end: number): Moment[] {
  const { value, deletes } = moment;
  const next: Moment[] = [];
  const hasBegun = (call: Call | undefined) => call !== undefined && call.begin <= end;
  if (value !== null) {
    // The unknown deletes come first, in the order in which they began.
    if (hasBegun(calls.deletes[deletes])) {
      next.push({ ...moment, deletes: deletes + 1, value: null });
    }
    // A revision is stored once, so a delete of it is done once.
    if (calls.removals.get(value)?.some(hasBegun)) next.push({ ...moment, value: null });
  }
  for (const i of rest(moment.sets, calls.sets)) {
    const call = calls.sets[i] as Call;
    if (!hasBegun(call)) break;
    if (!holds(call, value, calls.values)) continue;
    next.push({ ...moment, sets: withDone(moment.sets, i), value: call.value ?? null });
  }
  return next;
}

/** Returns the calls that are not done. */
function* rest({ first, ahead }: Done, calls: readonly Call[]): Iterable<number> {
  for (let i = first; i < calls.length; i++) if (!ahead.has(i)) yield i;
}

function withDone({ first, ahead }: Done, i: number): Done {
  const more = new Set(ahead).add(i);
  while (more.delete(first)) first++;
  return { first, ahead: more };
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

/** Whether the condition of a write holds. */
function holds(
  { ifRevision }: Call,
  before: string | null,
  values: ReadonlyMap<string, string>,
): boolean {
  if (ifRevision === undefined) return true;
  return ifRevision === null ? before === null : values.get(ifRevision) === before;
}
