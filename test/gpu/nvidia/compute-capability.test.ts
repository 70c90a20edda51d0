import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { capabilityOfName } from "../../../src/gpu/nvidia/compute-capability.ts";
import { tensorCoresOf } from "../../../src/gpu/nvidia/precision.ts";
import { fixture, fixtureFiles, haveFixtures } from "../../support/fixtures.ts";
import { documents } from "./documents.ts";

/** Product names as drivers print them; capabilities from NVIDIA's list of CUDA GPUs and its legacy list. */
const NAMES: readonly (readonly [capability: string | undefined, ...names: string[]])[] = [
  ["12.1", "NVIDIA GB10"],
  ["12.0", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX PRO 4500 Blackwell", "NVIDIA GeForce RTX 5090"],
  ["12.0", "NVIDIA GeForce RTX 5070 Ti", "NVIDIA GeForce RTX 5060", "NVIDIA GeForce RTX 5090 Laptop GPU"],
  ["12.0", "NVIDIA GeForce RTX 5090 D"],
  ["11.0", "NVIDIA Thor"],
  ["10.3", "NVIDIA GB300", "NVIDIA B300 SXM6 AC"],
  ["10.0", "NVIDIA GB200", "NVIDIA B200"],
  ["9.0", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA H800", "NVIDIA H20"],
  ["9.0", "NVIDIA GH200 480GB", "NVIDIA H100L-2-24C", "NVIDIA H200 NVL"],
  ["8.9", "NVIDIA L4", "NVIDIA L40", "NVIDIA L40S", "NVIDIA L40S-2Q", "NVIDIA L20", "NVIDIA GeForce RTX 4090"],
  ["8.9", "NVIDIA GeForce RTX 4060 Ti", "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4080 SUPER"],
  ["8.9", "NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 2000 Ada Generation", "NVIDIA GeForce RTX 4070 Laptop GPU"],
  ["8.7", "Orin (nvgpu)", "NVIDIA Jetson AGX Orin"],
  ["8.6", "NVIDIA A40", "NVIDIA A10", "NVIDIA A10G", "NVIDIA A16", "NVIDIA A2", "NVIDIA RTX A6000", "NVIDIA RTX A2000"],
  ["8.6", "NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3060 Ti", "NVIDIA GeForce RTX 3050", "NVIDIA A40-48Q"],
  ["8.6", "NVIDIA RTX A4500", "NVIDIA RTX A2000 12GB"],
  ["8.0", "NVIDIA A100-SXM4-40GB", "A100-PCIE-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA A30", "NVIDIA A800-SXM4-80GB"],
  ["7.5", "Tesla T4", "NVIDIA GeForce RTX 2080 Ti", "NVIDIA GeForce RTX 2080 SUPER", "TITAN RTX", "Quadro RTX 6000"],
  ["7.5", "NVIDIA GeForce GTX 1660 Ti", "GeForce GTX 1650 SUPER", "NVIDIA T1000 8GB", "NVIDIA T400 4GB"],
  ["7.2", "Xavier"],
  ["7.0", "Tesla V100-PCIE-32GB", "Tesla V100-SXM2-16GB", "Tesla V100S-PCIE-32GB", "NVIDIA TITAN V", "Quadro GV100"],
  ["6.2", "NVIDIA Tegra X2 (TX2)"],
  ["6.1", "Tesla P4", "Tesla P40", "GeForce GTX 1070 Ti", "NVIDIA GeForce GTX 1050", "Quadro P2000", "Quadro P400"],
  ["6.1", "Quadro P2200", "NVIDIA TITAN Xp", "TITAN X (Pascal)", "GeForce GTX 1060 6GB"],
  ["6.0", "Tesla P100-PCIE-16GB", "Tesla P100-SXM2-16GB", "Quadro GP100"],
  ["5.2", "Tesla M40", "Tesla M60", "GeForce GTX 980 Ti", "GeForce GTX TITAN X", "Quadro M4000"],
  ["5.0", "Tesla M10", "GeForce GTX 750 Ti"],
  ["3.7", "Tesla K80"],
  ["3.5", "Tesla K40m", "Tesla K20Xm", "GeForce GT 730", "GeForce GTX 780 Ti"],
  ["3.0", "GRID K520", "GRID K1", "GRID K2"],
  [undefined, "Graphics Device", "", "NVIDIA RTX 9999 Future", "AMD Radeon", "unknown NVIDIA GPU"],
];

describe("capabilityOfName", () => {
  it.each(NAMES.flatMap(([capability, ...names]) => names.map((name) => [name, capability] as const)))(
    "%s: %s",
    (name, capability) => expect(capabilityOfName(name)).toBe(capability),
  );
});

describe.runIf(haveFixtures)("recorded names", () => {
  const recorded = new Set(
    documents.flatMap((file) => [...fixture(file).matchAll(/<product_name>([^<]+)</g)].map(([, name]) => name ?? "")),
  );

  it.each([...recorded])("%s is known, or says nothing", (name) => {
    const capability = capabilityOfName(name);
    expect(capability === undefined).toBe(name === "Graphics Device");
    const listed = NAMES.find(([, ...names]) => names.includes(name));
    if (listed !== undefined) expect(capability).toBe(listed[0]);
  });

  // What CUDA itself said of the device.
  const told = fixtureFiles("text/table", "_deviceQuery.txt").flatMap((path) => {
    const text = fixture(`text/table/${basename(path)}`);
    const devices = text.matchAll(/Device \d+: "([^"]+)"[\s\S]*?version number:\s+(\d+\.\d+)/g);
    return [...new Map([...devices].map(([, name, capability]) => [name, capability]))];
  });
  it.each(told)("%s has %s as CUDA tells", (name, capability) => expect(capabilityOfName(name ?? "")).toBe(capability));
});

describe("tensorCoresOf", () => {
  it.each([
    ["6.1", undefined],
    ["7.0", "1: fp16"],
    ["7.2", "1: fp16 int8"],
    ["7.5", "2: fp16 int8 int4 int1"],
    ["8.0", "3: fp64 tf32 bf16 fp16 int8 int4 int1 sparse"],
    ["8.6", "3: tf32 bf16 fp16 int8 int4 int1 sparse"],
    ["8.7", "3: tf32 bf16 fp16 int8 int4 int1 sparse"],
    ["8.9", "4: tf32 bf16 fp16 fp8 int8 int4 int1 sparse"],
    ["9.0", "4: fp64 tf32 bf16 fp16 fp8 int8 int1 sparse"],
    ["10.0", "5: fp64 tf32 bf16 fp16 fp8 fp6 fp4 int8 sparse"],
    ["10.3", "5: fp64 tf32 bf16 fp16 fp8 fp6 fp4 int8 sparse"],
    ["11.0", "5: tf32 bf16 fp16 fp8 fp6 fp4 int8 sparse"],
    ["12.0", "5: tf32 bf16 fp16 fp8 fp6 fp4 int8 sparse"],
    ["12.1", "5: tf32 bf16 fp16 fp8 fp6 fp4 int8 sparse"],
    ["13.0", undefined],
    [undefined, undefined],
  ])("%s has %s", (capability, expected) => {
    const cores = tensorCoresOf(capability, "NVIDIA");
    const words = cores && [`${cores.generation}:`, ...cores.precisions, ...(cores.sparsity ? ["sparse"] : [])];
    expect(words?.join(" ")).toBe(expected);
  });

  it.each(["NVIDIA GeForce GTX 1660 Ti", "GeForce GTX 1650 SUPER", "NVIDIA T400 4GB", "NVIDIA GeForce MX450"])(
    "%s is a Turing without them",
    (name) => expect(tensorCoresOf("7.5", name)).toBeUndefined(),
  );

  it("each caller gets a list of its own", () => {
    tensorCoresOf("9.0", "a")?.precisions.push("int4");
    expect(tensorCoresOf("9.0", "a")?.precisions).not.toContain("int4");
  });
});
