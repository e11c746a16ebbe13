/**
 * Reads JSON in UTF-8 a value at a time, and gives each value as text. Nothing is turned into
 * JavaScript values, so that numbers keep every digit and no body, however it is made, takes longer
 * than one pass over its bytes.
 *
 * @module
 */
import { Buffer, isAscii, isUtf8 } from "node:buffer";
import type { JsonText } from "./json_text.ts";
import { InvalidArgument, MAX_DEPTH, MAX_VALUE_BYTES, ValueTooLarge } from "./store.ts";

const TAB = 0x09, NEWLINE = 0x0a, RETURN = 0x0d, SPACE = 0x20;
const QUOTE = 0x22, BACKSLASH = 0x5c, SLASH = 0x2f, COMMA = 0x2c, COLON = 0x3a;
const OPEN_ARRAY = 0x5b, CLOSE_ARRAY = 0x5d, OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d;
const ZERO = 0x30, NINE = 0x39, MINUS = 0x2d, PLUS = 0x2b, DOT = 0x2e, LETTER_E = 0x65;
const LETTER_U = 0x75;
const SIMPLE_ESCAPES = Buffer.from('"\\/bfnrt');
const LITERALS = ["true", "false", "null"].map((word) => Buffer.from(word));

/** The longest name or string that is read unescaped, in bytes: several times the longest key. */
const MAX_STRING_BYTES = 64 * 1024;
/** The closing bytes of the brackets around the current value. Shared, since reading never waits. */
const OPEN = new Uint8Array(MAX_DEPTH);

/**
 * A reader of one JSON text.
 *
 * Values are compacted where they stand: white space between tokens is dropped, and an escape of a
 * printable character (`\u00e9`, `\/`) becomes the character. Both only make a text shorter.
 *
 * @example
 * ```ts
 * import { Buffer } from "node:buffer";
 * import { JsonReader } from "./json_reader.ts";
 *
 * const reader = new JsonReader(Buffer.from('{"price": 1.10, "tags": [1, 2]}'));
 * reader.object((name) => console.log(name, reader.value())); // price 1.10, tags [1,2]
 * reader.end();
 * ```
 */
export class JsonReader {
  readonly #bytes: Buffer;
  #at = 0;
  /** Where the compacted text of the current value ends. */
  #write = 0;
  readonly #isAscii: boolean;
  #hasUnescaped = false;

  /**
   * @param bytes The text, which is overwritten
   * @throws {SyntaxError} If it is not UTF-8
   */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#isAscii = isAscii(bytes);
    if (!this.#isAscii && !isUtf8(bytes)) throw new SyntaxError("expected UTF-8");
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const hasByteOrderMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    if (hasByteOrderMark) this.#at = 3;
  }

  /** Returns the first character of the next value without reading it: `{`, `[`, or another. */
  peek(): string {
    return String.fromCharCode(this.#next());
  }

  /**
   * Reads an object.
   *
   * @param visit Is called with each name, and has to read the value
   * @throws {SyntaxError}
   */
  object(visit: (name: string) => void): void {
    this.#expect(OPEN_OBJECT);
    if (this.#next() === CLOSE_OBJECT) return this.#expect(CLOSE_OBJECT);
    do {
      const name = this.string();
      this.#expect(COLON);
      visit(name);
    } while (this.#continues(CLOSE_OBJECT));
  }

  /**
   * Reads an array.
   *
   * @param visit Is called before each element, and has to read it
   * @throws {SyntaxError}
   */
  array(visit: () => void): void {
    this.#expect(OPEN_ARRAY);
    if (this.#next() === CLOSE_ARRAY) return this.#expect(CLOSE_ARRAY);
    do visit(); while (this.#continues(CLOSE_ARRAY));
  }

  /**
   * Reads a name or a short string, and returns it unescaped.
   *
   * @throws {SyntaxError} If it is over {@linkcode MAX_STRING_BYTES}, too
   */
  string(): string {
    if (this.#next() !== QUOTE) throw this.#unexpected();
    const start = this.#write = this.#at;
    const isPlain = this.#copyString();
    if (this.#write - start > MAX_STRING_BYTES) {
      throw new SyntaxError(`a string over ${MAX_STRING_BYTES} bytes at ${start}`);
    }
    if (isPlain) return this.#text(start + 1, this.#write - 1);
    return JSON.parse(this.#text(start, this.#write));
  }

  /**
   * Reads any value, and returns its compact text.
   *
   * @throws {SyntaxError}
   * @throws {ValueTooLarge} If the text is over {@linkcode MAX_VALUE_BYTES}
   * @throws {InvalidArgument} If it is nested deeper than {@linkcode MAX_DEPTH}
   */
  value(): JsonText {
    this.#next();
    const start = this.#write = this.#at;
    const limit = start + MAX_VALUE_BYTES;
    let depth = 0;
    for (;;) {
      const byte = this.#next();
      if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
        if (depth === MAX_DEPTH) throw tooDeep();
        const closing = byte + 2; // in ASCII, of both kinds of brackets
        OPEN[depth++] = closing;
        this.#copy();
        if (this.#next() !== closing) {
          if (byte === OPEN_OBJECT) this.#copyName();
          continue;
        }
        this.#copy();
        depth--;
      } else if (byte === QUOTE) this.#copyString();
      else if (byte === MINUS || isDigit(byte)) this.#copyNumber();
      else this.#copyLiteral();
      if (this.#write > limit) throw new ValueTooLarge();

      // Behind a value: the next one, or the end of those around it.
      for (;;) {
        if (depth === 0) return this.#text(start, this.#write) as JsonText;
        const closing = OPEN[depth - 1] as number;
        const next = this.#next();
        if (next === COMMA) {
          this.#copy();
          if (closing === CLOSE_OBJECT) this.#copyName();
          break;
        }
        if (next !== closing) throw this.#unexpected();
        this.#copy();
        depth--;
      }
    }
  }

  /** @throws {SyntaxError} If anything but white space is left */
  end(): void {
    if (this.#next() !== -1) throw this.#unexpected();
  }

  /** Skips white space, and returns the byte behind it; at the end, -1. */
  #next(): number {
    const bytes = this.#bytes;
    for (; this.#at < bytes.length; this.#at++) {
      const byte = bytes[this.#at] as number;
      if (byte !== SPACE && byte !== NEWLINE && byte !== RETURN && byte !== TAB) return byte;
    }
    return -1;
  }

  #expect(byte: number): void {
    if (this.#next() !== byte) throw this.#unexpected();
    this.#at++;
  }

  /** Whether there is another element; otherwise reads the closing bracket. */
  #continues(closing: number): boolean {
    const next = this.#next();
    if (next !== COMMA && next !== closing) throw this.#unexpected();
    this.#at++;
    return next === COMMA;
  }

  #copy(): void {
    this.#bytes[this.#write++] = this.#bytes[this.#at++] as number;
  }

  #copyName(): void {
    if (this.#next() !== QUOTE) throw this.#unexpected();
    this.#copyString();
    if (this.#next() !== COLON) throw this.#unexpected();
    this.#copy();
  }

  /** Copies a string, and returns whether it has no escapes. */
  #copyString(): boolean {
    const bytes = this.#bytes;
    const end = bytes.length;
    let at = this.#at;
    let write = this.#write;
    let isPlain = true;
    bytes[write++] = bytes[at++] as number;
    while (at < end) {
      const byte = bytes[at] as number;
      if (byte < SPACE) break;
      if (byte === BACKSLASH) {
        isPlain = false;
        [this.#at, this.#write] = [at, write];
        this.#copyEscape();
        [at, write] = [this.#at, this.#write];
        continue;
      }
      bytes[write++] = byte;
      at++;
      if (byte === QUOTE) {
        [this.#at, this.#write] = [at, write];
        return isPlain;
      }
    }
    this.#at = at;
    throw this.#unexpected();
  }

  #copyEscape(): void {
    const bytes = this.#bytes;
    const kind = bytes[this.#at + 1];
    if (kind === LETTER_U) return this.#copyUnicodeEscape();
    if (kind === undefined || !SIMPLE_ESCAPES.includes(kind)) {
      this.#at++;
      throw this.#unexpected();
    }
    if (kind !== SLASH) bytes[this.#write++] = BACKSLASH;
    bytes[this.#write++] = kind;
    this.#at += 2;
  }

  /** Control characters, quotes, backslashes and halves of surrogate pairs stay escaped. */
  #copyUnicodeEscape(): void {
    const unit = this.#unit(this.#at);
    if (unit === -1) {
      this.#at += 2;
      throw this.#unexpected();
    }
    const low = unit >= 0xd800 && unit < 0xdc00 ? this.#unit(this.#at + 6) : -1;
    const isPair = low >= 0xdc00 && low < 0xe000;
    if (
      unit >= 0xd800 && unit < 0xe000 && !isPair || unit < SPACE || unit === QUOTE ||
      unit === BACKSLASH
    ) {
      for (let i = 0; i < 6; i++) this.#copy();
      return;
    }
    const code = isPair ? 0x10000 + ((unit - 0xd800) << 10) + low - 0xdc00 : unit;
    if (code > 0x7f) this.#hasUnescaped = true;
    this.#at += isPair ? 12 : 6;
    this.#writeUtf8(code);
  }

  #writeUtf8(code: number): void {
    const bytes = this.#bytes;
    const rest = (shift: number) => bytes[this.#write++] = 0x80 | code >> shift & 0x3f;
    if (code < 0x80) bytes[this.#write++] = code;
    else if (code < 0x800) {
      bytes[this.#write++] = 0xc0 | code >> 6;
    } else if (code < 0x10000) {
      bytes[this.#write++] = 0xe0 | code >> 12;
      rest(6);
    } else {
      bytes[this.#write++] = 0xf0 | code >> 18;
      rest(12);
      rest(6);
    }
    if (code >= 0x80) rest(0);
  }

  /** The UTF-16 unit of the escape at `at`, as in `\u00e9`; -1 if there is no escape. */
  #unit(at: number): number {
    const bytes = this.#bytes;
    if (bytes[at] !== BACKSLASH || bytes[at + 1] !== LETTER_U) return -1;
    let unit = 0;
    for (let i = at + 2; i < at + 6; i++) {
      const digit = hexDigit(bytes[i]);
      if (digit === -1) return -1;
      unit = unit << 4 | digit;
    }
    return unit;
  }

  #copyNumber(): void {
    const bytes = this.#bytes;
    if (bytes[this.#at] === MINUS) this.#copy();
    if (bytes[this.#at] === ZERO) this.#copy();
    else this.#copyDigits();
    if (bytes[this.#at] === DOT) {
      this.#copy();
      this.#copyDigits();
    }
    if (((bytes[this.#at] ?? 0) | 0x20) === LETTER_E) {
      this.#copy();
      if (bytes[this.#at] === PLUS || bytes[this.#at] === MINUS) this.#copy();
      this.#copyDigits();
    }
  }

  #copyDigits(): void {
    if (!isDigit(this.#bytes[this.#at])) throw this.#unexpected();
    while (isDigit(this.#bytes[this.#at])) this.#copy();
  }

  #copyLiteral(): void {
    const rest = this.#bytes.subarray(this.#at, this.#at + 5);
    for (const word of LITERALS) {
      if (rest[0] !== word[0]) continue;
      for (const byte of word) {
        if (this.#bytes[this.#at] !== byte) throw this.#unexpected();
        this.#copy();
      }
      return;
    }
    throw this.#unexpected();
  }

  #text(start: number, end: number): string {
    return this.#isAscii && !this.#hasUnescaped
      ? this.#bytes.toString("latin1", start, end)
      : this.#bytes.toString("utf8", start, end);
  }

  #unexpected(): SyntaxError {
    if (this.#at >= this.#bytes.length) return new SyntaxError("it ends too early");
    const byte = this.#bytes[this.#at] as number;
    const shown = byte > SPACE && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte ${byte}`;
    return new SyntaxError(`unexpected ${shown} at ${this.#at}`);
  }
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= NINE;
}

function hexDigit(byte: number | undefined): number {
  if (byte === undefined) return -1;
  if (isDigit(byte)) return byte - ZERO;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : -1;
}

function tooDeep(): InvalidArgument {
  return new InvalidArgument(
    "value",
    `Cannot store the value: it is nested deeper than ${MAX_DEPTH} levels`,
  );
}
