import { describe, expect, it } from "vitest";
import { readInventory } from "../../../src/gpu/nvidia/inventory.ts";
import { createSmi } from "../../../src/gpu/nvidia/runner.ts";
import { Gpu } from "../../../src/protocol/gpu.ts";
import { simulatedSmi } from "./simulated.ts";

async function inventoryOf(scenario: string | object) {
  using simulated = simulatedSmi(scenario);
  const inventory = await readInventory(simulated.smi);
  await simulated.gone();
  for (const gpu of inventory.gpus) expect(Gpu.parse(gpu)).toEqual(gpu);
  return inventory;
}

describe("readInventory of the simulator's machines", () => {
  it("h100x8", async () => {
    const { gpus, problems, driverVersion } = await inventoryOf("h100x8");
    expect(problems).toEqual([]);
    expect(driverVersion).toMatch(/^580\./);
    expect(gpus.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    for (const gpu of gpus) {
      expect(gpu).toMatchObject({
        computeCapability: "9.0",
        vramMiB: 81559,
        allocatable: true,
        health: { status: "healthy", reasons: [] },
        tensorCores: { generation: 4 },
        mig: { enabled: false, instances: [] },
      });
      const others = gpus.filter(({ uuid }) => uuid !== gpu.uuid).map(({ uuid }) => uuid);
      expect(gpu.links).toEqual(others.map((other) => ({ gpu: other, kind: "nvlink", count: 18 })));
    }
  });

  it("a100x4-mig", async () => {
    const { gpus, problems } = await inventoryOf("a100x4-mig");
    expect(problems).toEqual([]);
    expect(gpus.map(({ mig }) => mig?.enabled)).toEqual([true, true, false, false]);
    const profiles = gpus.map(({ mig }) => mig?.instances.map(({ profile }) => profile));
    expect(profiles[0]).toEqual(["3g.20gb", "3g.20gb"]);
    expect(profiles[1]?.toSorted()).toEqual(["1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"]);
    expect(profiles.slice(2)).toEqual([[], []]);
    const instances = gpus.flatMap(({ mig }) => mig?.instances ?? []);
    expect(new Set(instances.map(({ uuid }) => uuid)).size).toBe(6);
    for (const { uuid, vramMiB, profile } of instances) {
      expect(uuid).toMatch(/^MIG-/);
      // A profile's name tells its memory in GiB, a little more than there is.
      const promised = Number(/(\d+)gb/.exec(profile)?.[1]) * 1024;
      expect(vramMiB).toBeGreaterThan(promised * 0.9);
      expect(vramMiB).toBeLessThanOrEqual(promised);
    }
    expect(gpus.every(({ computeCapability }) => computeCapability === "8.0")).toBe(true);
  });

  it("rtx4090x2, t4 and a GPU without memory of its own", async () => {
    const pair = await inventoryOf("rtx4090x2");
    expect(pair.gpus.map(({ computeCapability, links }) => [computeCapability, links[0]?.kind])).toEqual([
      ["8.9", "pcie"],
      ["8.9", "pcie"],
    ]);
    const one = await inventoryOf("t4");
    expect(one.gpus).toMatchObject([{ computeCapability: "7.5", links: [], tensorCores: { generation: 2 } }]);
    const shared = await inventoryOf({ gpus: [{ model: "gb10" }] });
    expect(shared.gpus).toMatchObject([{ computeCapability: "12.1", unified: true }]);
    expect(shared.gpus[0]?.vramMiB).toBeUndefined();
  });

  it("driver 470 tells no compute capability: the name does", async () => {
    const { gpus } = await inventoryOf({ driver: "470", gpus: [{ model: "a100-sxm4-40gb" }] });
    expect(gpus).toMatchObject([{ computeCapability: "8.0", tensorCores: { generation: 3 } }]);
  });

  it.each([
    ["none", "no_devices"],
    ["broken-driver", "no_driver"],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "libraryMissing" }] }, "no_library"],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "mismatch" }] }, "driver_mismatch"],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "permission" }] }, "permission"],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "noDevices" }] }, "no_devices"],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "allLost" }] }, "gpu_lost"],
    [{ gpus: [{ model: "t4" }], faults: [{ kind: "garbage" }] }, "unreadable"],
  ])("%j: nothing but a problem, %s", async (scenario, code) => {
    const { gpus, problems } = await inventoryOf(scenario);
    expect(gpus).toEqual([]);
    expect(problems.map((problem) => problem.code)).toEqual([code]);
  });

  it("one lost GPU of four is failed, three are as before", async () => {
    const gpus = [{ model: "h100-sxm-80gb", count: 4 }];
    const lost = await inventoryOf({ gpus, faults: [{ kind: "lostGpu", gpu: 1 }] });
    expect(lost.gpus.map(({ allocatable }) => allocatable)).toEqual([true, false, true, true]);
    expect(lost.gpus.every(({ computeCapability }) => computeCapability === "9.0")).toBe(true);
  });

  it("one GPU whose handle fails is missing or failed, three keep index and UUID", async () => {
    const gpus = [{ model: "h100-sxm-80gb", count: 4 }];
    const well = await inventoryOf({ gpus, seed: "same" });
    const failing = await inventoryOf({ gpus, seed: "same", faults: [{ kind: "handleFailure", gpu: 1 }] });
    const usable = failing.gpus.filter(({ allocatable }) => allocatable).map(({ index, uuid }) => [index, uuid]);
    expect(usable).toEqual([0, 2, 3].map((index) => [index, well.gpus[index]?.uuid]));
    expect(failing.problems.length + failing.gpus.filter(({ allocatable }) => !allocatable).length).toBe(1);
  });

  it("half a document keeps the GPUs that are whole", async () => {
    const faults = [{ kind: "halfDocument", on: ["xml"], end: "exit" }];
    const { gpus, problems } = await inventoryOf({ gpus: [{ model: "t4", count: 4 }], faults });
    expect(gpus.map(({ index }) => index)).toEqual([0, 1].slice(0, gpus.length));
    expect(gpus.length).toBeGreaterThan(0);
    expect(problems.map(({ code }) => code)).toEqual(["unreadable"]);
  });

  it("hostile process names stay in their field", async () => {
    const faults = [{ kind: "hostileNames", gpu: 0 }];
    const { gpus, processes, problems } = await inventoryOf({ gpus: [{ model: "t4", count: 2 }], faults });
    expect(problems).toEqual([]);
    expect(gpus).toHaveLength(2);
    expect(processes.get(gpus[0]?.uuid ?? "")).toHaveLength(2);
    expect(processes.get(gpus[1]?.uuid ?? "")).toEqual([]);
  });

  it("without nvidia-smi there is a problem that says what to install", async () => {
    const { gpus, problems } = await readInventory(createSmi({ path: "/nonexistent/nvidia-smi" }));
    expect(gpus).toEqual([]);
    expect(problems).toMatchObject([{ code: "not_found", message: expect.stringContaining("nvidia.smi") }]);
  });
});
