/** One run of a figure beside its baseline, which was measured right before or after it. */
export interface Round {
  ours: number;
  baseline?: number;
}

/** What a figure is to reach; the median decides. */
export type Reach =
  | { ratioAtMost: number }
  | { ratioAtLeast: number }
  /** No more than this beyond the baseline, in the figure's unit. */
  | { moreAtMost: number }
  | { atMost: number };

/** A figure as measured. */
export interface Measured {
  figure: string;
  unit: string;
  /** What was measured beside it; absent where there is none. */
  baseline?: string;
  rounds: readonly Round[];
  reach?: Reach;
  /** A rate: a greater ratio is the better one. */
  moreIsBetter?: true;
  note?: string;
}

/** A bench, which yields one figure or several. */
export interface Bench {
  /** For the command line. */
  key: string;
  figures: readonly string[];
  /** Part of the check that CI runs: a minute at most, and no engine. */
  quick?: true;
  /** Only run where it is asked for by its key. */
  onlyByName?: true;
  run(bench: BenchContext): Promise<Measured[]>;
}

export interface BenchContext {
  /** The package's folder. */
  root: string;
  simulator: string;
  /** The engine all benches share, started for the first that asks. Throws `CannotRun`. */
  engine(): Promise<BenchEngine>;
  /** The check that CI runs: benches do without an engine. */
  isQuick: boolean;
  /** How long the agent is watched before its memory counts, minutes. */
  soakMinutes: number;
  /** One line about what is going on. */
  log(line: string): void;
}

export interface BenchEngine {
  socket: string;
  /** Small, with a shell; in the engine already. */
  image: string;
  /** The same, served without an end: what pulls it is under way and costs no container. */
  endless: string;
  /** A reference to a new image with a layer of so many random bytes. */
  padded(bytes: number): Promise<string>;
}

/** A figure that cannot be had on this machine; `message` says why. */
export class CannotRun extends Error {
  override readonly name = "CannotRun";
}

export interface Spread {
  min: number;
  median: number;
  max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const [min = Number.NaN, median = Number.NaN, max = Number.NaN] = [
    sorted[0],
    sorted[sorted.length >> 1],
    sorted.at(-1),
  ];
  return { min, median, max };
}

/** The value that `share` of them stay at or below. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Ours over the baseline, round by round; empty where there is no baseline. */
export function eachRatio({ rounds }: Measured): number[] {
  return rounds.flatMap(({ ours, baseline }) => (baseline === undefined ? [] : [ours / baseline]));
}

/** Their spread; undefined where there is no baseline. */
export function ratios(measured: Measured): Spread | undefined {
  const each = eachRatio(measured);
  return each.length === 0 ? undefined : spread(each);
}

/** Whether the median reaches what it is to reach; undefined where nothing is asked. */
export function isReached(measured: Measured): boolean | undefined {
  const { reach, rounds } = measured;
  if (reach === undefined) return undefined;
  if ("atMost" in reach) return spread(rounds.map(({ ours }) => ours)).median <= reach.atMost;
  if ("moreAtMost" in reach)
    return spread(rounds.map(({ ours, baseline = 0 }) => ours - baseline)).median <= reach.moreAtMost;
  const ratio = ratios(measured)?.median ?? Number.NaN;
  return "ratioAtMost" in reach ? ratio <= reach.ratioAtMost : ratio >= reach.ratioAtLeast;
}

/** Runs both in turn: `warmUp` rounds that do not count, then `rounds` that do. */
export async function alternating(
  { rounds, warmUp = 2 }: { rounds: number; warmUp?: number },
  ours: () => number | Promise<number>,
  baseline: () => number | Promise<number>,
): Promise<Round[]> {
  const measured: Round[] = [];
  for (let round = -warmUp; round < rounds; round += 1) {
    const one = { baseline: await baseline(), ours: await ours() };
    if (round >= 0) measured.push(one);
  }
  return measured;
}
