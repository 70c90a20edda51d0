import { GpunodeError } from "../protocol/errors.ts";
import type { Gpu } from "../protocol/gpu.ts";
import type { GpuRequest } from "../protocol/workload.ts";

/**
 * Which GPUs a workload gets. Pure: the same GPUs, holders and request always give the same answer. A GPU (or a MIG
 * instance) is never given twice; the smallest that fits goes first, so that the large ones stay free for those who
 * need them.
 */

/** Who holds which GPU or MIG instance: uuid → workload id. */
export type Holders = ReadonlyMap<string, string>;

/** Something that can be given to a workload: a whole GPU, or one MIG instance of one. */
interface Unit {
  uuid: string;
  gpu: Gpu;
  vramMiB: number | undefined;
  profile?: string;
}

/**
 * UUIDs for `request`. Throws `no_matching_gpu` where no set of GPUs here could ever serve it, with the numbers
 * compared, and `gpu_busy` where they could but are held, with their holders.
 */
export function allocate(request: GpuRequest, gpus: readonly Gpu[], holders: Holders): string[] {
  if (request.count === 0) return [];
  const units = request.migProfile === undefined ? wholeGpus(gpus) : migInstances(gpus);
  const refusals: string[] = [];
  const fitting = units.filter((unit) => {
    const refusal = misfit(unit, request);
    if (refusal !== undefined) refusals.push(refusal);
    return refusal === undefined;
  });
  const chosen = choose(fitting, request);
  if (chosen === undefined) throw noMatch(request, units.length, fitting.length, refusals);

  const free = fitting.filter((unit) => !isHeld(unit, holders));
  const given = choose(free, request);
  if (given !== undefined) return given.map((unit) => unit.uuid);
  const held = fitting.flatMap((unit) => holderOf(unit, holders) ?? []);
  throw new GpunodeError(
    "gpu_busy",
    `${plural(request.count, "fitting GPU")} asked for, ${free.length} of ${fitting.length} free; the others are held by ${[...new Set(held)].join(", ")}`,
    { details: { asked: request.count, free: free.length, fitting: fitting.length } },
  );
}

function wholeGpus(gpus: readonly Gpu[]): Unit[] {
  // A GPU in MIG mode runs nothing as a whole; only its instances can be given.
  return gpus.filter((gpu) => gpu.mig?.enabled !== true).map((gpu) => ({ uuid: gpu.uuid, gpu, vramMiB: gpu.vramMiB }));
}

function migInstances(gpus: readonly Gpu[]): Unit[] {
  return gpus.flatMap((gpu) =>
    (gpu.mig?.instances ?? []).map((instance) => ({
      uuid: instance.uuid,
      gpu,
      vramMiB: instance.vramMiB,
      profile: instance.profile,
    })),
  );
}

/** The first reason why this unit can't serve the request, with the values compared; undefined where it can. */
function misfit(unit: Unit, request: GpuRequest): string | undefined {
  const { gpu } = unit;
  const label = `GPU ${gpu.index} (${gpu.name})`;
  if (request.uuids !== undefined && !request.uuids.includes(unit.uuid))
    return `${label} is not among the UUIDs asked for`;
  if (!gpu.allocatable) {
    const why = gpu.health.reasons.map((reason) => reason.message).join("; ");
    return `${label} is not to be given: ${why === "" ? `its health is ${gpu.health.status}` : why}`;
  }
  if (request.migProfile !== undefined && unit.profile !== request.migProfile) {
    return `${label} has a MIG instance of profile ${unit.profile}, not ${request.migProfile}`;
  }
  if (request.minVramMiB !== undefined && (unit.vramMiB ?? 0) < request.minVramMiB) {
    return `${label} has ${unit.vramMiB ?? "an unknown amount of"} MiB of VRAM, ${request.minVramMiB} MiB asked for`;
  }
  if (request.minComputeCapability !== undefined) {
    if (gpu.computeCapability === undefined) return `${label} has an unknown compute capability`;
    if (compareVersions(gpu.computeCapability, request.minComputeCapability) < 0) {
      return `${label} has compute capability ${gpu.computeCapability}, ${request.minComputeCapability} asked for`;
    }
  }
  const missing = (request.precisions ?? []).filter((wanted) => !gpu.tensorCores?.precisions.includes(wanted));
  if (missing.length > 0) return `the tensor cores of ${label} do not multiply ${missing.join(", ")}`;
  return undefined;
}

/** Picks `count` of the units: NVLinked where asked, smallest VRAM first, then lowest index. */
function choose(units: readonly Unit[], request: GpuRequest): Unit[] | undefined {
  const ordered = [...units].sort(
    (a, b) => (a.vramMiB ?? 0) - (b.vramMiB ?? 0) || a.gpu.index - b.gpu.index || a.uuid.localeCompare(b.uuid),
  );
  if (request.nvlink !== true || request.count === 1) {
    return ordered.length >= request.count ? ordered.slice(0, request.count) : undefined;
  }
  return clique(ordered, request.count, []);
}

/** The first `count` units of which each reaches each other over NVLink, in the given order of preference. */
function clique(candidates: readonly Unit[], count: number, chosen: readonly Unit[]): Unit[] | undefined {
  if (chosen.length === count) return [...chosen];
  for (const [position, unit] of candidates.entries()) {
    if (candidates.length - position < count - chosen.length) return undefined;
    const linked = candidates.slice(position + 1).filter((other) => nvlinked(unit, other));
    const found = clique(linked, count, [...chosen, unit]);
    if (found !== undefined) return found;
  }
  return undefined;
}

function nvlinked(a: Unit, b: Unit): boolean {
  return a.gpu.links.some(({ gpu, kind }) => kind === "nvlink" && gpu === b.gpu.uuid);
}

/** A unit is held where itself is, or where the GPU around it (or an instance within it) is. */
function isHeld(unit: Unit, holders: Holders): boolean {
  return holderOf(unit, holders) !== undefined;
}

function holderOf(unit: Unit, holders: Holders): string | undefined {
  const own = holders.get(unit.uuid) ?? holders.get(unit.gpu.uuid);
  if (own !== undefined || unit.profile !== undefined) return own;
  for (const instance of unit.gpu.mig?.instances ?? []) {
    const holder = holders.get(instance.uuid);
    if (holder !== undefined) return holder;
  }
  return undefined;
}

function noMatch(request: GpuRequest, units: number, fitting: number, refusals: readonly string[]): GpunodeError {
  const kind = request.migProfile === undefined ? "GPU" : "MIG instance";
  const details = { asked: request.count, present: units, fitting };
  if (units === 0) {
    return new GpunodeError("no_matching_gpu", `${plural(request.count, kind)} asked for, this node has none`, {
      details,
    });
  }
  const some = [...new Set(refusals)].slice(0, 3).join("; ");
  const linked = request.nvlink === true && fitting >= request.count ? " and reach each other over NVLink" : "";
  return new GpunodeError(
    "no_matching_gpu",
    `${plural(request.count, kind)} asked for, ${linked === "" ? fitting : "fewer"} of ${units} here fit${linked}${some === "" ? "" : `: ${some}`}`,
    { details },
  );
}

/** Compares dotted versions number by number: "9.0" < "10.0". Missing parts count as 0. */
export function compareVersions(a: string, b: string): number {
  const left = a.split(".").map(Number);
  const right = b.split(".").map(Number);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return Math.sign(difference);
  }
  return 0;
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
