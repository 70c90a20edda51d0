import { describe, expect, it } from "vitest";
import { GpuTelemetry } from "../../src/protocol/gpu.ts";
import { Attribution, type Owner } from "../../src/telemetry/attribution.ts";

const job = "a".repeat(64);
const other = "b".repeat(64);

/** Processes of a machine: id → when it started, and whose it is. */
function machine(processes: Record<number, { start: string; owner?: Owner }>) {
  const asked: number[] = [];
  const attribution = new Attribution({
    startOf: (pid) => processes[pid]?.start,
    ownerOf: (pid) => {
      asked.push(pid);
      return processes[pid]?.owner;
    },
  });
  return { attribution, asked, processes };
}

const workloads = [{ id: "train", containerId: job }];
const sample = { uuid: "GPU-0", vramUsedMiB: 10_000, vramTotalMiB: 24_576 };

describe("VRAM", () => {
  it("is the workload's by its container, the owner's otherwise, and nobody's for the rest", () => {
    const { attribution } = machine({
      10: { start: "1", owner: { container: job } },
      11: { start: "2", owner: { unit: "app-game.scope" } },
      12: { start: "3" },
      13: { start: "4", owner: { container: other } },
    });
    attribution.attribute(
      new Map([
        [
          "GPU-0",
          [
            { pid: 10, name: "python", vramUsedMiB: 6000 },
            { pid: 11, name: "game", vramUsedMiB: 2000 },
            { pid: 12, name: "Xorg", vramUsedMiB: 300 },
            { pid: 13, name: "miner", vramUsedMiB: 700 },
          ],
        ],
      ]),
      workloads,
    );
    const [told] = attribution.apply([sample]);
    expect(GpuTelemetry.safeParse(told).success).toBe(true);
    expect(told?.processes).toEqual([
      { pid: 10, workload: "train", vramUsedMiB: 6000 },
      { pid: 11, vramUsedMiB: 2000 },
      { pid: 12, vramUsedMiB: 300 },
      { pid: 13, vramUsedMiB: 700 },
    ]);
    expect(told?.vramUnattributedMiB).toBe(1000);
    expect(attribution.vramOf("train")).toBe(6000);
    expect(attribution.vramOf("nobody")).toBeUndefined();
    expect(attribution.foreign()).toEqual([
      { gpu: "GPU-0", pid: 11, name: "game", owner: { unit: "app-game.scope" }, vramUsedMiB: 2000 },
      { gpu: "GPU-0", pid: 12, name: "Xorg", owner: undefined, vramUsedMiB: 300 },
      { gpu: "GPU-0", pid: 13, name: "miner", owner: { container: other }, vramUsedMiB: 700 },
    ]);
  });

  it("of a workload is summed over its GPUs, and unknown where one process tells none", () => {
    const { attribution } = machine({
      10: { start: "1", owner: { container: job } },
      11: { start: "1", owner: { container: job } },
    });
    const on = (second: object) =>
      new Map([
        ["GPU-0", [{ pid: 10, name: "python", vramUsedMiB: 100 }]],
        ["GPU-1", [{ pid: 11, name: "python", ...second }]],
      ]);
    attribution.attribute(on({ vramUsedMiB: 50 }), workloads);
    expect(attribution.vramOf("train")).toBe(150);
    attribution.attribute(on({}), workloads);
    expect(attribution.vramOf("train")).toBeUndefined();
    expect(attribution.apply([{ uuid: "GPU-1", vramUsedMiB: 70 }])[0]).toEqual({
      uuid: "GPU-1",
      vramUsedMiB: 70,
      processes: [{ pid: 11, workload: "train" }],
    });
  });

  it("is not told while memory has changed hands since the processes were listed", () => {
    const { attribution } = machine({ 10: { start: "1" } });
    const list = new Map([["GPU-0", [{ pid: 10, name: "x", vramUsedMiB: 3_590 }]]]);
    attribution.attribute(list, [], [{ uuid: "GPU-0", vramUsedMiB: 3_599 }]);
    expect(attribution.apply([{ uuid: "GPU-0", vramUsedMiB: 3_635 }])[0]).toMatchObject({ vramUnattributedMiB: 45 });
    // Another process has come, or that one has gone: whose it is, the next read tells.
    for (const vramUsedMiB of [6_875, 0])
      expect(attribution.apply([{ uuid: "GPU-0", vramUsedMiB }])).toEqual([{ uuid: "GPU-0", vramUsedMiB }]);
  });

  it("is never told below nothing, and not at all before the first read", () => {
    const { attribution } = machine({ 10: { start: "1" } });
    expect(attribution.apply([sample])).toEqual([sample]);
    attribution.attribute(new Map([["GPU-0", [{ pid: 10, name: "x", vramUsedMiB: 99_999 }]]]), []);
    expect(attribution.apply([sample])[0]?.vramUnattributedMiB).toBe(0);
  });
});

describe("a process id", () => {
  it("is looked up once for as long as it means the same process", () => {
    const { attribution, asked, processes } = machine({ 10: { start: "1", owner: { container: job } } });
    const list = new Map([["GPU-0", [{ pid: 10, name: "python", vramUsedMiB: 1 }]]]);
    attribution.attribute(list, workloads);
    attribution.attribute(list, workloads);
    expect(asked).toEqual([10]);
    processes[10] = { start: "2", owner: { unit: "session-1.scope" } };
    attribution.attribute(list, workloads);
    expect(asked).toEqual([10, 10]);
    expect(attribution.vramOf("train")).toBeUndefined();
  });

  it("that is gone, or changes hands while it is looked at, belongs to nobody", () => {
    const starts = ["1", "2"];
    const attribution = new Attribution({
      startOf: (pid) => (pid === 10 ? starts.shift() : undefined),
      ownerOf: () => ({ container: job }),
    });
    attribution.attribute(new Map([["GPU-0", [10, 11].map((pid) => ({ pid, name: "x", vramUsedMiB: 1 }))]]), workloads);
    expect(attribution.apply([sample])[0]).toMatchObject({ processes: [], vramUnattributedMiB: 10_000 });
  });

  it("of a workload that has ended is the owner's business again", () => {
    const { attribution } = machine({ 10: { start: "1", owner: { container: job } } });
    const list = new Map([["GPU-0", [{ pid: 10, name: "python", vramUsedMiB: 1 }]]]);
    attribution.attribute(list, workloads);
    attribution.attribute(list, []);
    expect(attribution.foreign()).toHaveLength(1);
  });
});
