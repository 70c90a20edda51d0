import type { Sample } from "./text.ts";

/** A histogram's counts: how many were at most each bound, all in all, and their sum. */
export interface HistogramFigures {
  /** Ascending, each with how many were no greater. */
  buckets: readonly { bound: number; count: number }[];
  count: number;
  sum: number;
}

/** Counts observations by size. */
export class Histogram {
  readonly #buckets: { bound: number; count: number }[];
  #count = 0;
  #sum = 0;

  /** `bounds` ascending; beyond the last there is no limit. */
  constructor(bounds: readonly number[]) {
    this.#buckets = bounds.map((bound) => ({ bound, count: 0 }));
  }

  observe(value: number): void {
    if (!Number.isFinite(value)) return;
    for (const bucket of this.#buckets) if (value <= bucket.bound) bucket.count += 1;
    this.#count += 1;
    this.#sum += value;
  }

  get figures(): HistogramFigures {
    return { buckets: this.#buckets, count: this.#count, sum: this.#sum };
  }
}

/** The series of a histogram without labels of its own. */
export function histogramSamples({ buckets, count, sum }: HistogramFigures): Sample[] {
  return [
    ...buckets.map(
      ({ bound, count: within }): Sample => ({ part: "_bucket", labels: { le: String(bound) }, value: within }),
    ),
    { part: "_bucket", labels: { le: "+Inf" }, value: count },
    { part: "_sum", labels: {}, value: sum },
    { part: "_count", labels: {}, value: count },
  ];
}
