// @ts-check
/// <reference lib="dom" />
/** A search for a text in keys and values: it reads every entry under a prefix, in a stream. */
import { dump, parse } from "./service.js";
import { grouped, shownKey } from "./texts.js";

/** The most keys that are found. */
const MOST_FOUND = 10_000;

export class Search {
  /** Keys, in the order in which they were found. @type {Set<string>} */
  found = new Set();
  /** How many entries have been read. */
  read = 0;
  isOver = false;

  /**
   * @param {string} prefix
   * @param {string} text In any case
   */
  constructor(prefix, text) {
    this.prefix = prefix;
    const inString = JSON.stringify(text).slice(1, -1);
    const folded = text.replaceAll('": ', '":');
    const texts = [text, inString, folded, unescaped(text), unescaped(folded)];
    /** The texts as which JSON may have it, in lower case. */
    this.wanted = [...new Set(texts.map((it) => it.toLowerCase()))];
    this.stopped = new AbortController();
  }

  /** What is to be said of it. */
  get progress() {
    if (!this.isOver) return `found so far, ${grouped(this.read)} read`;
    return this.found.size < MOST_FOUND ? "found" : "found, where the search ended";
  }

  /**
   * Whether an entry is searched for.
   *
   * @param {string} key
   * @param {unknown} value
   */
  matches(key, value) {
    const texts = [key, shownKey(key), JSON.stringify(value)].map((it) => it.toLowerCase());
    return this.wanted.some((wanted) => texts.some((it) => it.includes(wanted)));
  }

  /** @param {(search: Search) => void} onProgress Is called after each part of the stream, and at the end */
  async run(onProgress) {
    const { body } = await dump(this.prefix, this.stopped.signal);
    const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    while (reader && this.found.size < MOST_FOUND) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#readLine(line);
      onProgress(this);
    }
    this.stop();
    this.isOver = true;
    onProgress(this);
  }

  stop() {
    this.stopped.abort();
  }

  /** @param {string} line */
  #readLine(line) {
    this.read++;
    for (const [key, value] of Object.entries(parse(line))) {
      if (this.matches(key, value)) this.found.add(key);
    }
  }
}

/** @param {string} text */
function unescaped(text) {
  return text.replace(/\\u([\da-f]{4})/gi, (_, code) => String.fromCharCode(parseInt(code, 16)));
}
