/**
 * Tests that share what takes long to make: both browsers, and the npm package. `deno task test` runs
 * this file in place of them; each of them also runs by itself.
 */
// First, since the browsers' timers would count as theirs.
import "./npm_test.ts";
import "./runtimes_test.ts";
import "./browsers_test.ts";
import "./cross_site_test.ts";
import "./explorer_connection_test.ts";
import "./explorer_editing_test.ts";
import "./explorer_test.ts";
import "./lesson_test.ts";
import "./login_test.ts";
