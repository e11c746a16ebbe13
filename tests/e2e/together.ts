/**
 * Tests that share both browsers, which take long to start. `deno task test` runs this file in place of
 * them; each of them also runs by itself.
 */
import "./browsers_test.ts";
import "./cross_site_test.ts";
import "./explorer_connection_test.ts";
import "./explorer_editing_test.ts";
import "./explorer_test.ts";
import "./lesson_test.ts";
import "./login_test.ts";
