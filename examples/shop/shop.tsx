/** The shop: its sessions, its routers, and its first page. */
import { sessions, type SessionStore, SessionUnavailable } from "@counter/sessions";
import { Hono } from "hono";
import { csrf } from "hono/csrf";
import { HTTPException } from "hono/http-exception";
import { account } from "./account.tsx";
import { api, basket } from "./basket.tsx";
import { Button, page } from "./page.tsx";
import { euros, products } from "./products.ts";
import { type Env, Preferences, Visit } from "./session.ts";

/** Where the two sessions are kept. */
export interface ShopStores {
  visits: SessionStore;
  preferences: SessionStore;
}

export function shop({ visits, preferences }: ShopStores): Hono<Env> {
  const app = new Hono<Env>()
    .use(csrf())
    .use(sessions({ store: visits, schema: Visit, permanent: (visit) => visit.remember }))
    .use(sessions({ name: "prefs", store: preferences, schema: Preferences, permanent: true }))
    .get("/", async (c) =>
      await page(
        c,
        "Tea shop",
        <ul>
          {Array.from(products, ([id, { name, price }]) => (
            <li>
              {name}, {euros(price)} <Button to={`/basket/${id}`}>Add</Button>
            </li>
          ))}
        </ul>,
      ))
    .route("/", account)
    .route("/basket", basket)
    .route("/api", api);

  app.onError((error, c) => {
    if (error instanceof SessionUnavailable) {
      console.error(error.cause);
      return c.text("The shop is closed for a moment. Your basket is safe", 503, {
        "Retry-After": "5",
      });
    }
    if (error instanceof HTTPException) return error.getResponse();
    console.error(error);
    return c.text("Something went wrong", 500);
  });
  return app;
}
