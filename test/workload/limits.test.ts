import { describe, expect, it } from "vitest";
import { Workload } from "../../src/protocol/workload.ts";
import { type Lendable, limitsOf } from "../../src/workload/limits.ts";

const node: Lendable = {
  policy: { reserve: { cpus: 2, memoryMiB: 4000, diskMiB: 1000 } },
  cpus: 16,
  memoryMiB: 64_000,
  diskFreeMiB: 101_000,
};
const withMax = (max: NonNullable<Lendable["policy"]["max"]>) => ({ ...node, policy: { ...node.policy, max } });
const workload = (input: object = {}) => Workload.parse({ id: "w", generation: 1, image: "a", ...input });

describe("the limits of a workload", () => {
  it("are what it asked for", () => {
    const resources = { cpus: 1.5, memoryMiB: 1000, shmMiB: 10, pids: 20, diskMiB: 30 };
    expect(limitsOf(workload({ resources, maxRuntimeSeconds: 60 }), node)).toEqual({
      ...resources,
      maxRuntimeSeconds: 60,
    });
  });

  it("are all there where it asked for nothing", () => {
    const nineTenths = 57_600;
    expect(limitsOf(workload(), node)).toEqual({
      cpus: 14,
      memoryMiB: nineTenths,
      shmMiB: nineTenths / 2,
      pids: 4096,
      diskMiB: 50_000,
    });
  });

  it("follow what is lent where that is less than nine tenths of the machine", () => {
    const reserve = { cpus: 0, memoryMiB: 60_000, diskMiB: 0 };
    expect(limitsOf(workload(), { ...node, policy: { reserve } })).toMatchObject({ memoryMiB: 4000, cpus: 16 });
  });

  it("are never above the owner's caps, and say whose the run time is", () => {
    const max = { cpus: 2, memoryMiB: 8000, shmMiB: 100, diskMiB: 500, pids: 64, runSeconds: 3600 };
    const { runSeconds, ...others } = max;
    expect(limitsOf(workload(), withMax(max))).toEqual({
      ...others,
      maxRuntimeSeconds: runSeconds,
      runtimeIsCapped: true,
    });
    expect(limitsOf(workload({ maxRuntimeSeconds: 60 }), withMax(max))).not.toHaveProperty("runtimeIsCapped");
  });

  it("take half of the memory it named for /dev/shm", () => {
    expect(limitsOf(workload({ resources: { memoryMiB: 64 } }), node).shmMiB).toBe(32);
  });

  it("of the disk are bounded also where it is full or unknown", () => {
    expect(limitsOf(workload(), { ...node, diskFreeMiB: 500 }).diskMiB).toBe(64);
    const { diskFreeMiB: _, ...unknown } = node;
    expect(limitsOf(workload(), unknown).diskMiB).toBe(10_240);
  });
});
