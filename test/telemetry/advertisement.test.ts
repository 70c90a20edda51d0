import { expect, test } from "vitest";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { withHolders } from "../../src/telemetry/advertisement.ts";

const gpu: Gpu = {
  index: 0,
  uuid: "GPU-a",
  vendor: "nvidia",
  name: "NVIDIA A100-SXM4-40GB",
  links: [],
  health: { status: "healthy", reasons: [] },
  allocatable: true,
  mig: {
    enabled: true,
    instances: [
      { uuid: "MIG-1", profile: "3g.20gb", vramMiB: 20096, gpuInstanceId: 1, computeInstanceId: 0 },
      { uuid: "MIG-2", profile: "3g.20gb", vramMiB: 20096, gpuInstanceId: 2, computeInstanceId: 0 },
    ],
  },
};

test("who holds a GPU or an instance of one is advertised, and nothing is changed in place", () => {
  const before = structuredClone(gpu);
  const [held] = withHolders([gpu], new Map([["MIG-2", "train"]]));
  expect(held?.allocatedTo).toBeUndefined();
  expect(held?.mig?.instances.map(({ allocatedTo }) => allocatedTo)).toEqual([undefined, "train"]);
  expect(withHolders([gpu], new Map([["GPU-a", "x"]]))[0]?.allocatedTo).toBe("x");
  expect(gpu).toEqual(before);
});
