/**
 * Reads JSON in UTF-8 in one pass over its bytes, and returns each value as text: nothing becomes a
 * JavaScript value, so numbers keep every digit.
 */
import { tooDeep } from "./text.ts";
import { JsonTokens } from "./tokens.ts";
import { type JsonText, MAX_DEPTH, MAX_VALUE_BYTES, ValueTooLarge } from "../store.ts";

const QUOTE = 0x22, COMMA = 0x2c, COLON = 0x3a;
const OPEN_ARRAY = 0x5b, CLOSE_ARRAY = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;

/** What is read at most. */
export const LIMITS = {
  /** The deepest nesting of a value, and its longest text, in bytes. */
  depth: MAX_DEPTH,
  valueBytes: MAX_VALUE_BYTES,
  /** The longest name or string that is read unescaped, in bytes: several times the longest key. */
  stringBytes: 64 * 1024,
};

/**
 * A reader of one JSON text. Its methods throw a `SyntaxError` at what is not JSON. The text of a value
 * has no white space between tokens, and no escapes of printable characters (`\u00e9`, `\/`).
 *
 * @example
 * ```ts
 * import { Buffer } from "node:buffer";
 * import { JsonReader } from "./reader.ts";
 *
 * const reader = new JsonReader(Buffer.from('{"price": 1.10, "tags": [1, 2]}'));
 * reader.object((name) => console.log(name, reader.value())); // price 1.10, tags [1,2]
 * reader.end();
 * ```
 */
export class JsonReader {
  readonly #tokens: JsonTokens;

  /**
   * @param bytes The text, which is overwritten
   * @throws {SyntaxError} If it is not UTF-8
   */
  constructor(bytes: Uint8Array<ArrayBuffer>, readonly limits = LIMITS) {
    this.#tokens = new JsonTokens(bytes);
  }

  /** Returns the first character of the next value without reading it: `{`, `[`, or another. */
  peek(): string {
    return String.fromCharCode(this.#tokens.next());
  }

  /**
   * Reads an object.
   *
   * @param visit Is called with each name, and has to read the value
   */
  object(visit: (name: string) => void): void {
    this.#tokens.expect(OPEN_OBJECT);
    if (this.#tokens.accept(CLOSE_OBJECT)) return;
    do {
      const name = this.string();
      this.#tokens.expect(COLON);
      visit(name);
    } while (this.#continues(CLOSE_OBJECT));
  }

  /**
   * Reads an array.
   *
   * @param visit Is called before each element, and has to read it
   */
  array(visit: () => void): void {
    this.#tokens.expect(OPEN_ARRAY);
    if (this.#tokens.accept(CLOSE_ARRAY)) return;
    do visit(); while (this.#continues(CLOSE_ARRAY));
  }

  /**
   * Reads a name or a short string, and returns it unescaped.
   *
   * @throws {SyntaxError} Also if it is over 64 KiB
   */
  string(): string {
    const start = this.#tokens.begin();
    this.#tokens.readString();
    const end = this.#tokens.end();
    const { stringBytes } = this.limits;
    if (end - start > stringBytes) {
      throw new SyntaxError(`a string over ${stringBytes} bytes at ${start}`);
    }
    const text = this.#tokens.text(start + 1, end - 1);
    return text.includes("\\") ? JSON.parse(`"${text}"`) : text;
  }

  /**
   * Reads any value, and returns its compact text.
   *
   * @throws {ValueTooLarge} If the text is over {@linkcode MAX_VALUE_BYTES}
   * @throws {InvalidArgument} If it is nested deeper than {@linkcode MAX_DEPTH}
   */
  value(): JsonText {
    const start = this.#tokens.begin();
    this.#readValue(0);
    const end = this.#tokens.end();
    if (end - start > this.limits.valueBytes) throw new ValueTooLarge();
    return this.#tokens.text(start, end) as JsonText;
  }

  /** Expects that only white space is left. */
  end(): void {
    if (this.#tokens.next() !== -1) throw this.#tokens.unexpected();
  }

  /** @param depth How many brackets are open around the value */
  #readValue(depth: number): void {
    const tokens = this.#tokens;
    const byte = tokens.next();
    if (byte === QUOTE) return tokens.readString();
    if (byte !== OPEN_OBJECT && byte !== OPEN_ARRAY) return tokens.readScalar(byte);
    if (depth === this.limits.depth) throw tooDeep();
    const closing = byte === OPEN_OBJECT ? CLOSE_OBJECT : CLOSE_ARRAY;
    tokens.expect(byte);
    if (tokens.accept(closing)) return;
    do {
      if (byte === OPEN_OBJECT) {
        tokens.readString();
        tokens.expect(COLON);
      }
      this.#readValue(depth + 1);
    } while (this.#continues(closing));
  }

  /** After an element: reads the comma or the closing bracket, and returns whether another follows. */
  #continues(closing: number): boolean {
    if (this.#tokens.accept(COMMA)) return true;
    this.#tokens.expect(closing);
    return false;
  }
}
