import { describe, expect, it } from "vitest";
import { forgetFields, knownFields, WANTED_FIELDS } from "../../../src/gpu/nvidia/fields.ts";
import type { SmiProblem } from "../../../src/gpu/nvidia/runner.ts";
import { createSmi } from "../../../src/gpu/nvidia/runner.ts";
import { samples } from "../../../src/gpu/nvidia/sampler.ts";
import { GpuTelemetry } from "../../../src/protocol/gpu.ts";
import { scriptedSmi } from "./scripted.ts";
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

describe("framing", () => {
  /** Rounds of a stream whose output is the shell's `body`, after a help of the five fields of `rowsOf` and two GPUs. */
  async function roundsOf(body: string, count: number) {
    using script = scriptedSmi();
    script.says({ list: "GPU 0: A (UUID: GPU-a)\nGPU 1: B (UUID: GPU-b)\n", rows: "" });
    script.streams(body);
    const stop = new AbortController();
    const patience = setTimeout(() => stop.abort(), 8000);
    const rounds: GpuTelemetry[][] = [];
    for await (const round of samples(script.smi, { intervalMs: 100, signal: stop.signal })) {
      rounds.push(round);
      if (rounds.length >= count) break;
    }
    clearTimeout(patience);
    await script.gone();
    return rounds.map((round) => round.map(({ uuid, vramUsedMiB }) => `${uuid}:${vramUsedMiB}`));
  }
  const row = (index: number | string, uuid: string, used: number) => `${index}, ${uuid}, 7, ${used}, 23034\\n`;
  const both = (used: number) => row(0, "GPU-a", used) + row(1, "GPU-b", used);

  it("blocks that are split anywhere", async () => {
    const text = both(1) + both(2);
    const pieces = Array.from({ length: Math.ceil(text.length / 9) }, (_, at) => text.slice(at * 9, at * 9 + 9));
    // A cut inside "\\n" would be two characters: those pieces are joined.
    const body = pieces
      .join("\u0000")
      .replaceAll("\\\u0000n", "\\n\u0000")
      .split("\u0000")
      .map((piece) => `printf '${piece}'; sleep 0.02`)
      .join("\n");
    expect(await roundsOf(body, 2)).toEqual([
      ["GPU-a:1", "GPU-b:1"],
      ["GPU-a:2", "GPU-b:2"],
    ]);
  });

  it("a GPU lost to its index cell, and then to its whole row", async () => {
    const lost = `${Array(5).fill("[GPU is lost]").join(", ")}\\n`;
    const body = `printf '${both(1)}${row("[GPU is lost]", "GPU-a", 2)}${row(1, "GPU-b", 2)}${lost}${row(1, "GPU-b", 3)}${both(4)}'`;
    expect(await roundsOf(body, 4)).toEqual([["GPU-a:1", "GPU-b:1"], ["GPU-b:2"], ["GPU-b:3"], ["GPU-a:4", "GPU-b:4"]]);
  });

  it("messages, hostile bytes, spoofed and torn rows between the rows", async () => {
    const noise = [
      "\\377\\376\\000\\001\\033[2J\\n",
      "a\\nGPU-fake, 1, spoof, 99999\\t\\n",
      "Unable to determine the device handle for GPU0: 0000:24:00.0: GPU is lost\\n",
      "0, GPU-a, 7\\n",
      "0, NOT-a-uuid, 7, 1, 2\\n",
      "\\r\\n\\n",
    ].join("");
    const body = `printf '${noise}${row(0, "GPU-a", 1)}${noise}${row(1, "GPU-b", 1)}${noise}${both(2)}'`;
    expect(await roundsOf(body, 2)).toEqual([
      ["GPU-a:1", "GPU-b:1"],
      ["GPU-a:2", "GPU-b:2"],
    ]);
  });

  it("a line without end is dropped, and what comes behind it counts", async () => {
    const body = `head -c 200000 /dev/zero | tr '\\0' x; sleep 0.2; printf 'y\\n${both(3)}'`;
    expect(await roundsOf(body, 1)).toEqual([["GPU-a:3", "GPU-b:3"]]);
  });

  it("a row that is missing is not waited for in the next round", async () => {
    const body = `printf '${row(0, "GPU-a", 1)}${both(2)}'`;
    expect(await roundsOf(body, 2)).toEqual([["GPU-a:1"], ["GPU-a:2", "GPU-b:2"]]);
  });
});

describe("knownFields", () => {
  it("keeps the answer of a driver version, and forgets it when told", async () => {
    using script = scriptedSmi();
    const { signal } = new AbortController();
    const asked = () => script.calls("--help-query-gpu").length;
    for (let times = 0; times < 3; times += 1) await knownFields(script.smi, { signal, driverVersion: "580.1" });
    expect(asked()).toBe(1);
    script.says({ help: '"index"\n"uuid"\n"clocks_event_reasons.active"\n' });
    expect(await knownFields(script.smi, { signal, driverVersion: "610.1" })).toEqual([
      { field: "index", name: "index" },
      { field: "uuid", name: "uuid" },
      { field: "clocks_throttle_reasons.active", name: "clocks_event_reasons.active" },
    ]);
    expect(asked()).toBe(2);
    forgetFields(script.smi);
    await knownFields(script.smi, { signal, driverVersion: "610.1" });
    expect(asked()).toBe(3);
  });

  it("asks for the least where the help cannot be read", async () => {
    const { signal } = new AbortController();
    const known = await knownFields(createSmi({ path: "/nonexistent/nvidia-smi" }), { signal });
    const fields = known.map(({ field }) => field);
    expect(fields).toEqual(["index", "uuid", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu"]);
    expect(WANTED_FIELDS).toEqual(expect.arrayContaining(fields));
  });
});
