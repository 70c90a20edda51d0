import { describe, expect, it } from "vitest";
import { knownFields, WANTED_FIELDS } from "../../../src/gpu/nvidia/fields.ts";
import type { SmiProblem } from "../../../src/gpu/nvidia/runner.ts";
import { createSmi } from "../../../src/gpu/nvidia/runner.ts";
import { samples } from "../../../src/gpu/nvidia/sampler.ts";
import { GpuTelemetry } from "../../../src/protocol/gpu.ts";
import { simulatedSmi } from "./simulated.ts";

/** Takes rounds until `enough` says so, then aborts; resolves when the generator has ended. */
async function take(
  simulated: ReturnType<typeof simulatedSmi>,
  enough: (rounds: GpuTelemetry[][], problems: (SmiProblem | undefined)[]) => boolean,
  { silenceAllowanceMs = 3000, intervalMs = 100 } = {},
) {
  const stop = new AbortController();
  const rounds: GpuTelemetry[][] = [];
  const problems: (SmiProblem | undefined)[] = [];
  const onProblem = (problem: SmiProblem | undefined) => problems.push(problem);
  for await (const round of samples(simulated.smi, {
    intervalMs,
    signal: stop.signal,
    onProblem,
    silenceAllowanceMs,
  })) {
    rounds.push(round);
    if (enough(rounds, problems)) stop.abort();
  }
  await simulated.gone();
  return { rounds, problems };
}

describe("samples", () => {
  it("come in complete rounds, and nothing runs when they are over", async () => {
    using simulated = simulatedSmi("h100x8");
    const { rounds, problems } = await take(simulated, (all) => all.length >= 5);
    expect(problems).toEqual([]);
    expect(rounds).toHaveLength(5);
    for (const round of rounds) {
      expect(round).toHaveLength(8);
      expect(new Set(round.map(({ uuid }) => uuid)).size).toBe(8);
      for (const sample of round) {
        expect(GpuTelemetry.parse(sample)).toEqual(sample);
        expect(sample).toMatchObject({ vramTotalMiB: 81559, throttleReasons: expect.any(Array) });
        for (const key of ["utilizationPercent", "powerWatts", "temperatureCelsius", "smClockMHz"] as const)
          expect(sample[key]).toBeTypeOf("number");
      }
    }
  });

  it.each(["470", "510", "535", "550", "580", "595"])("of driver %s", async (driver) => {
    using simulated = simulatedSmi({ driver, gpus: [{ model: "t4", count: 2 }] });
    const { rounds, problems } = await take(simulated, (all) => all.length >= 1);
    expect(problems).toEqual([]);
    expect(rounds[0]).toHaveLength(2);
    expect(rounds[0]?.[0]).toMatchObject({ vramTotalMiB: expect.any(Number), powerWatts: expect.any(Number) });
  });

  it("leave a GPU out that is lost midway, and go on with the others", async () => {
    const gpus = [{ model: "h100-sxm-80gb", count: 4 }];
    using simulated = simulatedSmi({ gpus, faults: [{ kind: "lostGpu", gpu: 2, afterMs: 3000 }] });
    const { rounds, problems } = await take(simulated, (all) => all.filter((round) => round.length === 3).length >= 3);
    expect(problems).toEqual([]);
    const whole = rounds.filter((round) => round.length === 4);
    expect(whole.length).toBeGreaterThan(0);
    const left = [0, 1, 3].map((index) => whole[0]?.[index]?.uuid);
    for (const round of rounds.slice(-2)) expect(round.map(({ uuid }) => uuid)).toEqual(left);
  });

  it("a stream that falls silent is started again", async () => {
    const faults = [{ kind: "hang", on: ["stream"], afterMs: 0, forMs: 4000 }];
    using simulated = simulatedSmi({ gpus: [{ model: "t4" }], faults });
    const { rounds, problems } = await take(simulated, (all, told) => all.length >= 1 && told.includes(undefined), {
      silenceAllowanceMs: 500,
    });
    expect(problems[0]).toMatchObject({ code: "timeout", message: expect.stringContaining("0.8 s") });
    expect(problems.at(-1)).toBeUndefined();
    expect(rounds.at(-1)).toHaveLength(1);
  });

  it("a stream that ends because every GPU is lost is a problem", async () => {
    const faults = [{ kind: "allLost", afterMs: 3000, forMs: 1000 }];
    using simulated = simulatedSmi({ gpus: [{ model: "t4" }], faults });
    const { problems } = await take(simulated, (_, told) => told.includes(undefined));
    expect(problems[0]?.code).toMatch(/gpu_lost|failed/);
  });

  it("end at once with the signal while the stream hangs or nothing can be started", async () => {
    using hanging = simulatedSmi({ gpus: [{ model: "t4" }], faults: [{ kind: "hang" }] });
    for (const smi of [hanging.smi, createSmi({ path: "/nonexistent/nvidia-smi" }), createSmi({ path: "nul\0" })]) {
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), 400);
      const started = performance.now();
      for await (const round of samples(smi, { intervalMs: 100, signal: stop.signal })) expect(round).toBeUndefined();
      clearTimeout(timer);
      expect(performance.now() - started).toBeLessThan(2500);
    }
    await hanging.gone();
  });

  it("a reader that leaves early leaves no process behind", async () => {
    using simulated = simulatedSmi("t4");
    const { signal } = new AbortController();
    for await (const round of samples(simulated.smi, { intervalMs: 100, signal })) {
      expect(round).toHaveLength(1);
      break;
    }
    await simulated.gone();
  });
});

describe("knownFields", () => {
  it("asks for the least where the help cannot be read", async () => {
    const fields = await knownFields(createSmi({ path: "/nonexistent/nvidia-smi" }), new AbortController().signal);
    expect(fields).toEqual(["index", "uuid", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu"]);
    expect(WANTED_FIELDS).toEqual(expect.arrayContaining(fields));
  });
});
