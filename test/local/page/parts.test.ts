import { describe, expect, it } from "vitest";
import { COLORS, colorOf, segmentsOf } from "../../../src/local/page/lanes.ts";
import { timeOfDay } from "../../../src/local/page/words.ts";
import { pulledInWords, remarksOn, shortGpu, usersOf } from "../../../src/local/workload-words.ts";
import { gpu, workload } from "./stage.ts";

const span = (name: string, fromMs: number, toMs?: number, gpus = ["GPU-1"]) => ({
  workload: name,
  generation: 1,
  gpus,
  fromMs,
  ...(toMs !== undefined && { toMs }),
});

describe("who held a GPU, as it is drawn", () => {
  const shown = { fromMs: 1_000, toMs: 2_000 };
  const drawn = (spans: ReturnType<typeof span>[], units = ["GPU-1", "MIG-1"]) =>
    segmentsOf(spans, units, shown).map(({ workload: name, left, width, lane }) => [name, left, width, lane]);

  it("is cut to the time shown, and open to its end", () => {
    expect(
      drawn([span("a", 500, 1_250), span("b", 1_500), span("gone", 0, 1_000), span("later", 2_000, 3_000)]),
    ).toEqual([
      ["a", 0, 0.25, 0],
      ["b", 0.5, 0.5, 0],
    ]);
  });

  it("is this GPU's and its instances' alone", () => {
    expect(drawn([span("a", 1_000, 2_000, ["GPU-2"]), span("b", 1_000, 2_000, ["MIG-1", "MIG-9"])])).toEqual([
      ["b", 0, 1, 0],
    ]);
  });

  it("goes into a row of its own where another has it already, and back when there is room", () => {
    expect(
      drawn([span("a", 1_000, 1_500), span("b", 1_250, 1_750), span("c", 1_500, 2_000), span("d", 1_600, 2_000)]),
    ).toEqual([
      ["a", 0, 0.5, 0],
      ["b", 0.25, 0.5, 1],
      ["c", 0.5, 0.5, 0],
      ["d", 0.6, 0.4, 2],
    ]);
  });

  it("has a color that stays, and is another one for each of those seen together", () => {
    const names = Array.from({ length: COLORS }, (_, n) => `color-${n}`);
    const colors = names.map(colorOf);
    expect(new Set(colors).size).toBe(COLORS);
    expect(names.map(colorOf)).toEqual(colors);
  });
});

describe("words", () => {
  it("name a GPU as its card does, and its instance by profile", () => {
    const instance = { uuid: "MIG-1", profile: "3g.20gb", vramMiB: 20_096, gpuInstanceId: 1, computeInstanceId: 0 };
    const gpus = [gpu(0), gpu(3, { mig: { enabled: true, instances: [instance] } })];
    expect([gpus[0]?.uuid ?? "", "MIG-1", "GPU-of-before-the-repair"].map((uuid) => shortGpu(uuid, gpus))).toEqual([
      "0",
      "3:3g.20gb",
      "GPU-of-befor",
    ]);
    const users = [
      workload("a", { gpus: ["MIG-1"] }),
      workload("b", { gpus: ["MIG-1"], finishedAt: "2026-01-01T00:00:00Z" }),
    ];
    expect(usersOf(gpus[1] ?? gpu(1), users).map(({ id }) => id)).toEqual(["a"]);
  });

  it("tell how a workload ended, once", () => {
    expect(remarksOn(workload("a", { state: "failed", message: "exited with code 3", exitCode: 3 })).join(", ")).toBe(
      "exited with code 3",
    );
    expect(remarksOn(workload("a", { state: "failed", exitCode: 137, oomKilled: true, restarts: 2 })).join(", ")).toBe(
      "out of memory, exit code 137, restarted 2 ×",
    );
    expect(remarksOn(workload("a", { ports: [{ container: 80, host: 30_000 }], healthy: false })).join(", ")).toBe(
      "not healthy, 30000→80",
    );
    expect(
      remarksOn(workload("a", { message: "taken back", notice: { cause: "owner", message: "taken back" } })).join(", "),
    ).toBe("");
  });

  it("tell how far a pull is, also where nobody knows how much it is", () => {
    expect(pulledInWords({ currentBytes: 2 ** 30, totalBytes: 2 ** 31 })).toBe("50 % of 2.0 GiB pulled");
    expect(pulledInWords({ currentBytes: 2 ** 30, totalBytes: 0 })).toBe("1.0 GiB pulled");
  });

  it("tell the hour by the clock on this wall", () => {
    expect(timeOfDay(new Date(2026, 0, 2, 3, 4, 59).getTime())).toBe("03:04");
  });
});
