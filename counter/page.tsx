/** @jsxImportSource hono/jsx */
/** The counter's pages. */
import { Layout } from "../server/layout.tsx";

/** The count, and what keeps it. */
export function CounterPage({ count, keptIn }: { count: number; keptIn: string }) {
  return (
    <Layout title={`Count: ${count}`}>
      <h1>Count: {count}</h1>
      <p>Kept in {keptIn}</p>
      <form method="post" action="/reset">
        <button type="submit">Reset</button>
      </form>
    </Layout>
  );
}

/** What went wrong, and what a person can do. */
export function ErrorPage(
  { title, message, action = "Try again" }: { title: string; message: string; action?: string },
) {
  return (
    <Layout title={title}>
      <h1>{title}</h1>
      <p role="alert">{message}</p>
      <a class="button" href="/">{action}</a>
    </Layout>
  );
}
