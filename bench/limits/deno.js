// The least that an answer costs: Deno.serve, and one small JSON text.
import { serve } from "./page.js";

const headers = { "Content-Type": "application/json" };

serve({ fetch: () => new Response('{"key":"value"}', { headers }) });
