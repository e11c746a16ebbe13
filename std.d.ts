/**
 * Types of the parts of Deno's standard library that this project uses. The npm package `deno-std`
 * carries the library's code without its types. `tests/std_test.ts` compares the names.
 */

declare module "@std/assert" {
  type Class<T> = abstract new (...args: never[]) => T;

  export class AssertionError extends Error {}
  export function assert(expr: unknown, msg?: string): asserts expr;
  export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
  export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void;
  export function assertMatch(actual: string, expected: RegExp, msg?: string): void;
  export function assertStringIncludes(actual: string, expected: string, msg?: string): void;
  export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void;
  export function assertInstanceOf<T>(
    actual: unknown,
    expectedType: Class<T>,
    msg?: string,
  ): asserts actual is T;
  export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
  export function assertRejects<E extends Error>(
    fn: () => PromiseLike<unknown>,
    errorClass: Class<E>,
    msgIncludes?: string,
    msg?: string,
  ): Promise<E>;
  export function assertThrows(fn: () => unknown, msg?: string): unknown;
  export function assertThrows<E extends Error>(
    fn: () => unknown,
    errorClass: Class<E>,
    msgIncludes?: string,
    msg?: string,
  ): E;
}

declare module "@std/fmt/colors" {
  /** Whether the functions below change their argument; at first, unless `NO_COLOR` is set. */
  export function setColorEnabled(value: boolean): void;
  export function bold(str: string): string;
  export function cyan(str: string): string;
  export function dim(str: string): string;
}

declare module "@std/http/cookie" {
  /** A cookie and its attributes (RFC 6265, section 4.1). */
  export interface Cookie {
    name: string;
    value: string;
    domain?: string;
    path?: string;
    secure?: boolean;
    httpOnly?: boolean;
    partitioned?: boolean;
    sameSite?: "Strict" | "Lax" | "None";
  }
  /**
   * Appends a `Set-Cookie` header.
   *
   * @throws {SyntaxError} If the name, the value, the path or the domain has a bad character
   */
  export function setCookie(headers: Headers, cookie: Cookie): void;
}

declare module "@std/uuid/v4" {
  /** Whether `id` is a version 4 UUID (RFC 9562, section 5.4), in upper or lower case. */
  export function validate(id: string): boolean;
}

declare module "@std/text/closest-string" {
  /** Returns the word with the fewest edits to `givenWord`; letter case is ignored. */
  export function closestString(givenWord: string, possibleWords: readonly string[]): string;
}

declare module "@std/text/levenshtein-distance" {
  /** Returns how many characters have to be changed, added or removed. */
  export function levenshteinDistance(str1: string, str2: string): number;
}
