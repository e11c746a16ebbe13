/** All orders of events of a few requests to one session: tests/prove/orders.ts. */
import { assert } from "@std/assert";
import { meet, MEETINGS, nameOf } from "./prove/orders.ts";

for (const meeting of MEETINGS) {
  Deno.test(`sessions keep every promise in all orders of: ${nameOf(meeting)}`, async () => {
    const { orders } = await meet(meeting);
    assert(orders > 10, `${orders}`);
  });
}
