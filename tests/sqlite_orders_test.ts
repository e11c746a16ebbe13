/** All orders of a few calls to one SQLite file and its syncs: tests/prove/sqlite_orders.ts. */
import { assert } from "@std/assert";
import { meet, MEETINGS, nameOf } from "./prove/sqlite_orders.ts";

for (const meeting of MEETINGS) {
  Deno.test(`sqliteStore() keeps every promise in all orders of: ${nameOf(meeting)}`, async () => {
    const { orders } = await meet(meeting);
    assert(orders > 10, `${orders}`);
  });
}
