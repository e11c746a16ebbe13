/**
 * Stores: what an app opens, and what a store throws.
 *
 * @module
 */
export { json, parseJson } from "./json/text.ts";
export { type OpenOptions, openStore } from "./open.ts";
export * from "./store.ts";
