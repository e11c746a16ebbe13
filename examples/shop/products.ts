/** What the shop sells. A real one asks its database. */
export interface Product {
  name: string;
  /** In cents. */
  price: number;
}

export const products: ReadonlyMap<string, Product> = new Map([
  ["tea", { name: "Green tea", price: 450 }],
  ["pot", { name: "Teapot", price: 3900 }],
  ["cup", { name: "Cup", price: 1250 }],
]);

/** The price of a basket, in cents. */
export function total(basket: Record<string, number>): number {
  const prices = Object.entries(basket).map(([id, count]) =>
    count * (products.get(id)?.price ?? 0)
  );
  return prices.reduce((sum, price) => sum + price, 0);
}

export const euros = (cents: number): string => `€${(cents / 100).toFixed(2)}`;
