import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eachRatio, type Measured, quantile } from "./figure.ts";
import type { Row } from "./table.ts";

/** What a figure was when it was last recorded. */
export interface Recorded {
  /** Ours over the baseline, the median of its rounds. */
  ratio: number;
  /** The distance between the first and the third quarter of its rounds, as a share of the median: its own noise. */
  noise: number;
  /** True where a greater ratio is the better one. */
  moreIsBetter?: true;
}

const PATH = join(import.meta.dirname, "../recorded.json");
/** Two runs of the same on one machine differ by this much whatever their rounds say. */
const LEAST_NOISE = 0.4;

export function readRecorded(): Record<string, Recorded> {
  return JSON.parse(readFileSync(PATH, "utf8")) as Record<string, Recorded>;
}

/** Puts what was measured over what was recorded before; figures that were not measured stay. */
export function writeRecorded(rows: readonly Row[]): void {
  const next: Record<string, Recorded> = { ...readRecorded() };
  for (const row of rows) {
    const record = "skipped" in row ? undefined : recordOf(row);
    if (record !== undefined) next[row.figure] = record;
  }
  writeFileSync(PATH, `${JSON.stringify(next, undefined, 2)}\n`);
}

function recordOf(measured: Measured): Recorded | undefined {
  const each = eachRatio(measured);
  if (each.length === 0) return undefined;
  const [first, median, third] = [0.25, 0.5, 0.75].map((share) => quantile(each, share)) as [number, number, number];
  return {
    ratio: rounded(median),
    noise: rounded(Math.max(LEAST_NOISE, (third - first) / median)),
    ...(measured.moreIsBetter === true && { moreIsBetter: true as const }),
  };
}

/** The worst median that still counts as the recorded one. */
export function limitOf({ ratio, noise, moreIsBetter }: Recorded): number {
  return moreIsBetter === true ? ratio * (1 - Math.min(0.9, noise)) : ratio * (1 + noise);
}

export function isWorse(recorded: Recorded, ratio: number): boolean {
  return recorded.moreIsBetter === true ? ratio < limitOf(recorded) : ratio > limitOf(recorded);
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
