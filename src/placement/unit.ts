import type { Gpu } from "../protocol/gpu.ts";
import type { GpuRequest } from "../protocol/workload.ts";

/** Something that can be given to a workload: a whole GPU, or one MIG instance of one. */
export interface Unit {
  uuid: string;
  gpu: Gpu;
  /** undefined where the driver does not tell. */
  vramMiB: number | undefined;
  /** Of a MIG instance. */
  profile?: string;
}

/** What `request` chooses from: with a profile the MIG instances, without one the whole GPUs. */
export function unitsOf(gpus: readonly Gpu[], request: Pick<GpuRequest, "migProfile">): Unit[] {
  if (request.migProfile === undefined) {
    // A GPU in MIG mode runs nothing as a whole; only its instances can be given.
    return gpus
      .filter((gpu) => gpu.mig?.enabled !== true)
      .map((gpu) => ({ uuid: gpu.uuid, gpu, vramMiB: gpu.vramMiB }));
  }
  return gpus.flatMap((gpu) =>
    (gpu.mig?.instances ?? []).map(({ uuid, vramMiB, profile }) => ({ uuid, gpu, vramMiB, profile })),
  );
}

/** The first reason why this unit can never serve the request, with the values compared; undefined where it can. */
export function misfit({ uuid, gpu, vramMiB, profile }: Unit, request: GpuRequest): string | undefined {
  const label = `GPU ${gpu.index} (${gpu.name})`;
  if (request.uuids !== undefined && !request.uuids.includes(uuid)) return `${label} is not among the UUIDs asked for`;
  if (!gpu.allocatable) {
    if (gpu.health.status === "healthy") return `${label} is kept from being lent`;
    const why = gpu.health.reasons.map((reason) => reason.message).join("; ");
    return `${label} is not to be given (${gpu.health.status}${why === "" ? "" : `: ${why}`})`;
  }
  if (request.migProfile !== undefined && profile !== request.migProfile) {
    return `${label} has a MIG instance ${profile}, ${request.migProfile} asked for`;
  }
  if (request.minVramMiB !== undefined && (vramMiB ?? 0) < request.minVramMiB) {
    const has = vramMiB === undefined ? "an unknown amount" : `${vramMiB} MiB`;
    return `${label} has ${has} of VRAM, ${request.minVramMiB} MiB asked for`;
  }
  const { minComputeCapability } = request;
  if (minComputeCapability !== undefined) {
    const has = gpu.computeCapability;
    if (has === undefined || compareVersions(has, minComputeCapability) < 0) {
      return `${label} has ${has === undefined ? "an unknown compute capability" : `compute capability ${has}`}, ${minComputeCapability} asked for`;
    }
  }
  const missing = (request.precisions ?? []).filter((wanted) => !gpu.tensorCores?.precisions.includes(wanted));
  if (missing.length > 0) return `the tensor cores of ${label} do not multiply ${missing.join(", ")}`;
  return undefined;
}

/** Compares dotted versions number by number: "9.0" < "10.0". Missing parts count as 0. */
export function compareVersions(a: string, b: string): number {
  return Math.sign(compareNumbers(a.split(".").map(Number), b.split(".").map(Number)));
}

/** Number by number, the first difference counts; what is missing counts as 0. */
export function compareNumbers(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
