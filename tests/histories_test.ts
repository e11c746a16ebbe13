/** tests/helpers/histories.ts: what the checker of histories refuses, and what it accepts. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { json } from "../stores/json/text.ts";
import { memoryStore } from "../stores/memory.ts";
import { type Entry, type Store, StoreUnavailable } from "../stores/store.ts";
import { slowStore } from "./helpers/faulty_stores.ts";
import { type Call, recorded, violations } from "./helpers/histories.ts";
import { scoped } from "./helpers/scoped.ts";

/** Makes a history: each call begins after the one before has ended, unless it says otherwise. */
function history(...calls: Partial<Call>[]): Call[] {
  return calls.map((call, i) => ({
    op: "get",
    key: "k",
    begin: 2 * i,
    end: 2 * i + 1,
    answer: { is: "found", entry: null },
    ...call,
  }));
}

const A = { value: "a", revision: "1" };
const B = { value: "b", revision: "2" };
const SET_A: Partial<Call> = { op: "set", value: "a", answer: { is: "written", revision: "1" } };
const SET_B: Partial<Call> = { op: "set", value: "b", answer: { is: "written", revision: "2" } };
const SAW_A: Partial<Call> = { answer: { is: "found", entry: A } };
const SAW_B: Partial<Call> = { answer: { is: "found", entry: B } };
const SAW_NOTHING: Partial<Call> = { answer: { is: "found", entry: null } };
const LATE_B: Partial<Call> = { op: "set", value: "b", answer: { is: "unknown" } };

for (
  const [name, expected, ...calls] of [
    ["an acknowledged write that is gone", "no order explains", SET_A, SAW_NOTHING],
    ["a stale read", "no order explains", SET_A, SET_B, SAW_A],
    ["two reads that disagree about the order", "no order explains", SET_A, { ...SET_B, end: 9 }, {
      ...SAW_B,
    }, SAW_A],
    ["a dropped condition", "no order explains", SET_A, { ...SET_B, ifRevision: null }],
    ["a conflict without a reason", "no order explains", SET_A, {
      ...LATE_B,
      ifRevision: "1",
      answer: { is: "conflict", entry: A },
    }],
    ["a write that was done twice", "was written twice", SET_A, {
      answer: { is: "found", entry: { value: "a", revision: "3" } },
    }],
    ["a revision of two writes", "revision 1 is of a and of b", SET_A, {
      ...SET_B,
      answer: { is: "written", revision: "1" },
    }],
    ["a write told unchanged that is stored", "was told unchanged", {
      ...SET_A,
      answer: { is: "unchanged" },
    }, SAW_A],
    [
      "an unknown write that is done twice",
      "no order explains",
      SET_A,
      LATE_B,
      SAW_B,
      SET_C(),
      SAW_B,
    ],
    ["a delete that removed what was gone", "no order explains", SET_A, {
      ...SAW_A,
      op: "delete",
    }, { ...SAW_A, op: "delete" }],
    ["a key that came back", "no order explains", SET_A, { ...SAW_A, op: "delete" }, SAW_A],
  ] as [string, string, ...Partial<Call>[]][]
) {
  Deno.test(`violations() refuses ${name}`, () => {
    assertStringIncludes(violations(history(...calls)).join(), expected);
  });
}

for (
  const [name, ...calls] of [
    ["reads during a write that see it or not", SET_A, { ...SET_B, end: 9 }, SAW_A, SAW_B],
    ["an unknown write that is never done", SET_A, LATE_B, SAW_A, SAW_A],
    ["an unknown write that is done later", SET_A, LATE_B, SAW_A, SAW_B],
    [
      "an unknown delete that is done later",
      SET_A,
      { op: "delete", answer: { is: "unknown" } },
      SAW_A,
      SAW_NOTHING,
    ],
    ["a conflict with a write under way", { ...SET_A, end: 9 }, {
      ...LATE_B,
      ifRevision: null,
      answer: { is: "conflict", entry: A },
    }],
    ["a refused write that is nowhere", SET_A, { ...LATE_B, answer: { is: "unchanged" } }, SAW_A],
  ] as [string, ...Partial<Call>[]][]
) {
  Deno.test(`violations() accepts ${name}`, () => {
    assertEquals(violations(history(...calls)), []);
  });
}

function SET_C(): Partial<Call> {
  return { op: "set", value: "c", answer: { is: "written", revision: "3" } };
}

/** Four clients that read, write and delete two keys, and what they were answered. */
async function historyOf(store: Store, clients: readonly (readonly number[])[]): Promise<Call[]> {
  const calls: Call[] = [];
  let time = 0;
  let writes = 0;
  const client = recorded(store, calls, () => ++time);
  await Promise.all(clients.map(async (choices) => {
    let revision: string | null = null;
    for (const choice of choices) {
      const key = `k${choice % 2}`;
      const ifRevision = choice % 3 === 0 ? revision : undefined;
      const call: Promise<Entry | null> = choice < 40
        ? client.get(key)
        : choice < 80
        ? client.set(key, json(++writes), { ifRevision })
        : client.delete(key, { ifRevision });
      const entry = await call.catch(() => null);
      revision = entry?.revision ?? null;
    }
  }));
  return calls;
}

const clients = fc.array(fc.array(fc.nat(99), { minLength: 20, maxLength: 40 }), {
  minLength: 4,
  maxLength: 4,
});

Deno.test("violations() accepts what a store in memory answers to four clients", async () => {
  await fc.assert(
    fc.asyncProperty(clients, async (choices) => {
      await using memory = scoped(memoryStore());
      assertEquals(violations(await historyOf(slowStore(memory), choices)), []);
    }),
    { numRuns: 50 },
  );
});

/** Stores with one defect each, which shows once in a while. */
const DEFECTS: Record<string, (store: Store, happens: () => boolean) => Store> = {
  "acknowledges a write before it is done": (store, happens) => ({
    ...store,
    set: async (key, value, options) => {
      if (!happens()) return await store.set(key, value, options);
      setTimeout(() => store.set(key, value, options).catch(() => {}), 2);
      return { key, value, revision: crypto.randomUUID(), expires: null, created: true };
    },
  }),
  "reads what is outdated": (store, happens) => {
    const seen = new Map<string, Awaited<ReturnType<Store["get"]>>>();
    return {
      ...store,
      get: async (key) => {
        if (happens() && seen.has(key)) return seen.get(key) ?? null;
        const entry = await store.get(key);
        seen.set(key, entry);
        return entry;
      },
    };
  },
  "drops a condition": (store, happens) => ({
    ...store,
    set: (key, value, options) => store.set(key, value, happens() ? {} : options),
  }),
  "does a write twice": (store, happens) => ({
    ...store,
    set: async (key, value, options) => {
      const written = await store.set(key, value, options);
      return happens() ? await store.set(key, value) : written;
    },
    // As a client does that sends a request again, and reports only the second answer.
    delete: async (key, options) => {
      const removed = await store.delete(key, options);
      return happens() ? await store.delete(key, options) : removed;
    },
  }),
  "says unchanged of a write that it does": (store, happens) => ({
    ...store,
    set: async (key, value, options) => {
      const written = await store.set(key, value, options);
      if (!happens()) return written;
      throw new StoreUnavailable("It is gone", { outcome: "unchanged" });
    },
  }),
};

for (const [name, defective] of Object.entries(DEFECTS)) {
  Deno.test(`violations() refuses a store that ${name}`, async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(clients, async (choices) => {
        await using memory = scoped(memoryStore());
        let calls = 0;
        const store = defective(slowStore(memory), () => ++calls % 5 === 0);
        if (violations(await historyOf(store, choices)).length > 0) refused++;
        await new Promise((resolve) => setTimeout(resolve, 3));
      }),
      { numRuns: 20 },
    );
    assert(refused >= 10, `${refused} of 20`);
  });
}
