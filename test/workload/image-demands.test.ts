import { describe, expect, it } from "vitest";
import { GpunodeError } from "../../src/protocol/errors.ts";
import type { Gpu } from "../../src/protocol/gpu.ts";
import { checkImageDemands, type DriverFacts } from "../../src/workload/image-demands.ts";

/** As CUDA 12.4's images carry it (shortened to three brands). */
const CUDA_12_4 =
  "cuda>=12.4 brand=tesla,driver>=470,driver<471 brand=unknown,driver>=470,driver<471 " +
  "brand=geforce,driver>=470,driver<471 brand=tesla,driver>=535,driver<536 brand=geforce,driver>=535,driver<536";

function gpu(name: string, computeCapability?: string): Gpu {
  return {
    index: 0,
    uuid: "GPU-0",
    vendor: "nvidia",
    name,
    links: [],
    health: { status: "healthy", reasons: [] },
    allocatable: true,
    ...(computeCapability !== undefined && { computeCapability }),
  };
}

const T4 = gpu("Tesla T4", "7.5");
const RTX = gpu("NVIDIA GeForce RTX 3090", "8.6");

function refusal(
  env: string[],
  driver: DriverFacts,
  gpus: Gpu[] = [T4],
  architecture = "amd64",
): GpunodeError | undefined {
  const image = { id: "sha256:1", digest: "sha256:1", sizeBytes: 1, architecture, os: "linux", env, user: "" };
  try {
    checkImageDemands(image, { architecture: "amd64" }, driver, gpus);
    return undefined;
  } catch (error) {
    if (error instanceof GpunodeError) return error;
    throw error;
  }
}

const driver = (driverVersion: string, cudaVersion: string) => ({ driverVersion, cudaVersion });

describe("the architecture of an image", () => {
  it("has to be this node's", () => {
    const error = refusal([], {}, [], "arm64");
    expect(error).toMatchObject({ code: "invalid_spec", details: { reason: "wrong_architecture" } });
    expect(error?.message).toMatch(/linux\/arm64.*amd64/);
  });

  it("may be unknown", () => {
    expect(refusal([], {}, [], "")).toBeUndefined();
  });
});

describe("NVIDIA_REQUIRE_CUDA of CUDA 12.4", () => {
  const env = [`NVIDIA_REQUIRE_CUDA=${CUDA_12_4}`];

  it.each([
    ["a driver that offers it", driver("550.54.15", "12.4"), T4, true],
    ["a newer one", driver("575.57.08", "12.9"), RTX, true],
    ["CUDA 13 (10 > 9, number by number)", driver("580.65.06", "13.0"), T4, true],
    ["an older driver of a branch that is listed", driver("470.82.01", "11.4"), T4, true],
    ["the same on a GeForce", driver("535.104.05", "12.2"), RTX, true],
    ["an older driver of a branch that is not", driver("525.147.05", "12.0"), T4, false],
    ["the first driver after the branch", driver("471.0", "11.4"), T4, false],
    ["a driver nobody could read", {}, T4, true],
    ["a driver whose versions are no versions", driver("N/A", "N/A"), T4, true],
  ])("%s", (_, facts, on, runs) => {
    expect(refusal(env, facts, [on]) === undefined).toBe(runs);
  });

  it("knows the brand of the GPU it was given", () => {
    const onlyTesla = ["NVIDIA_REQUIRE_CUDA=cuda>=13.0 brand=tesla,driver>=470,driver<471"];
    expect(refusal(onlyTesla, driver("470.1", "11.4"), [T4])).toBeUndefined();
    expect(refusal(onlyTesla, driver("470.1", "11.4"), [RTX])?.code).toBe("driver_too_old");
  });

  it("says both versions and what to do", () => {
    const error = refusal(env, driver("525.147.05", "12.0"));
    expect(error?.code).toBe("driver_too_old");
    expect(error?.message).toMatch(/cuda>=12\.4.*525\.147\.05.*CUDA 12\.0.*upgrade the driver/);
    expect(error?.details).toMatchObject({ driverVersion: "525.147.05", cudaVersion: "12.0" });
  });

  it("is asked of every GPU given, and of none where none is", () => {
    const arch = ["NVIDIA_REQUIRE_ARCH=arch>=8.0"];
    expect(refusal(arch, {}, [RTX])).toBeUndefined();
    expect(refusal(arch, {}, [RTX, T4])?.code).toBe("driver_too_old");
    expect(refusal(arch, {}, [])).toBeUndefined();
  });
});

describe("demands", () => {
  it.each([
    ["cuda=12.2", true],
    ["cuda!=12.2", false],
    ["cuda>12.1", true],
    ["cuda>12.2", false],
    ["cuda<12.10", true],
    ["cuda<=12.1", false],
    ["cuda>=9.0", true],
    ["cuda>=12.2,driver<500", false],
    ["cuda>=12.9 driver>=500", true],
    ["brand=tesla", true],
    ["brand=TESLA", true],
    ["brand!=tesla", false],
  ])("%s under CUDA 12.2 and driver 535.104.05: %s", (text, holds) => {
    expect(refusal([`NVIDIA_REQUIRE_X=${text}`], driver("535.104.05", "12.2")) === undefined).toBe(holds);
  });

  it("have to hold in every variable", () => {
    const env = ["NVIDIA_REQUIRE_A=cuda>=12.0", "NVIDIA_REQUIRE_B=driver>=999"];
    expect(refusal(env, driver("535.1", "12.2"))?.message).toContain("NVIDIA_REQUIRE_B");
  });

  it.each(["1", "true", "TRUE"])("are switched off by NVIDIA_DISABLE_REQUIRE=%s", (value) => {
    expect(refusal(["NVIDIA_REQUIRE_A=cuda>=99", `NVIDIA_DISABLE_REQUIRE=${value}`], driver("1", "1"))).toBeUndefined();
  });

  it.each(["0", "false", ""])("are not by NVIDIA_DISABLE_REQUIRE=%s", (value) => {
    expect(refusal(["NVIDIA_REQUIRE_A=cuda>=99", `NVIDIA_DISABLE_REQUIRE=${value}`], driver("1", "1"))).toBeDefined();
  });

  // What cannot be read is the toolkit's business, which reads it when the container starts.
  it.each([
    "nonsense",
    ">=12",
    "cuda",
    "cuda>=",
    "cuda>=abc",
    ",",
    ",,cuda",
    "gpus>=8",
    "csv-mounts=all",
    "constructor=1",
    "__proto__=1",
    "tostring>=1",
    "\u0000",
    "cuda>=1e999",
    "a".repeat(100_000),
    "a>".repeat(50_000),
  ])("that can't be read keep nothing from running (%#)", (text) => {
    const began = performance.now();
    expect(refusal([`NVIDIA_REQUIRE_X=${text}`], driver("535.1", "12.2"))).toBeUndefined();
    expect(performance.now() - began).toBeLessThan(200);
  });

  it.each([[[]], [["PATH=/bin"]], [["NVIDIA_REQUIRE_X="]], [["NVIDIA_REQUIRE_X=  "]], [["no equals sign"]], [[""]]])(
    "are none in %j",
    (env) => {
      expect(refusal(env, driver("1", "1"))).toBeUndefined();
    },
  );
});
