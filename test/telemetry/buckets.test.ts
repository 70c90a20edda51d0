import { describe, expect, it } from "vitest";
import { Draw } from "../../fuzz/draw.ts";
import {
  type Bucket,
  coarsen,
  LEVELS,
  type Line,
  levelFor,
  merge,
  mergeBuckets,
  readBucket,
  spread,
  type Tally,
  written,
} from "../../src/telemetry/buckets.ts";

const T0 = Date.parse("2026-01-02T03:04:05.678Z");
const ROUNDS = 200;

/** What a figure did, as it may be sampled: close together while somebody looks, a minute apart while nobody does. */
function lines(draw: Draw): Line[] {
  const found: Line[] = [];
  let [ms, value] = [T0 + draw.below(300_000), draw.below(101)];
  for (let n = draw.below(60) + 1; n > 0; n--) {
    const toMs = ms + 1 + draw.below(draw.of([10, 1_000, 60_000, 90_000]));
    const to = draw.below(101);
    found.push({ fromMs: ms, toMs, from: value, to });
    [ms, value] = [toMs, to];
  }
  return found;
}

function tallied(of: readonly Line[], stepMs: number): Map<number, Tally> {
  const buckets = new Map<number, Tally>();
  for (const line of of) {
    for (const [startMs, tally] of spread(line, stepMs)) {
      const sum = merge(buckets.get(startMs), tally);
      if (sum !== null) buckets.set(startMs, sum);
    }
  }
  return buckets;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

describe("whatever is sampled, at every resolution", () => {
  const rounds = Array.from({ length: ROUNDS }, (_, seed) => ({ seed, of: lines(Draw.seeded(7, seed)) }));

  it("time, area and peak are what they were", () => {
    for (const { seed, of } of rounds) {
      const timeMs = sum(of.map(({ fromMs, toMs }) => toMs - fromMs));
      const area = sum(of.map(({ fromMs, toMs, from, to }) => ((from + to) / 2) * (toMs - fromMs)));
      const peak = Math.max(...of.flatMap(({ from, to }) => [from, to]));
      for (const { stepMs } of LEVELS) {
        const tallies = [...tallied(of, stepMs).values()];
        expect(sum(tallies.map(({ ms }) => ms)), `seed ${seed}`).toBe(timeMs);
        expect(Math.abs(sum(tallies.map(({ ms, mean }) => ms * mean)) - area), `seed ${seed}`).toBeLessThan(1e-4);
        expect(Math.abs(Math.max(...tallies.map(({ max }) => max)) - peak)).toBeLessThan(1e-9);
      }
    }
  });

  it("no bucket holds more than its time, nor a mean beyond its peak", () => {
    for (const { of } of rounds) {
      for (const { stepMs } of LEVELS) {
        for (const [startMs, { ms, mean, max }] of tallied(of, stepMs)) {
          expect(startMs % stepMs).toBe(0);
          expect(ms).toBeGreaterThan(0);
          expect(ms).toBeLessThanOrEqual(stepMs);
          expect(mean).toBeLessThanOrEqual(max + 1e-9);
          expect(mean).toBeGreaterThanOrEqual(-1e-9);
        }
      }
    }
  });

  it("coarse buckets are what the fine ones add up to", () => {
    for (const { of } of rounds) {
      const fine = new Map<number, Bucket>(
        [...tallied(of, LEVELS[0].stepMs)].map(([startMs, tally]) => [startMs, new Map([["GPU-1", [tally]]])]),
      );
      for (const { stepMs } of LEVELS) {
        const coarse = coarsen(fine, stepMs);
        const straight = tallied(of, stepMs);
        expect([...coarse.keys()]).toEqual([...straight.keys()]);
        for (const [startMs, { ms, mean, max }] of straight) {
          const [tally] = coarse.get(startMs)?.get("GPU-1") ?? [];
          expect(tally?.ms).toBe(ms);
          expect(tally?.mean).toBeCloseTo(mean, 6);
          expect(tally?.max).toBeCloseTo(max, 9);
        }
      }
    }
  });
});

it("often looked at or seldom, what is constant has the same mean", () => {
  const often = Array.from({ length: 100 }, (_, n) => ({ fromMs: T0 + n * 100, toMs: T0 + n * 100 + 100 }));
  const seldom = [{ fromMs: T0 + 10_000, toMs: T0 + 70_000 }];
  const of = [
    ...often.map((line) => ({ ...line, from: 100, to: 100 })),
    ...seldom.map((l) => ({ ...l, from: 0, to: 0 })),
  ];
  const [whole] = [...tallied(of, 24 * 3_600_000).values()];
  expect(whole?.mean).toBeCloseTo((100 * 10) / 70, 6);
});

it("nothing comes of a line that takes no time", () => {
  expect([...spread({ fromMs: T0, toMs: T0, from: 1, to: 2 }, 10_000)]).toEqual([]);
  expect([...spread({ fromMs: T0, toMs: T0 - 1, from: 1, to: 2 }, 10_000)]).toEqual([]);
});

it("each level is a multiple of the one before, and the finest that reaches far enough is taken", () => {
  LEVELS.slice(1).forEach(({ stepMs, keepMs }, at) => {
    expect(stepMs % (LEVELS[at]?.stepMs ?? 0)).toBe(0);
    expect(keepMs).toBeGreaterThan(LEVELS[at]?.keepMs ?? 0);
  });
  const hour = 3_600_000;
  expect([1, 2, 6, 7, 24, 99].map((hours) => levelFor(hours * hour).stepMs / 1000)).toEqual([
    10, 60, 60, 300, 300, 300,
  ]);
});

describe("in the store", () => {
  it("a bucket comes back as it was, to a hundredth", () => {
    const bucket: Bucket = new Map([
      ["host", [{ ms: 4_000, mean: 12.345_678, max: 99 }, null]],
      ["GPU-1", [null, { ms: 10_000, mean: 18_200, max: 18_204 }]],
    ]);
    const back = readBucket(written(bucket));
    expect(back).toEqual(
      new Map([
        ["host", [{ ms: 4_000, mean: 12.35, max: 99 }, null]],
        ["GPU-1", [null, { ms: 10_000, mean: 18_200, max: 18_204 }]],
      ]),
    );
    expect(mergeBuckets(back, new Map())).toEqual(back);
  });

  it.each(["", "{", "null", "[1,2]", '{"host":5}', '{"host":["a"]}', '{"host":[null,1,2]}', '{"host":[1e999,1,2]}'])(
    "what is no bucket is nothing known: %s",
    (text) => {
      expect([...readBucket(text).values()].flat()).toEqual([]);
    },
  );
});
