import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { parse, TomlError } from "smol-toml";
import { KEY_NAMES, KEYS, type KeyName } from "./keys.ts";
import { nearest } from "./nearest.ts";
import { ConfigError } from "./problem.ts";

/** What stands in a configuration file, key by key, not yet held against their kinds. */
export interface FileContents {
  values: Map<KeyName, unknown>;
  /** Names nobody knows, with the sentence about each. */
  unknown: { name: string; problem: string }[];
  text: string;
}

/** Reads a configuration file. Throws `ConfigError` where it cannot be read or is no TOML, with line and column. */
export function readConfigFile(file: string): FileContents {
  const text = readText(file);
  let table: Record<string, unknown>;
  try {
    table = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [sentence = ""] = error.message.split("\n");
    const problem = sentence.replace(/^Invalid TOML document: /, "");
    // Without its cause: that quotes the line, which may hold the join token.
    throw new ConfigError([`${file}:${error.line}:${error.column}: ${problem}`]);
  }
  const contents: FileContents = { values: new Map(), unknown: [], text };
  collect(table, "", contents);
  return contents;
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why =
      code === "ENOENT"
        ? "there is no such file"
        : code === "EACCES"
          ? `the user ${userInfo().username} may not read it`
          : message;
    throw new ConfigError([`${file}: ${why}`], { cause: error });
  }
}

function collect(table: Record<string, unknown>, prefix: string, contents: FileContents): void {
  for (const [part, value] of Object.entries(table)) {
    const name = prefix + part;
    if (isKey(name)) contents.values.set(name, value);
    else if (isSection(name)) {
      if (isTable(value)) collect(value, `${name}.`, contents);
      else contents.unknown.push({ name, problem: `"${name}" is a section: write it as [${name}]` });
    } else contents.unknown.push({ name, problem: unknownKey(name, prefix) });
  }
}

export function isKey(name: string): name is KeyName {
  return Object.hasOwn(KEYS, name);
}

function isSection(name: string): boolean {
  return KEY_NAMES.some((key) => key.startsWith(`${name}.`));
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** Looks first among the names that could stand here, then for the same word in another section. */
function unknownKey(name: string, prefix: string): string {
  const part = name.slice(prefix.length);
  const here = KEY_NAMES.filter((key) => key.startsWith(prefix)).map(
    (key) => key.slice(prefix.length).split(".")[0] ?? "",
  );
  const elsewhere = KEY_NAMES.find((key) => key.split(".").at(-1) === part);
  const meant = nearest(part, [...new Set(here)]) ?? elsewhere;
  return `unknown key "${name}"${meant === undefined ? "" : `; did you mean "${meant}"?`}`;
}
