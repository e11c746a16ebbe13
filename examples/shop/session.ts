/** What the shop keeps about a visitor, in two sessions. */
import type { Session } from "@counter/sessions";
import { z } from "zod";

/** Kept in the store, and gone after a logout. */
export const Visit = z.object({
  user: z.string().nullable().default(null),
  /** Whether the session outlives the browser. */
  remember: z.boolean().default(false),
  /** How many of each product, by the product's id. */
  basket: z.record(z.string(), z.int().min(1)).default({}),
  /** What the next page tells the visitor. */
  messages: z.array(z.string()).default([]),
});

/** Kept in a signed cookie, for as long as the browser keeps it. */
export const Preferences = z.object({ theme: z.enum(["light", "dark"]).default("light") });

export type Visit = z.infer<typeof Visit>;

/** What every router of the shop finds in its context. */
export interface Env {
  Variables: {
    session: Session<Visit>;
    prefs: Session<z.infer<typeof Preferences>>;
  };
}

/** Adds a message for the next page. */
export const say = (visit: Visit, message: string): Visit => ({
  ...visit,
  messages: [...visit.messages, message],
});

/** Takes the messages out of the session, so that each is shown once. */
export async function takeMessages(session: Session<Visit>): Promise<string[]> {
  let taken: string[] = [];
  await session.update((s) => (taken = s.messages).length === 0 ? s : { ...s, messages: [] });
  return taken;
}
