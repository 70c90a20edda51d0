import { describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { Gpu, MigInstance } from "../../src/protocol/gpu.ts";
import { GpuRequest } from "../../src/protocol/workload.ts";
import { allocate } from "../../src/workload/allocate.ts";

function gpu(index: number, changes: Partial<Gpu> = {}): Gpu {
  return {
    index,
    uuid: `GPU-${index}`,
    vendor: "nvidia",
    name: "NVIDIA Test",
    computeCapability: "8.0",
    vramMiB: 24_576,
    tensorCores: { precisions: ["fp16", "bf16", "tf32", "int8"], sparsity: true },
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    ...changes,
  };
}

function instance(uuid: string, profile: string, vramMiB: number): MigInstance {
  return { uuid, profile, vramMiB, gpuInstanceId: 1, computeInstanceId: 0 };
}

const request = (input: object) => GpuRequest.parse({ count: 1, ...input });

/** What `allocate` gives, or the error it throws. */
function outcome(input: object, gpus: readonly Gpu[], holders: Record<string, string> = {}): string[] | GpunodeError {
  try {
    return allocate(request(input), gpus, new Map(Object.entries(holders)));
  } catch (error) {
    if (error instanceof GpunodeError) return error;
    throw error;
  }
}

function refusal(input: object, gpus: readonly Gpu[], holders: Record<string, string> = {}): GpunodeError {
  const result = outcome(input, gpus, holders);
  if (result instanceof GpunodeError) return result;
  throw new Error(`expected a refusal, got ${result.join(", ")}`);
}

describe("whole GPUs", () => {
  const mixed = [
    gpu(0, { vramMiB: 81_920 }),
    gpu(1, { vramMiB: 24_576 }),
    gpu(2, { vramMiB: 24_576 }),
    gpu(3, { vramMiB: 8192 }),
  ];

  it.each([
    { name: "none asked for", input: { count: 0 }, gives: [] },
    { name: "the smallest first", input: {}, gives: ["GPU-3"] },
    { name: "the smallest that fits", input: { minVramMiB: 8193 }, gives: ["GPU-1"] },
    { name: "exactly as much as there is", input: { minVramMiB: 81_920 }, gives: ["GPU-0"] },
    { name: "several, smallest first, then by index", input: { count: 3 }, gives: ["GPU-3", "GPU-1", "GPU-2"] },
    { name: "only those named", input: { uuids: ["GPU-0", "GPU-2"] }, gives: ["GPU-2"] },
  ])("$name", ({ input, gives }) => {
    expect(outcome(input, mixed)).toEqual(gives);
  });

  it("gives the same answer whatever the order the GPUs are listed in", () => {
    expect(outcome({ count: 2 }, [...mixed].reverse())).toEqual(outcome({ count: 2 }, mixed));
  });

  it("never gives one twice, and says who holds it once all are given", () => {
    const holders: Record<string, string> = {};
    for (let n = 0; n < mixed.length; n++) {
      const given = outcome({}, mixed, holders) as string[];
      expect(given).toHaveLength(1);
      expect(holders).not.toHaveProperty(given[0] ?? "");
      holders[given[0] ?? ""] = `w${n}`;
    }
    const error = refusal({}, mixed, holders);
    expect(error.code).toBe("gpu_busy");
    expect(error.message).toMatch(/0 of 4 free.*w3/);
    expect(error.details).toMatchObject({ asked: 1, free: 0, fitting: 4 });
  });

  it("calls it busy, not impossible, where a held GPU would do", () => {
    expect(refusal({ minVramMiB: 80_000 }, mixed, { "GPU-0": "big" }).message).toMatch(/0 of 1 free.*big/);
    expect(refusal({ minVramMiB: 90_000 }, mixed, { "GPU-0": "big" }).code).toBe("no_matching_gpu");
  });

  it.each([
    ["VRAM", { minVramMiB: 90_000 }, /81920 MiB of VRAM, 90000 MiB asked for/],
    ["VRAM nobody told", { minVramMiB: 1 }, /unknown amount/, [gpu(0, { vramMiB: undefined as never })]],
    ["compute capability", { minComputeCapability: "9.0" }, /compute capability 8\.0, 9\.0 asked for/],
    ["precisions", { precisions: ["fp16", "fp8", "fp4"] }, /do not multiply fp8, fp4/],
    ["a UUID that is not here", { uuids: ["GPU-x"] }, /not among the UUIDs/],
    ["more than there are", { count: 5 }, /5 GPUs asked for, 4 of 4/],
    ["no GPU at all", {}, /this node has none/, []],
  ] as const)("refuses with the numbers compared: %s", (_, input, says, gpus?: readonly Gpu[]) => {
    const error = refusal(input, gpus ?? mixed);
    expect(error.code).toBe("no_matching_gpu");
    expect(error.message).toMatch(says);
  });

  it("passes by a GPU that may not be given, and says why", () => {
    const sick = gpu(0, {
      allocatable: false,
      health: { status: "failed", reasons: [{ code: "xid_79", message: "fell off the bus" }] },
    });
    expect(outcome({}, [sick, gpu(1)])).toEqual(["GPU-1"]);
    expect(refusal({}, [sick]).message).toContain("fell off the bus");
  });
});

describe("compute capability", () => {
  it("takes a Blackwell for a Hopper's work", () => {
    expect(outcome({ minComputeCapability: "9.0" }, [gpu(0, { computeCapability: "10.0" })])).toEqual(["GPU-0"]);
  });
});

describe("MIG", () => {
  const divided = gpu(0, {
    vramMiB: 81_920,
    mig: {
      enabled: true,
      instances: [
        instance("MIG-a", "1g.10gb", 9728),
        instance("MIG-b", "1g.10gb", 9728),
        instance("MIG-c", "3g.40gb", 40_192),
      ],
    },
  });

  it("gives instances of the profile asked for, each once", () => {
    expect(outcome({ migProfile: "1g.10gb" }, [divided])).toEqual(["MIG-a"]);
    expect(outcome({ migProfile: "1g.10gb" }, [divided], { "MIG-a": "w" })).toEqual(["MIG-b"]);
    expect(outcome({ count: 2, migProfile: "1g.10gb" }, [divided])).toEqual(["MIG-a", "MIG-b"]);
    expect(refusal({ migProfile: "1g.10gb" }, [divided], { "MIG-a": "w", "MIG-b": "v" }).code).toBe("gpu_busy");
  });

  it("gives a divided GPU to nobody as a whole", () => {
    expect(refusal({}, [divided]).code).toBe("no_matching_gpu");
    expect(outcome({}, [divided, gpu(1)])).toEqual(["GPU-1"]);
  });

  it("gives no instance of a GPU that somebody still holds as a whole, and no whole of which an instance is held", () => {
    expect(refusal({ migProfile: "3g.40gb" }, [divided], { "GPU-0": "whole" }).message).toContain("whole");
    const undivided = { ...divided, mig: { ...divided.mig, enabled: false, instances: divided.mig?.instances ?? [] } };
    expect(refusal({}, [undivided], { "MIG-c": "part" }).message).toContain("part");
  });

  it("refuses a profile nobody made, with the profiles there are", () => {
    expect(refusal({ migProfile: "7g.80gb" }, [divided]).message).toMatch(/1g\.10gb, 7g\.80gb asked for/);
  });

  it("holds an instance's own memory against what is asked for", () => {
    expect(refusal({ migProfile: "1g.10gb", minVramMiB: 20_000 }, [divided]).message).toContain("9728 MiB");
  });
});

describe("NVLink", () => {
  /** GPUs whose links are the pairs given, and PCIe between all others. */
  function linked(count: number, pairs: readonly (readonly [number, number])[], vram: number[] = []): Gpu[] {
    return Array.from({ length: count }, (_, index) =>
      gpu(index, {
        vramMiB: vram[index] ?? 81_920,
        links: Array.from({ length: count }, (_, other) => other)
          .filter((other) => other !== index)
          .map((other) => ({
            gpu: `GPU-${other}`,
            kind: pairs.some(([a, b]) => (a === index && b === other) || (b === index && a === other))
              ? "nvlink"
              : "pcie",
          })),
      }),
    );
  }

  const bridges = linked(4, [
    [0, 2],
    [1, 3],
  ]);

  it("gives those that are bridged", () => {
    expect(outcome({ count: 2, nvlink: true }, bridges)).toEqual(["GPU-0", "GPU-2"]);
    expect(outcome({ count: 2, nvlink: true }, bridges, { "GPU-0": "w" })).toEqual(["GPU-1", "GPU-3"]);
  });

  it("is busy where the free ones are not bridged, and impossible where none ever are", () => {
    expect(refusal({ count: 2, nvlink: true }, bridges, { "GPU-0": "w", "GPU-1": "v" }).code).toBe("gpu_busy");
    const error = refusal({ count: 3, nvlink: true }, bridges);
    expect(error.code).toBe("no_matching_gpu");
    expect(error.message).toContain("NVLink");
  });

  it("does not matter for a single GPU", () => {
    expect(outcome({ nvlink: true }, [gpu(0)])).toEqual(["GPU-0"]);
  });

  it("wants every pair linked, not only each with the first", () => {
    // 0 is linked with 1 and 2, which are not linked with each other.
    const star = linked(3, [
      [0, 1],
      [0, 2],
    ]);
    expect(refusal({ count: 3, nvlink: true }, star).code).toBe("no_matching_gpu");
  });

  it("finds the fully linked group also where a smaller GPU is linked with more", () => {
    // A DGX-1-like mesh: 0-1, 0-2 and the triangle 1-3-4.
    const mesh = linked(5, [
      [0, 1],
      [0, 2],
      [1, 3],
      [1, 4],
      [3, 4],
    ]);
    expect(outcome({ count: 3, nvlink: true }, mesh)).toEqual(["GPU-1", "GPU-3", "GPU-4"]);
  });
});
