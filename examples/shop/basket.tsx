/** The basket, its JSON routes, and the order that empties it. */
import { Hono } from "hono";
import { z } from "zod";
import { Button, page } from "./page.tsx";
import { euros, products, total } from "./products.ts";
import { type Env, say, type Visit } from "./session.ts";

/** Returns the visit with `count` of a product in its basket. */
function put(visit: Visit, id: string, count: number): Visit {
  const { [id]: _, ...others } = visit.basket;
  return { ...visit, basket: count > 0 ? { ...others, [id]: count } : others };
}

export const basket = new Hono<Env>()
  .get("/", async (c) => {
    const { basket } = await c.var.session.read();
    return await page(
      c,
      "Basket",
      <>
        <ul>
          {Object.entries(basket).map(([id, count]) => (
            <li>
              {count} × {products.get(id)?.name} <Button to={`/basket/${id}/remove`}>Remove</Button>
            </li>
          ))}
        </ul>
        <p>Total: {euros(total(basket))}</p>
        <Button to="/basket/order">Order</Button>
      </>,
    );
  })
  .post("/order", async (c) => {
    const { user } = await c.var.session.read();
    if (user === null) {
      await c.var.session.update((s) => say(s, "Please log in to order"));
      return c.redirect("/login", 303);
    }
    // The update may run more than once, so the order is placed after it.
    let ordered: Visit["basket"] = {};
    await c.var.session.update((s) => {
      ordered = s.basket;
      return say({ ...s, basket: {} }, `You ordered for ${euros(total(ordered))}`);
    });
    return c.redirect("/", 303);
  })
  .post("/:id", async (c) => {
    const { id } = c.req.param();
    const product = products.get(id);
    if (product === undefined) return await c.notFound();
    await c.var.session.update((s) =>
      say(put(s, id, (s.basket[id] ?? 0) + 1), `${product.name} is in your basket`)
    );
    return c.redirect("/", 303);
  })
  .post("/:id/remove", async (c) => {
    await c.var.session.update((s) => put(s, c.req.param("id"), 0));
    return c.redirect("/basket", 303);
  });

/** The same for scripts: `GET /api/basket`, and `PUT /api/basket/tea` with a number. */
export const api = new Hono<Env>()
  .get("/basket", async (c) => {
    const { basket } = await c.var.session.read();
    return c.json({ basket, total: total(basket) });
  })
  .put("/basket/:id", async (c) => {
    const { id } = c.req.param();
    const count = z.int().min(0).max(99).safeParse(await c.req.json().catch(() => undefined));
    if (!products.has(id) || !count.success) {
      return c.json({ error: "Expected a product and a number from 0 to 99" }, 400);
    }
    const { basket } = await c.var.session.update((s) => put(s, id, count.data));
    return c.json({ basket, total: total(basket) });
  });
