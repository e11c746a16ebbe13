/** All orders of a few calls to a service and its network: tests/prove/http_orders.ts. */
import { assert } from "@std/assert";
import { meet, MEETINGS, nameOf } from "./prove/http_orders.ts";

for (const meeting of MEETINGS) {
  Deno.test(`httpStore() keeps every promise in all orders of: ${nameOf(meeting)}`, async () => {
    const { orders } = await meet(meeting);
    assert(orders > 10, `${orders}`);
  });
}
