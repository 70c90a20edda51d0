import { format, styleText } from "node:util";

/**
 * Where lines for a person go:
 * `journal`: `<4>message key=value`; systemd takes the priority off, and has the time itself.
 * `terminal`: `14:03:05 warn   message key=value`, coloured where colours show.
 * `file`: `2026-01-31 14:03:05.120 warn   message key=value`, by this machine's clock.
 */
export type Look = "journal" | "terminal" | "file";

/** One call of a logger: `("message")`, `({ fields }, "message")`, `(error)`, each with what printf-like places in the message take. */
export type LogCall = readonly unknown[];

interface Level {
  word: string;
  /** sd-daemon(3), syslog(3). */
  priority: number;
  style?: Parameters<typeof styleText>[0];
}

/** pino's numbers; a level in between counts as the one below. */
const LEVELS: readonly (Level & { from: number })[] = [
  { from: 60, word: "fatal", priority: 2, style: ["bold", "red"] },
  { from: 50, word: "error", priority: 3, style: "red" },
  { from: 40, word: "warn", priority: 4, style: "yellow" },
  { from: 30, word: "info", priority: 6, style: "green" },
  { from: 20, word: "debug", priority: 7, style: "dim" },
  { from: Number.NEGATIVE_INFINITY, word: "trace", priority: 7, style: "dim" },
];
/** From here on the places in the code are told that an error came through. */
const WITH_STACK = 50;
/** The journal cuts lines at 48 KiB (LineMax=), and what is cut off has no priority. */
const LONGEST_LINE = 8_000;
const MOST_FRAMES = 12;
/** Errors within errors; a cause may lead back to itself. */
const MOST_CAUSES = 5;
const INDENT = "    ";

export interface LineOptions {
  look: Look;
  color?: boolean;
  /** Milliseconds since the epoch. */
  now?: () => number;
}

/** Makes of one call of a logger the lines a person reads, each with its end. What others wrote in it can neither break a line nor steer a terminal. */
export function linesFor({
  look,
  color = false,
  now = Date.now,
}: LineOptions): (level: number, call: LogCall) => string {
  const paint = (style: Level["style"], text: string) =>
    color && style !== undefined ? styleText(style, text, { validateStream: false }) : text;
  return (level, call) => {
    const { word, priority, style } = LEVELS.find(({ from }) => level >= from) ?? (LEVELS[0] as Level);
    const { message, fields, details } = wordsOf(level, call);
    const [first = "", ...rest] = message.split(/\r?\n/);
    const head = fields === "" ? clean(first) : `${clean(first)} ${paint("dim", fields)}`;
    const lines = [head, ...rest.map((line) => INDENT + clean(line)), ...details.map((line) => INDENT + clean(line))];
    if (look === "journal") return `${lines.map((line) => `<${priority}>${line}`).join("\n")}\n`;
    const time = look === "terminal" ? clockOf(now()) : stampOf(now());
    lines[0] = `${paint("dim", time)} ${paint(style, word.padEnd(5))} ${lines[0]}`;
    return `${lines.join("\n")}\n`;
  };
}

interface Words {
  message: string;
  /** `key=value …`; "" where there are none. */
  fields: string;
  /** Lines about an error, unindented. */
  details: string[];
}

function wordsOf(level: number, [first, ...more]: LogCall): Words {
  if (typeof first !== "object" || first === null) return { message: format(first, ...more), fields: "", details: [] };
  const fields = first instanceof Error ? { err: first } : (first as Record<string, unknown>);
  const said = more.length === 0 ? "" : format(...more);
  const { err, ...others } = fields;
  const parts = Object.entries(others).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}=${shownValue(value)}`],
  );
  const shown = parts.join(" ");
  if (err === undefined) return { message: said, fields: shown, details: [] };
  return { message: withReason(said, err), fields: shown, details: level >= WITH_STACK ? stackOf(err) : [] };
}

/** "The sentence: what the error says: what caused it", each once. */
function withReason(said: string, err: unknown): string {
  let text = said;
  for (const reason of reasonsOf(err)) {
    if (reason !== "" && !text.includes(reason)) text = text === "" ? reason : `${text}: ${reason}`;
  }
  return text;
}

function reasonsOf(err: unknown): string[] {
  return causes(err).map((error) => (error instanceof Error ? error.message || error.name : String(error)).trim());
}

/** An error and what it came from, the outermost first. */
function causes(err: unknown): unknown[] {
  const found: unknown[] = [];
  for (let error = err; error !== undefined && error !== null && found.length < MOST_CAUSES; ) {
    found.push(error);
    error = error instanceof Error ? (innermost(error) ?? error.cause) : undefined;
  }
  return found;
}

/** Node reports all attempts at once where a name has several addresses; the first says as much as all. */
function innermost(error: Error): unknown {
  return error instanceof AggregateError ? error.errors[0] : undefined;
}

function stackOf(err: unknown): string[] {
  return causes(err).flatMap((error, index) => {
    if (!(error instanceof Error)) return [];
    const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
    const shown = frames.slice(0, MOST_FRAMES).map((line) => line.trim());
    const title = index === 0 ? [] : [`caused by ${error.name}`];
    return shown.length === 0 ? [] : [...title, ...shown];
  });
}

function shownValue(value: unknown): string {
  if (typeof value === "string") return /^[^\s"=]+$/.test(value) ? clean(value) : clean(JSON.stringify(value));
  if (Array.isArray(value) && value.every((part) => typeof part === "string" || typeof part === "number")) {
    return shownValue(value.join(","));
  }
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "object" && value !== null) {
    const json = jsonOf(value);
    return json.startsWith('"') ? shownValue(JSON.parse(json)) : clean(json);
  }
  return clean(String(value));
}

function jsonOf(value: object): string {
  try {
    return JSON.stringify(value) ?? "";
  } catch {
    return '"[not shown]"';
  }
}

const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;
const ALL_UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Safe to show, and no longer than a line may be. */
function clean(text: string): string {
  const safe = UNSAFE.test(text) ? text.replaceAll("\t", " ").replace(ALL_UNSAFE, "�") : text;
  return safe.length > LONGEST_LINE ? `${safe.slice(0, LONGEST_LINE).toWellFormed()}…` : safe;
}

function clockOf(ms: number): string {
  const at = new Date(ms);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
}

function stampOf(ms: number): string {
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${clockOf(ms)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
