import { readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { isReached, type Measured, type Reach, ratios, type Spread, spread } from "./figure.ts";

/** A row of the table: a figure as measured, or why it is none. */
export type Row = { key: string } & (Measured | { figure: string; skipped: string });

const HEAD = ["figure", "min / median / max", "baseline", "its min / median / max", "ratio", "to reach", "", "remarks"];

/** The machine in one line; figures of another one are others. */
export function machineLine(): string {
  const [{ model } = { model: "unknown CPU" }] = cpus();
  const name = /^PRETTY_NAME="?([^"\n]+)/m.exec(readIfThere("/etc/os-release"))?.[1] ?? process.platform;
  const load = readIfThere("/proc/loadavg").split(" ")[0];
  const day = new Date().toISOString().slice(0, 10);
  return `${cpus().length} × ${model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${name}, Node ${process.version}, load ${load}, ${day}`;
}

/** The table in Markdown. */
export function tableOf(rows: readonly Row[]): string {
  const cells = [HEAD, HEAD.map(() => "---"), ...rows.map(cellsOf)];
  return cells.map((row) => `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`).join("\n");
}

function cellsOf(row: Row): string[] {
  if ("skipped" in row) return [row.figure, "not measured", "", "", "", "", "–", row.skipped.replaceAll("\n", " ")];
  const { figure, unit, rounds, baseline, reach, note = "" } = row;
  const theirs = rounds.flatMap((round) => (round.baseline === undefined ? [] : [round.baseline]));
  const ratio = ratios(row);
  const reached = isReached(row);
  return [
    figure,
    `${inWords(spread(rounds.map(({ ours }) => ours)))} ${unit}`,
    baseline ?? "–",
    theirs.length === 0 ? "–" : inWords(spread(theirs)),
    ratio === undefined ? "–" : `${inWords(ratio)} ×`,
    reach === undefined ? "–" : reachInWords(reach, unit),
    reached === undefined ? "–" : reached ? "yes" : "**no**",
    note,
  ];
}

function inWords({ min, median, max }: Spread): string {
  return [min, median, max].map(short).join(" / ");
}

/** Three digits that count. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "?";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 0.1 ? 2 : 4;
  return value.toFixed(digits);
}

function reachInWords(reach: Reach, unit: string): string {
  if ("ratioAtMost" in reach) return `≤ ${short(reach.ratioAtMost)} ×`;
  if ("ratioAtLeast" in reach) return `≥ ${short(reach.ratioAtLeast)} ×`;
  if ("moreAtMost" in reach) return `baseline + ≤ ${short(reach.moreAtMost)} ${unit}`;
  return `≤ ${short(reach.atMost)} ${unit}`;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
