import { describe, expect, it } from "vitest";
import { BadFrameBudget } from "../../src/link/bad-frames.ts";
import { nextDelayMs } from "../../src/link/reconnect.ts";

const least = () => 0;
const most = () => 0.999999;

describe("the wait before the next attempt", () => {
  it("is between half a second and a ceiling that doubles up to a minute", () => {
    const ceilings = [0, 1, 2, 3, 4, 5, 6, 7, 100, 5000].map((failures) => Math.round(nextDelayMs({ failures }, most)));
    expect(ceilings).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000]);
    for (const failures of [0, 1, 7, 5000]) expect(nextDelayMs({ failures }, least)).toBe(500);
  });

  it("is spread over all of it", () => {
    expect(nextDelayMs({ failures: 6 }, () => 0.5)).toBe(500 + 59_500 / 2);
  });

  it("is what the coordinator asks for, a little spread, and never less", () => {
    expect(nextDelayMs({ failures: 0, retryAfterSeconds: 120 }, least)).toBe(120_000);
    expect(nextDelayMs({ failures: 9, retryAfterSeconds: 120 }, most)).toBeLessThanOrEqual(132_000);
    expect(nextDelayMs({ failures: 9, retryAfterSeconds: 0 }, most)).toBeCloseTo(60_000, -1);
    expect(nextDelayMs({ failures: 0, retryAfterSeconds: 1e12 }, least)).toBe(86_400_000);
  });

  it("is long where another agent has the same key", () => {
    expect(nextDelayMs({ failures: 0, replaced: true }, least)).toBe(30_000);
    expect(nextDelayMs({ failures: 0, replaced: true }, most)).toBeCloseTo(60_000, -1);
  });
});

describe("unusable frames", () => {
  it("may come a hundred at once and one a second, but not in a flood", () => {
    let now = 0;
    const budget = new BadFrameBudget(() => now);
    for (let count = 0; count < 100; count += 1) expect(budget.spend()).toBe(true);
    expect(budget.spend()).toBe(false);
    now += 1000;
    expect([budget.spend(), budget.spend()]).toEqual([true, false]);
    for (let second = 0; second < 5000; second += 1) {
      now += 1000;
      expect(budget.spend()).toBe(true);
    }
    now += 1_000_000_000;
    for (let count = 0; count < 100; count += 1) expect(budget.spend()).toBe(true);
    expect(budget.spend()).toBe(false);
  });
});
