/**
 * Figures over time at falling resolution: what a figure did in each bucket of 10 s, of a minute, of five. Between two samples a
 * figure is taken to have gone straight from one to the other, and counts for as long as that took: so a mean does not depend on how
 * often somebody looked, and a coarser bucket is exactly what the finer ones add up to.
 */

/** A resolution, and how long it is kept. */
export interface Level {
  stepMs: number;
  keepMs: number;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** Finest first. Each step is a multiple of the one before. */
export const LEVELS = [
  { stepMs: 10_000, keepMs: HOUR_MS },
  { stepMs: MINUTE_MS, keepMs: 6 * HOUR_MS },
  { stepMs: 5 * MINUTE_MS, keepMs: 24 * HOUR_MS },
] as const satisfies readonly Level[];

/** What a figure did in one bucket: for how long it is known, its mean over that time, and its highest value. */
export interface Tally {
  ms: number;
  mean: number;
  max: number;
}

/** The tallies of a subject (a GPU, the host) in one bucket, by figure; `null` where nothing is known. */
export type Tallies = readonly (Tally | null)[];

/** What all subjects did in one bucket. */
export type Bucket = ReadonlyMap<string, Tallies>;

/** From one sample of a figure to the next. Times are milliseconds since the epoch. */
export interface Line {
  fromMs: number;
  toMs: number;
  from: number;
  to: number;
}

/** The part of a line that lies in each bucket of `stepMs`, by the bucket's start. Nothing where no time passes. */
export function* spread({ fromMs, toMs, from, to }: Line, stepMs: number): Generator<[startMs: number, tally: Tally]> {
  const at = (ms: number) => (ms === toMs ? to : from + ((to - from) * (ms - fromMs)) / (toMs - fromMs));
  for (let begins = fromMs; begins < toMs; ) {
    const startMs = startOf(begins, stepMs);
    const ends = Math.min(toMs, startMs + stepMs);
    const [a, b] = [at(begins), at(ends)];
    yield [startMs, { ms: ends - begins, mean: (a + b) / 2, max: Math.max(a, b) }];
    begins = ends;
  }
}

/** Start of the bucket that holds an instant. */
export function startOf(ms: number, stepMs: number): number {
  return Math.floor(ms / stepMs) * stepMs;
}

/** Two tallies of the same figure as one. */
export function merge(a: Tally | null | undefined, b: Tally | null | undefined): Tally | null {
  if (!a || !b) return a ?? b ?? null;
  const ms = a.ms + b.ms;
  return { ms, mean: (a.mean * a.ms + b.mean * b.ms) / ms, max: Math.max(a.max, b.max) };
}

/** Two buckets of the same time as one. */
export function mergeBuckets(a: Bucket, b: Bucket): Bucket {
  const merged = new Map(a);
  for (const [subject, tallies] of b) {
    const known = merged.get(subject) ?? [];
    const figures = Math.max(known.length, tallies.length);
    merged.set(
      subject,
      Array.from({ length: figures }, (_, figure) => merge(known[figure], tallies[figure])),
    );
  }
  return merged;
}

/** Finer buckets, by their starts, as those of `stepMs`. */
export function coarsen(buckets: ReadonlyMap<number, Bucket>, stepMs: number): Map<number, Bucket> {
  const coarse = new Map<number, Bucket>();
  for (const [ms, bucket] of buckets) {
    const startMs = startOf(ms, stepMs);
    const known = coarse.get(startMs);
    coarse.set(startMs, known === undefined ? bucket : mergeBuckets(known, bucket));
  }
  return coarse;
}

/** The finest level that reaches so far back; the coarsest where none does. */
export function levelFor(spanMs: number): Level {
  return LEVELS.find(({ keepMs }) => keepMs >= spanMs) ?? LEVELS[2];
}

/** A bucket as it lies in the store, small: per subject three numbers a figure. */
export function written(bucket: Bucket): string {
  const numbers = (tallies: Tallies) =>
    tallies.flatMap((tally) => (tally === null ? [0, 0, 0] : [tally.ms, rounded(tally.mean), rounded(tally.max)]));
  return JSON.stringify(Object.fromEntries([...bucket].map(([subject, tallies]) => [subject, numbers(tallies)])));
}

/** What `written` wrote; what is not understood is left out. */
export function readBucket(text: string): Bucket {
  const bucket = new Map<string, Tallies>();
  for (const [subject, numbers] of entriesOf(text)) {
    if (!Array.isArray(numbers) || !numbers.every((each) => Number.isFinite(each))) continue;
    const tallies: (Tally | null)[] = [];
    for (let at = 0; at + 2 < numbers.length; at += 3) {
      const [ms = 0, mean = 0, max = 0] = (numbers as number[]).slice(at, at + 3);
      tallies.push(ms > 0 ? { ms, mean, max } : null);
    }
    bucket.set(subject, tallies);
  }
  return bucket;
}

function entriesOf(text: string): [string, unknown][] {
  try {
    const raw: unknown = JSON.parse(text);
    return typeof raw === "object" && raw !== null ? Object.entries(raw) : [];
  } catch {
    return [];
  }
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
