import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "smol-toml";
import type { parseTOML } from "toml-eslint-parser";
import type { KeyName } from "./keys.ts";

/** The file is written in a way that cannot be changed without harm; `message` says what to write by hand. */
export class EditRefused extends Error {
  override readonly name = "EditRefused";
}

/** A key's new value; undefined takes the key out. */
export type Changes = { [K in KeyName]?: string | boolean | undefined };

/**
 * The text of a configuration file with these keys changed and nothing else: comments, order, every other key and the way it is written stay.
 * A section that is missing comes at the end.
 *
 * What comes out is read again and held against what went in; `EditRefused` where anything but the wanted keys differs, or the text is no TOML.
 */
export async function editConfig(text: string, changes: Changes): Promise<string> {
  const { parseTOML } = await import("toml-eslint-parser");
  const read: Reader = (toml) => parseTOML(toml, { tomlVersion: "latest" });
  const entries = Object.entries(changes).map(([name, value]) => ({ path: name.split("."), value }));
  try {
    let edited = text;
    for (const { path, value } of entries) {
      edited = value === undefined ? without(edited, path, read) : withKey(edited, path, stringOf(value), read);
    }
    if (isAsWanted(text, edited, entries, read)) return edited;
  } catch (error) {
    throw new EditRefused(byHand(changes), { cause: error });
  }
  throw new EditRefused(byHand(changes));
}

type Document = ReturnType<typeof parseTOML>;
type Reader = (toml: string) => Document;
type Top = Document["body"][0]["body"][number];
type Entry = Extract<Top, { type: "TOMLKeyValue" }>;
type Table = Extract<Top, { type: "TOMLTable" }>;

interface Found {
  entry: Entry;
  /** Where it stands within `{ … }`: all entries there. */
  among?: readonly Entry[];
}

/** Puts the value where the key stands, or the key where its section is. */
function withKey(text: string, path: readonly string[], value: string, read: Reader): string {
  const document = read(text);
  const found = find(document, path);
  if (found !== undefined) return spliced(text, found.entry.value.range, value);
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  const section = path.slice(0, -1);
  const line = `${path.at(-1)} = ${value}`;
  if (section.length === 0) return atTheTop(text, document, line, newline);
  const table = tablesOf(document).find(({ kind, resolvedKey }) => kind === "standard" && isSame(resolvedKey, section));
  if (table !== undefined) {
    const last = table.body.at(-1) ?? table.key;
    return lineAfter(text, last.range[1], line, newline);
  }
  const inline = find(document, section)?.entry.value;
  if (inline?.type === "TOMLInlineTable") {
    const last = inline.body.at(-1);
    return last === undefined
      ? spliced(text, inline.range, `{ ${line} }`)
      : spliced(text, [last.range[1], last.range[1]], `, ${line}`);
  }
  // `coordinator.url = …` above the first section.
  const dotted = topEntries(document).findLast(({ key }) => isSame(namesOf(key).slice(0, section.length), section));
  if (dotted !== undefined) return lineAfter(text, dotted.range[1], `${path.join(".")} = ${value}`, newline);
  const gap = text === "" ? "" : text.endsWith("\n") ? newline : newline + newline;
  return `${text}${gap}[${section.join(".")}]${newline}${line}${newline}`;
}

/** Takes a key out with its line; a comment behind it stays. */
function without(text: string, path: readonly string[], read: Reader): string {
  const document = read(text);
  const found = find(document, path);
  if (found === undefined) return text;
  const { entry, among } = found;
  if (among !== undefined) {
    const index = among.indexOf(entry);
    const [before, after] = [among[index - 1], among[index + 1]];
    if (after !== undefined) return spliced(text, [entry.range[0], after.range[0]], "");
    return spliced(text, before === undefined ? entry.range : [before.range[1], entry.range[1]], "");
  }
  const [begin, end] = [lineBegin(text, entry.range[0]), lineEnd(text, entry.range[1])];
  const comment = text.slice(entry.range[1], end).trim();
  return spliced(
    text,
    [begin, end],
    comment === "" ? "" : `${comment}${text.slice(begin, end).endsWith("\r\n") ? "\r\n" : "\n"}`,
  );
}

/** A key of no section must stand above all sections: behind its like, else above the first section and the comment on it. */
function atTheTop(text: string, document: Document, line: string, newline: string): string {
  const last = topEntries(document).at(-1);
  if (last !== undefined) return lineAfter(text, last.range[1], line, newline);
  const [first] = tablesOf(document);
  if (first === undefined) return `${text}${text === "" || text.endsWith("\n") ? "" : newline}${line}${newline}`;
  let at = lineBegin(text, first.range[0]);
  while (at > 0 && /^\s*#/.test(text.slice(lineBegin(text, at - 1), at))) at = lineBegin(text, at - 1);
  return spliced(text, [at, at], `${line}${newline}${newline}`);
}

function find(document: Document, path: readonly string[]): Found | undefined {
  const within = (entries: readonly Entry[], prefix: readonly string[], inline: boolean): Found | undefined => {
    for (const entry of entries) {
      const names = [...prefix, ...namesOf(entry.key)];
      if (isSame(names, path)) return { entry, ...(inline && { among: entries }) };
      if (entry.value.type !== "TOMLInlineTable" || !isSame(names, path.slice(0, names.length))) continue;
      const found = within(entry.value.body, names, true);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return (
    within(topEntries(document), [], false) ??
    tablesOf(document)
      .filter(({ kind }) => kind === "standard")
      .map(({ body, resolvedKey }) => within(body, resolvedKey.map(String), false))
      .find((found) => found !== undefined)
  );
}

function topEntries(document: Document): Entry[] {
  return document.body[0].body.filter((part) => part.type === "TOMLKeyValue");
}

function tablesOf(document: Document): Table[] {
  return document.body[0].body.filter((part) => part.type === "TOMLTable");
}

function namesOf({ keys }: Entry["key"]): string[] {
  return keys.map((part) => (part.type === "TOMLBare" ? part.name : part.value));
}

function isSame(a: readonly (string | number)[], b: readonly (string | number)[]): boolean {
  return a.length === b.length && a.every((part, index) => part === b[index]);
}

function spliced(text: string, [from, to]: readonly [number, number], put: string): string {
  return text.slice(0, from) + put + text.slice(to);
}

/** A line of its own behind the one that `at` is in. */
function lineAfter(text: string, at: number, line: string, newline: string): string {
  const end = lineEnd(text, at);
  const isOpen = !text.slice(0, end).endsWith("\n");
  return spliced(text, [end, end], `${isOpen ? newline : ""}${line}${newline}`);
}

function lineBegin(text: string, at: number): number {
  return text.lastIndexOf("\n", at - 1) + 1;
}

/** Behind the line's end. */
function lineEnd(text: string, at: number): number {
  const found = text.indexOf("\n", at);
  return found < 0 ? text.length : found + 1;
}

/** The same document but for the keys that were to change, with the same comments. */
function isAsWanted(
  before: string,
  after: string,
  entries: readonly { path: readonly string[]; value: string | boolean | undefined }[],
  read: Reader,
): boolean {
  const wanted = parse(before);
  for (const { path, value } of entries) put(wanted, path, value);
  const comments = (toml: string) => read(toml).comments.map((comment) => comment.value.trimEnd());
  return (
    isDeepStrictEqual(withoutEmpty(parse(after), entries), withoutEmpty(wanted, entries)) &&
    isDeepStrictEqual(comments(after), comments(before))
  );
}

type Tree = Record<string, unknown>;

function put(tree: Tree, path: readonly string[], value: unknown): void {
  const [name = "", ...rest] = path;
  if (rest.length > 0) {
    if (!Object.hasOwn(tree, name)) {
      if (value === undefined) return;
      tree[name] = Object.create(Object.getPrototypeOf(tree));
    }
    put(tree[name] as Tree, rest, value);
  } else if (value === undefined) delete tree[name];
  else tree[name] = value;
}

/** A section of which nothing is left counts as none. */
function withoutEmpty(tree: Tree, entries: readonly { path: readonly string[] }[]): Tree {
  for (const { path } of entries) {
    const [section] = path;
    if (section === undefined || path.length < 2) continue;
    const value = tree[section];
    if (typeof value === "object" && value !== null && Object.keys(value).length === 0) delete tree[section];
  }
  return tree;
}

function stringOf(value: string | boolean): string {
  return stringify({ value })
    .replace(/^value = /, "")
    .trimEnd();
}

function byHand(changes: Changes): string {
  const lines = Object.entries(changes).map(([name, value]) =>
    value === undefined ? `take out ${name}` : `${name} = ${stringOf(value)}`,
  );
  return `it is written in a way that cannot be changed without harm; do it by hand: ${lines.join("; ")}`;
}
