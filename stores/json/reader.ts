/**
 * Reads JSON in UTF-8 in one pass over its bytes, and returns each value as text: nothing becomes a
 * JavaScript value, so numbers keep every digit. The text is compacted in place: white space between
 * tokens is dropped, and an escape of a printable character (`\u00e9`, `\/`) becomes the character.
 * Both only make it shorter.
 */
import { Buffer, isUtf8 } from "node:buffer";
import { tooDeep } from "./text.ts";
import { type JsonText, MAX_DEPTH, MAX_VALUE_BYTES, ValueTooLarge } from "../store.ts";

const TAB = 0x09, NEWLINE = 0x0a, RETURN = 0x0d, SPACE = 0x20;
const OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d, OPEN_ARRAY = 0x5b, CLOSE_ARRAY = 0x5d;
const QUOTE = 0x22, COMMA = 0x2c, COLON = 0x3a, BACKSLASH = 0x5c, SLASH = 0x2f;
const ZERO = 0x30, NINE = 0x39, MINUS = 0x2d, PLUS = 0x2b, DOT = 0x2e;
const CAPITAL_E = 0x45, LETTER_E = 0x65, LETTER_U = 0x75;
const SHORT_ESCAPES = new Set(Buffer.from('"\\/bfnrt'));
const LITERALS = [Buffer.from("true"), Buffer.from("false"), Buffer.from("null")];

/** What is read at most. */
export const LIMITS = {
  /** The deepest nesting of a value, and its longest text, in bytes. */
  depth: MAX_DEPTH,
  valueBytes: MAX_VALUE_BYTES,
  /** The longest name or string that is read unescaped, in bytes: several times the longest key. */
  stringBytes: 64 * 1024,
};

/**
 * A reader of one JSON text. It throws a `SyntaxError` at what is not JSON.
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
  readonly #bytes: Buffer;
  #at = 0;
  /** The compacted text ends at `#end`; the bytes from `#pending` to `#at` still belong to it. */
  #end = 0;
  #pending = 0;

  /** @param bytes The text in UTF-8, which is overwritten */
  constructor(bytes: Uint8Array<ArrayBuffer>, readonly limits = LIMITS) {
    if (!isUtf8(bytes)) throw new SyntaxError("expected UTF-8");
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const hasByteOrderMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    if (hasByteOrderMark) this.#at = 3;
  }

  /** Returns the first character of the next value without reading it: `{`, `[`, or another. */
  peek(): string {
    return String.fromCharCode(this.#next());
  }

  /** Reads an object. Calls `visit` with each name, which has to read the value. */
  object(visit: (name: string) => void): void {
    this.#expect(OPEN_OBJECT);
    if (this.#accept(CLOSE_OBJECT)) return;
    do {
      const name = this.string();
      this.#expect(COLON);
      visit(name);
    } while (this.#continues(CLOSE_OBJECT));
  }

  /** Reads an array. Calls `visit` before each element, which has to read it. */
  array(visit: () => void): void {
    this.#expect(OPEN_ARRAY);
    if (this.#accept(CLOSE_ARRAY)) return;
    do visit(); while (this.#continues(CLOSE_ARRAY));
  }

  /** Reads a name or a short string, of 64 KiB at most, and returns it unescaped. */
  string(): string {
    const start = this.#beginText();
    this.#readString();
    const end = this.#drop(0);
    const { stringBytes } = this.limits;
    if (end - start > stringBytes) {
      throw new SyntaxError(`a string over ${stringBytes} bytes at ${start}`);
    }
    const text = this.#bytes.toString("utf8", start + 1, end - 1);
    return text.includes("\\") ? JSON.parse(`"${text}"`) : text;
  }

  /**
   * Reads any value, and returns its compact text.
   *
   * @throws {ValueTooLarge} If the text is over {@linkcode MAX_VALUE_BYTES}
   * @throws {InvalidArgument} If it is nested deeper than {@linkcode MAX_DEPTH}
   */
  value(): JsonText {
    const start = this.#beginText();
    this.#readValue(0);
    const end = this.#drop(0);
    if (end - start > this.limits.valueBytes) throw new ValueTooLarge();
    return this.#bytes.toString("utf8", start, end) as JsonText;
  }

  /** Expects that only white space is left. */
  end(): void {
    if (this.#next() !== -1) throw this.#unexpected();
  }

  // ---- Tokens ------------------------------------------------------------------------------

  /** @param depth How many brackets are open around the value */
  #readValue(depth: number): void {
    const byte = this.#next();
    if (byte === QUOTE) return this.#readString();
    if (byte !== OPEN_OBJECT && byte !== OPEN_ARRAY) return this.#readScalar(byte);
    if (depth === this.limits.depth) throw tooDeep();
    const closing = byte === OPEN_OBJECT ? CLOSE_OBJECT : CLOSE_ARRAY;
    this.#expect(byte);
    if (this.#accept(closing)) return;
    do {
      if (byte === OPEN_OBJECT) {
        this.#readString();
        this.#expect(COLON);
      }
      this.#readValue(depth + 1);
    } while (this.#continues(closing));
  }

  /** After an element: reads the comma or the closing bracket, and returns whether another follows. */
  #continues(closing: number): boolean {
    if (this.#accept(COMMA)) return true;
    this.#expect(closing);
    return false;
  }

  #readString(): void {
    this.#expect(QUOTE);
    const bytes = this.#bytes;
    for (;;) {
      let at = this.#at;
      let byte = bytes[at] ?? 0;
      while (byte >= SPACE && byte !== QUOTE && byte !== BACKSLASH) byte = bytes[++at] ?? 0;
      this.#at = at;
      if (this.#skip(QUOTE)) return;
      if (byte !== BACKSLASH) throw this.#unexpected();
      this.#readEscape();
    }
  }

  #readEscape(): void {
    const kind = this.#bytes[this.#at + 1];
    if (kind === LETTER_U) return this.#readUnicodeEscape();
    if (kind === SLASH) this.#drop(1);
    else this.#at++;
    if (kind === undefined || !SHORT_ESCAPES.has(kind)) throw this.#unexpected();
    this.#at++;
  }

  /** Control characters, quotes, backslashes and halves of surrogate pairs stay escaped. */
  #readUnicodeEscape(): void {
    const unit = this.#unit(this.#at);
    if (unit < 0) {
      this.#at += 2;
      throw this.#unexpected();
    }
    const isHalf = unit >= 0xd800 && unit < 0xe000;
    const low = isHalf && unit < 0xdc00 ? this.#unit(this.#at + 6) : -1;
    if (low >= 0xdc00 && low < 0xe000) {
      this.#replace(12, 0x10000 + ((unit - 0xd800) << 10) + low - 0xdc00);
    } else if (isHalf || unit < SPACE || unit === QUOTE || unit === BACKSLASH) this.#at += 6;
    else this.#replace(6, unit);
  }

  /** Returns the UTF-16 unit of an escape such as `\u00e9`; if there is none at `at`, below 0. */
  #unit(at: number): number {
    const bytes = this.#bytes;
    if (bytes[at] !== BACKSLASH || bytes[at + 1] !== LETTER_U) return -1;
    let unit = 0;
    for (let i = at + 2; i < at + 6; i++) unit = unit << 4 | hexDigit(bytes[i]);
    return unit;
  }

  /** Reads a number, `true`, `false` or `null`, of which this is the first byte. */
  #readScalar(first: number): void {
    if (first === MINUS || isDigit(first)) return this.#readNumber();
    const word = LITERALS.find((word) => word[0] === first);
    if (word === undefined) throw this.#unexpected();
    for (const byte of word) if (!this.#skip(byte)) throw this.#unexpected();
  }

  #readNumber(): void {
    this.#skip(MINUS);
    if (!this.#skip(ZERO)) this.#readDigits();
    if (this.#skip(DOT)) this.#readDigits();
    if (this.#skip(LETTER_E) || this.#skip(CAPITAL_E)) {
      if (!this.#skip(MINUS)) this.#skip(PLUS);
      this.#readDigits();
    }
  }

  #readDigits(): void {
    if (!isDigit(this.#bytes[this.#at])) throw this.#unexpected();
    while (isDigit(this.#bytes[this.#at])) this.#at++;
  }

  // ---- Bytes -------------------------------------------------------------------------------

  /** Skips white space, and returns the byte after it; at the end, -1. */
  #next(): number {
    if (this.#at >= this.#bytes.length) return -1;
    const byte = this.#bytes[this.#at] as number;
    return byte > SPACE ? byte : this.#dropSpace();
  }

  #dropSpace(): number {
    const bytes = this.#bytes;
    let at = this.#at;
    while (isSpace(bytes[at])) at++;
    this.#drop(at - this.#at);
    return bytes[at] ?? -1;
  }

  #expect(byte: number): void {
    if (!this.#accept(byte)) throw this.#unexpected();
  }

  /** Reads this byte, if it comes next. */
  #accept(byte: number): boolean {
    this.#next();
    return this.#skip(byte);
  }

  /** Reads this byte, if it is the next, without white space before it. */
  #skip(byte: number): boolean {
    const isNext = this.#bytes[this.#at] === byte;
    if (isNext) this.#at++;
    return isNext;
  }

  /** Returns the error of a byte that cannot stand here. */
  #unexpected(): SyntaxError {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) return new SyntaxError("it ends too early");
    const shown = byte > SPACE && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte ${byte}`;
    return new SyntaxError(`unexpected ${shown} at ${this.#at}`);
  }

  // ---- The compacted text ------------------------------------------------------------------

  /** Begins the compacted text at the next token, and returns its position. */
  #beginText(): number {
    this.#next();
    return this.#end = this.#pending = this.#at;
  }

  /** Leaves the next bytes out of the compacted text, and returns where that ends. */
  #drop(count: number): number {
    const bytes = this.#bytes;
    const at = this.#at;
    let end = this.#end;
    let pending = this.#pending;
    if (end === pending) end = at;
    else while (pending < at) bytes[end++] = bytes[pending++] as number;
    this.#pending = this.#at = at + count;
    return this.#end = end;
  }

  /** Replaces the next bytes by a character. */
  #replace(count: number, code: number): void {
    this.#drop(count);
    const bytes = this.#bytes;
    if (code < 0x80) {
      bytes[this.#end++] = code;
      return;
    }
    // The first byte of UTF-8 begins with as many ones as there are bytes.
    const more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    bytes[this.#end++] = 0xff00 >> more + 1 | code >> 6 * more;
    for (let shift = 6 * (more - 1); shift >= 0; shift -= 6) {
      bytes[this.#end++] = 0x80 | code >> shift & 0x3f;
    }
  }
}

function isSpace(byte?: number): boolean {
  return byte === SPACE || byte === NEWLINE || byte === RETURN || byte === TAB;
}

function isDigit(byte = 0): boolean {
  return byte >= ZERO && byte <= NINE;
}

/** Returns what a hexadecimal digit stands for, or -1. */
export function hexDigit(byte = 0): number {
  if (isDigit(byte)) return byte - ZERO;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : -1;
}
