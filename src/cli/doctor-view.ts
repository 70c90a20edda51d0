import type { CheckReport, Report } from "../doctor/report.ts";
import { paint, printable, type Style, type TableOptions } from "./table.ts";

export interface DoctorViewOptions extends TableOptions {
  /** Also what is well, with why it matters. */
  verbose: boolean;
  /** How this command is called as root. */
  command: string;
}

const ORDER = ["failure", "warning", "note"] as const;
const STYLES: Readonly<Record<string, Style>> = {
  failure: "red",
  warning: "yellow",
  note: "cyan",
  ok: "green",
  skipped: "dim",
};
/** The longest of the words above, and a gap. */
const INDENT = 9;
/** Longer lines are hard to read, however wide the window is. */
const WIDTH_MOST = 100;

/** The report for a person: what is wrong first, what is well in one line. Ends with a newline. */
export function doctorInWords({ machine, counts, checks }: Report, options: DoctorViewOptions): string {
  const sorted = ORDER.flatMap((verdict) => checks.filter((one) => one.verdict === verdict));
  const blocks = sorted.map((one) => block(one, options));
  const well = checks.filter(({ verdict }) => verdict === "ok");
  const left = checks.filter(({ verdict }) => verdict === "skipped");
  if (options.verbose) blocks.push(...[...well, ...left].map((one) => block(one, options)));
  else {
    if (left.length > 0) blocks.push(skippedInWords(left, options));
    if (well.length > 0) blocks.push(entry("ok", [well.map(({ id }) => id).join(", ")], options));
  }
  const where = [
    machine.hostname,
    [machine.os, machine.kernel === "" ? "" : `kernel ${machine.kernel}`].filter((part) => part !== "").join(", "),
  ];
  const head = wrapped(printable(where.filter((part) => part !== "").join(": ")), lineWidth(options));
  return `${head.join("\n")}\n\n${blocks.join("\n")}\n${summary(counts, checks, options)}`;
}

function block({ verdict, id, found, why, fix }: CheckReport, options: DoctorViewOptions): string {
  const tells = verdict !== "ok" && verdict !== "skipped";
  const lines = [`${paint(id, "bold", options)}: ${printable(found)}`];
  if (tells || options.verbose) lines.push(`why: ${printable(why)}`);
  const steps = fix.map(({ kind, text }) =>
    kind === "advice" ? `→ ${printable(text)}` : { text: `$ ${printable(text)}` },
  );
  return entry(verdict, [...lines, ...steps], options);
}

/** A line that is to be copied is never broken. */
type Line = string | { text: string };

function entry(verdict: string, lines: readonly Line[], options: DoctorViewOptions): string {
  const width = lineWidth(options);
  const room = width === undefined ? undefined : Math.max(20, width - INDENT);
  const rows = lines.flatMap((line) => (typeof line === "string" ? hanging(line, room) : [line.text]));
  const label = paint(verdict, STYLES[verdict] ?? "dim", options) + " ".repeat(Math.max(1, INDENT - verdict.length));
  return `${rows.map((row, index) => (index === 0 ? label : " ".repeat(INDENT)) + row).join("\n")}\n`;
}

/** Those with the same reason together. */
function skippedInWords(checks: readonly CheckReport[], options: DoctorViewOptions): string {
  const reasons = new Map<string, string[]>();
  for (const { id, found } of checks) reasons.set(found, [...(reasons.get(found) ?? []), id]);
  return entry(
    "skipped",
    [...reasons].map(([why, ids]) => `${ids.join(", ")}: ${printable(why)}`),
    options,
  );
}

function summary(counts: Report["counts"], checks: readonly CheckReport[], options: DoctorViewOptions): string {
  const parts = [
    ...ORDER.flatMap((verdict) => (counts[verdict] === 0 ? [] : [amount(counts[verdict], verdict)])),
    `${counts.ok} ok`,
    ...(counts.skipped === 0 ? [] : [`${counts.skipped} skipped`]),
  ];
  const ids = (fixable: string) => checks.filter((one) => one.fixable === fixable).map(({ id }) => id);
  const [safe, named] = [ids("safe"), ids("named")];
  const hints = [
    ...(safe.length === 0 ? [] : [`"${options.command} --fix" mends ${safe.join(", ")}.`]),
    ...(named.length === 0
      ? []
      : [`"${options.command} --fix ${named.join(" ")}" mends what is only done when it is named.`]),
  ];
  return `${[`${parts.join(", ")}.`, ...hints].flatMap((line) => wrapped(line, lineWidth(options))).join("\n")}\n`;
}

function lineWidth({ width }: DoctorViewOptions): number | undefined {
  return width === undefined ? undefined : Math.min(width, WIDTH_MOST);
}

function amount(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** Wrapped, and what is wrapped of an advice stands below its words. */
function hanging(line: string, room: number | undefined): string[] {
  if (!line.startsWith("→ ") || room === undefined) return wrapped(line, room);
  return wrapped(line.slice(2), room - 2).map((row, index) => (index === 0 ? "→ " : "  ") + row);
}

/** Lines of at most `room` characters, broken between words; a word that is longer stands alone. */
export function wrapped(text: string, room: number | undefined): string[] {
  if (room === undefined) return [text];
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && visible(line) + 1 + visible(word) > room) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Characters that take room: colours do not. */
function visible(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is how a terminal is told of colours
  return [...text.replace(/\x1b\[[\d;]*m/g, "")].length;
}
