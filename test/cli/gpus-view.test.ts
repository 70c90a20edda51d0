import { expect, it } from "vitest";
import { gpusInWords } from "../../src/cli/gpus-view.ts";
import { exampleSnapshot } from "../local/snapshot-example.ts";

it("says what the GPUs are and can do, and why one is not healthy", () => {
  const lines = gpusInWords(exampleSnapshot().gpus, {}).split("\n");
  expect(lines).toEqual([
    "GPU  NAME                       VRAM  CC   PRECISIONS               PCIE     ECC  HEALTH",
    "  0  NVIDIA H100 80GB HBM3  79.6 GiB  9.0  tf32 bf16 fp16 fp8 int8  5.0 ×16  on   healthy",
    "  1  NVIDIA H100 80GB HBM3  79.6 GiB  -    -                        -        -    degraded",
    "      MIG 1g.10gb            9.6 GiB",
    "",
    "Driver 550.54.15, CUDA 12.4",
    "GPU 1 is degraded: 3 uncorrected memory errors",
    "",
  ]);
});

it("a link that could be wider says so", () => {
  const [gpu] = exampleSnapshot().gpus;
  if (gpu === undefined) throw new Error("the example has a GPU");
  const pci = { busId: "0", linkGeneration: 1, linkGenerationMax: 4, linkWidth: 8, linkWidthMax: 16 };
  expect(gpusInWords([{ ...gpu, pci }], {})).toContain(" 4.0 ×8 of ×16 ");
});
